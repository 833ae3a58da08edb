"""Stage `abandoned_modules`: the modules that section 3.3 abandoned, in reports/tables/ and reports/figures/abandoned_modules/."""

import pandas as pd
from tqdm import tqdm

from bla.base.errors import BlaError
from bla.base.paper import VARIANTS
from bla.base.specs import Explaining
from bla.experiments.abandoned_modules.experiment import train_runs
from bla.experiments.abandoned_modules.figures import NAMES, picture
from bla.experiments.abandoned_modules.tables import LOGITS, MEASURES, RUN, against_bla
from bla.experiments.explanations.figures import explanations
from bla.experiments.runs import means, one_table, table_of_runs
from bla.method.modules import Explanations
from bla.runtime.seeds import derive_seed
from pipeline.artifacts.features import load_features, load_grid
from pipeline.artifacts.figures import FIGURES, remove_others, save_picture
from pipeline.artifacts.images import chosen_images
from pipeline.artifacts.models import starting_heads
from pipeline.artifacts.tables import save_tables
from pipeline.run.entries import running
from pipeline.run.environment import choose_device
from pipeline.run.settings import Settings, load_settings

PICTURES = FIGURES / "abandoned_modules"
MOST_PICTURED = 10
"""Images in a picture, at most."""


def main() -> None:
    """Write abandoned_modules_runs.csv, abandoned_modules.csv (means), _tests.csv, and pictures."""
    settings = load_settings()
    variants = {"bla": VARIANTS["bla"], **settings.abandoned_modules.variants}
    pairs = [(dataset, variant) for dataset in running(settings, "abandoned_modules") for variant in variants]
    runs = one_table([_measure(settings, *pair, variants[pair[1]]) for pair in pairs], RUN)
    summary = means(runs, ["dataset", "variant", "explanation"], [*MEASURES, *LOGITS])
    tests = against_bla(runs)
    save_tables("abandoned_modules", {"_runs": runs, "": summary, "_tests": tests})
    save_picture(PICTURES / "runs.png", picture(runs))
    remove_others(PICTURES, [PICTURES / "runs.png", *(PICTURES / f"{d}_{variant}.png" for d, variant in pairs)])
    for row in summary.to_dict("records"):
        print(f"{row['dataset']} {row['variant']}: accuracy {row['accuracy']:.4f}, {row['explanation_size']:.1f} cells, largest logit {row['median_largest_logit']:.3g} (n = {row['n_runs']} runs)")  # fmt: skip


def _measure(settings: Settings, dataset: str, variant: str, spec: Explaining) -> pd.DataFrame:
    """Train all runs, draw the explanations of run 0, and return a row per run. BLA has the seeds of its column."""
    runs, tables = min(settings.abandoned_modules.runs, settings.runs), []
    seeds = [derive_seed(settings.seed, dataset, variant, run) for run in range(runs)]
    sets = load_features(dataset, "train"), load_features(dataset, "test")
    heads, schedule = starting_heads(dataset, settings.runs), settings.dataset[dataset].training
    work = train_runs(*sets, spec, heads, seeds, schedule, choose_device())
    with tqdm(total=runs, desc=f"{dataset} {variant}", unit="run", disable=None) as bar:
        try:
            for start, result in work:
                table = table_of_runs(result).assign(dataset=dataset, variant=variant, explanation=spec.explanation)
                tables.append(table.assign(run=table["run"] + start, seed=seeds[start : start + len(table)]))
                if start == 0 and result.explained:
                    _draw(settings, dataset, variant, result.explained)
                bar.update(len(table))
        except BlaError as error:
            raise BlaError(f"params.yaml: abandoned_modules: {dataset}, {variant}: {error}") from error
    return pd.concat(tables)


def _draw(settings: Settings, dataset: str, variant: str, explained: Explanations) -> None:
    """Draw Figure 24: the explanations of run 0."""
    numbers, images, titles = chosen_images(dataset, min(settings.gallery_images or MOST_PICTURED, MOST_PICTURED))
    grid = load_grid(dataset)
    logits, soft, hard = (values[0, numbers].view(-1, *grid).double().numpy() for values in (explained.logits, explained.soft, explained.hard))  # fmt: skip
    heading = f"{NAMES.get(variant, variant)} on {dataset}: run 0, test images, true class above"
    save_picture(
        PICTURES / f"{dataset}_{variant}.png", explanations(images, logits, soft, hard, titles, heading, own_scale=True)
    )
