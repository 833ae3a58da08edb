"""Stage `small_cnn`: section 4.1, the small CNN with and without BLA-T, trained end to end, in reports/."""

from dataclasses import asdict

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from bla.base.errors import BlaError
from bla.base.paper import ALPHA, small_cnn_departures
from bla.base.specs import BoundedLogits
from bla.datasets import SPLITS, spread_over_classes
from bla.experiments.small_cnn.experiment import jobs, train_and_evaluate
from bla.experiments.small_cnn.figures import picture
from bla.experiments.small_cnn.tables import RUN, differences, published_accuracies, summary
from bla.networks.small_cnn import GRID
from bla.runtime.seeds import derive_seed
from pipeline.artifacts.digits import digits_name, load_digits
from pipeline.artifacts.figures import FIGURES, save_picture
from pipeline.artifacts.tables import PUBLISHED, load_table, save_tables
from pipeline.run.environment import choose_device
from pipeline.run.settings import load_settings

PICTURED = 10
"""Number of test digits in the picture."""


def main() -> None:
    """Write small_cnn_runs.csv, small_cnn.csv (means), small_cnn_tests.csv and figures/small_cnn.png."""
    settings, device = load_settings(), choose_device()
    spec = settings.small_cnn
    variant = BoundedLogits(explanation="bounded_logits", head="trained", **spec.module.model_dump())
    train, test = (load_digits(settings, split, device) for split in SPLITS)
    work = jobs(spec.runs, lambda *about: derive_seed(settings.seed, "small_cnn", spec.data, *about), device)
    try:
        results = list(tqdm(train_and_evaluate(work, train, test, variant, spec.training), "small_cnn", len(work), disable=None))  # fmt: skip
    except BlaError as error:
        raise BlaError(f"params.yaml: small_cnn: {error}") from error
    runs = pd.concat([table for table, _ in results]).assign(data=digits_name(settings))[RUN]
    flat = spec.model_dump() | spec.module.model_dump() | asdict(spec.training) | {"alpha": ALPHA}
    agrees = spec.data == "mnist" and not small_cnn_departures(flat)
    by_column = summary(runs, published_accuracies(load_table(PUBLISHED)) if agrees else {})
    save_tables("small_cnn", {"_runs": runs, "": by_column, "_tests": differences(runs)})

    shown = spread_over_classes(test[1].cpu().numpy(), PICTURED)
    hard: dict[str, NDArray[np.float64]] = {}
    for (pooling, _, _, start), (_, result) in zip(work, results, strict=True):
        if start == 0 and result.explained:
            hard[pooling] = result.explained.hard[0, shown].view(-1, *GRID).double().numpy()
    pixels = np.repeat((test[0].cpu().numpy()[shown] * 255).round().astype(np.uint8)[..., None], 3, axis=3)
    save_picture(FIGURES / "small_cnn.png", picture(runs, pixels, hard))
    for row in by_column.to_dict("records"):
        print(f"{row['data']} {row['pooling']} {row['column']}: accuracy {row['accuracy']:.4f} (n = {row['n_runs']} runs)")  # fmt: skip
