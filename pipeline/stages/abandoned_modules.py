"""Stage `alternatives`: what section 3.3 tried beside BLA and gave up, in reports/tables/ and reports/figures/alternatives/."""

import pandas as pd
import torch
from tqdm import tqdm

from bla.base.errors import BlaError
from bla.base.paper import VARIANTS
from bla.base.specs import ConceptVector, Explaining
from bla.experiments.abandoned_modules.tables import LOGITS, MEASURES, NAMES, against_bla, picture, run_table
from bla.experiments.runs import means
from bla.method.modules import Explained, Head
from bla.method.training import evaluate, train
from bla.plotting.figures import explanations, save_figure
from bla.runtime.seeds import derive_seed
from pipeline.artifacts.files import replacing, save_table
from pipeline.artifacts.paths import FIGURES, HEADS, TABLES
from pipeline.artifacts.pictures import chosen_images
from pipeline.artifacts.runs import load_features, load_head
from pipeline.run.settings import Settings, load_settings
from pipeline.run.stage import choose_device, run_stage

PICTURES = FIGURES / "alternatives"
FRONT = ["dataset", "variant", "explanation", "run", "seed", "n_images"]


def main() -> None:
    """Write alternatives_runs.csv, alternatives.csv (means), alternatives_tests.csv, and pictures."""
    settings = load_settings()
    spec = settings.alternatives
    datasets = [name for name in spec.datasets if name in settings.datasets]
    if not datasets:
        print("alternatives: none of alternatives.datasets is among the datasets that run, so there is nothing to try")
    variants = {"bla": VARIANTS["bla"], **spec.variants}
    pairs = [(dataset, variant) for dataset in datasets for variant in variants]
    tables = [_measure(settings, dataset, variant, variants[variant]) for dataset, variant in pairs]
    runs = pd.concat(tables) if tables else pd.DataFrame(columns=[*FRONT, *MEASURES, *LOGITS])
    summary = means(runs, ["dataset", "variant", "explanation"], [*MEASURES, *LOGITS])
    tests = against_bla(runs, settings.statistics.resamples, derive_seed(settings.seed, "alternatives"))
    for name, table in (("_runs", runs), ("", summary), ("_tests", tests)):
        save_table(TABLES / f"alternatives{name}.csv", table)
    with replacing(PICTURES / "runs.png") as part:
        save_figure(picture(runs), part, "png")
    current = {PICTURES / "runs.png", *(PICTURES / f"{dataset}_{variant}.png" for dataset, variant in pairs)}
    for path in set(PICTURES.iterdir()) - current:  # of settings that are no more
        path.unlink()
    for _, row in summary.iterrows():
        print(
            f"{row['dataset']} {row['variant']}: accuracy {row['accuracy']:.4f}, {row['explanation_size']:.1f} cells, "
            f"largest logit {row['median_largest_logit']:.3g} (n = {row['n_runs']} runs)"
        )


def _measure(settings: Settings, dataset: str, variant: str, spec: Explaining) -> pd.DataFrame:
    """Train run r from head r of the baseline, draw the explanations of run 0, and return a row a run.

    BLA's seeds are those of its column in Table 1.
    """
    schedule, device = settings.dataset[dataset].training, choose_device()
    (features, labels), test = load_features(dataset, "train"), load_features(dataset, "test")
    head, runs, tables = load_head(HEADS / f"{dataset}.safetensors"), min(settings.alternatives.runs, settings.runs), []
    seeds = [derive_seed(settings.seed, dataset, variant, run) for run in range(runs)]
    # A concept vector of 1,280 channels has 80 million weights: no more are kept than train side by side, on a GPU one.
    size = runs if not isinstance(spec, ConceptVector) else torch.get_num_threads() if device.type == "cpu" else 1
    with tqdm(total=runs, desc=f"{dataset} {variant}", unit="run", disable=None) as bar:
        for start in range(0, runs, size):
            rows = slice(start, start + size)
            own = Head(head.weight[rows], head.bias[rows])
            first_epoch = schedule.epochs + start  # `train` counts runs from 0, and run r reads draw (r + epoch) mod D
            try:
                trained = train(features, labels, spec, own, seeds[rows], schedule, first_epoch, device=device)
            except BlaError as error:
                raise BlaError(f"params.yaml: alternatives: {dataset}, {variant}: {error}") from error
            again = [derive_seed(seed, "evaluation") for seed in seeds[rows]]
            result = evaluate(*test, spec, trained, again, device)
            table = run_table(result).assign(dataset=dataset, variant=variant, explanation=spec.explanation)
            tables.append(table.assign(run=table.index + start, seed=seeds[rows]))
            if start == 0:
                assert result.explained is not None
                _draw(settings, dataset, variant, result.explained)
            bar.update(len(table))
    return pd.concat(tables)[[*FRONT, *MEASURES, *LOGITS]]


def _draw(settings: Settings, dataset: str, variant: str, explained: Explained) -> None:
    """Figure 24: what run 0 looks at."""
    numbers, images, captions = chosen_images(dataset, settings.gallery_images)
    side = round(explained.hard.shape[2] ** 0.5)
    logits, soft, hard = (
        maps[0, numbers].view(-1, side, side).double().numpy()
        for maps in (explained.logits, explained.soft, explained.hard)
    )
    heading = f"{NAMES.get(variant, variant)} on {dataset}: run 0, test images, true class above"
    with replacing(PICTURES / f"{dataset}_{variant}.png") as part:
        save_figure(explanations(images, logits, soft, hard, captions, heading, own_scale=True), part, "png")


if __name__ == "__main__":
    run_stage(main)
