"""All columns of Table 1 on every preparation of the features that the paper's text allows.

for backbone in preparations(spec, draws=5):
    runs = measure(train, test, seeds, schedule)      # on features of that preparation: a row per run and column
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product

import pandas as pd
from torch import Tensor

from bla.base.errors import BlaError
from bla.base.paper import VARIANTS
from bla.base.specs import Backbone, NoExplanation, Normalisation, Schedule, Variant
from bla.experiments.runs import table_of_runs
from bla.method.evaluation import evaluate
from bla.method.initialisation import initial_head
from bla.method.training import train, train_sweep
from bla.networks.backbones import build_backbone
from bla.runtime.seeds import derive_seed

HALVED: dict[Normalisation, Normalisation] = {"imagenet": "keras_2021", "half": "half_keras_2021"}
"""Each normalisation with the mistake of Keras 2.3 to 2.8, which halved the contrast."""
STOCHASTIC_DEPTHS: tuple[float, ...] = (0.0, 0.2)
RUN = ["dataset", "normalisation", "stochastic_depth", "draws", "column", "run", "n_images"]
RUN += ["accuracy", "loss", "explanation_size"]

COLUMNS: dict[str, Variant] = {
    "bl": NoExplanation(explanation="none"),
    "bl_plus": NoExplanation(explanation="none"),
    **{key: variant for key, variant in VARIANTS.items() if key != "bla_ph_released"},
}
"""The columns that are trained on every preparation, by key. BLA-PH as released is BLA-T, as its head trains too."""


def preparations(backbone: Backbone, draws: int, image_size: int | tuple[int, int]) -> tuple[list[Backbone], str]:
    """Every combination of input normalisation (as the weights were trained, and with halved contrast) and stochastic depth.

    A backbone that cannot drop whole branches has no stochastic depth; then that choice is skipped, and the text says
    why. It is empty otherwise.
    """
    as_trained = {halved: name for name, halved in HALVED.items()}.get(backbone.normalisation, backbone.normalisation)
    if as_trained not in HALVED:
        raise BlaError(f"unstated_choices.datasets: needs a normalisation of {', '.join(HALVED)}, not {as_trained}")
    depths, skipped = STOCHASTIC_DEPTHS, ""
    # An error that is not about the depth ends here.
    build_backbone(replace(backbone, stochastic_depth=depths[0]), image_size)
    try:
        build_backbone(replace(backbone, stochastic_depth=depths[-1]), image_size)
    except BlaError as error:
        depths, skipped = depths[:1], f"the choice of stochastic depth is skipped: {error}"
    made = [
        replace(backbone, normalisation=normalisation, stochastic_depth=depth, draws=draws if depth else 1)
        for normalisation, depth in product((as_trained, HALVED[as_trained]), depths)
    ]
    return made, skipped


def measure(
    train_set: tuple[Tensor, Tensor],
    test_set: tuple[Tensor, Tensor],
    seeds: Sequence[int],
    schedule: Schedule,
    progress: Callable[[int], object] = lambda runs: None,
) -> pd.DataFrame:
    """A row per column and run: accuracy, loss and explanation size on one preparation.

    `train_set` is features `[D, N, n, C]` and labels `[N]`, `test_set` `[M, n, C]` and `[M]`. All columns use the same
    random numbers, so that pairs differ only in the choice. `progress` is called three times with the number of runs.
    """
    (features, labels), variants = train_set, list(COLUMNS.values())
    first, second, last = ([derive_seed(seed, phase) for seed in seeds] for phase in ("baseline", "variant", "evaluation"))  # fmt: skip
    initial = initial_head(seeds, features.shape[3], int(labels.max()) + 1)
    bl = train(features, labels, COLUMNS["bl"], initial, first, schedule, progress=progress)
    start = bl.head, second, schedule, schedule.epochs
    bl_plus = train(features, labels, COLUMNS["bl_plus"], *start, progress=progress)
    trained = [bl, bl_plus, *train_sweep(features, labels, variants[2:], *start, progress=progress)]
    tables = [
        table_of_runs(evaluate(*test_set, variant, runs, last)).assign(column=key)
        for (key, variant), runs in zip(COLUMNS.items(), trained, strict=True)
    ]
    return pd.concat(tables)
