"""Stage `statistics`: every comparison with its tests, and every claim with its answer, in reports/tables/."""

import numpy as np
import pandas as pd
from safetensors.numpy import load_file

from bla.base.paper import (
    ALPHA,
    COLUMNS,
    DATASETS,
    PATTERNS,
    PUBLISHED_AS,
    RUNS,
    SCHEDULES,
    departures,
    variant_departures,
)
from bla.base.specs import ClutteredDigits
from bla.claims.further import judge_alternatives, judge_l2x, judge_small_cnn
from bla.claims.judge import Dataset, judge_claims
from bla.inference.paired import Measure, bootstrap, crossed_bootstrap, holm, wilcoxon
from bla.runtime.seeds import derive_seed
from pipeline.artifacts.files import save_table, save_text
from pipeline.artifacts.paths import EVALUATION, FAITHFULNESS, PUBLISHED, TABLES
from pipeline.artifacts.runs import load_column
from pipeline.run.settings import Settings, load_settings
from pipeline.run.stage import run_stage

MEASURES: tuple[Measure, Measure] = ("accuracy", "loss")
SMALL_CNN = {"classes": (3, 8), "temperature": 0.1, "threshold_factor": 1, "threshold_rule": "subtract"}
SMALL_CNN |= {"epochs": 3, "learning_rate": 0.001, "adam_epsilon": 1e-7, "alpha": ALPHA}
"""Section 4.1's settings."""
L2X = {"k": 8, "epochs": 3, "learning_rate": 0.001, "adam_epsilon": 1e-7}
"""Section 4.1's settings of L2X with two networks, and Keras' epsilon."""
PAPER_COLUMNS = {key for key, name in COLUMNS.items() if name == PUBLISHED_AS[key]} - {"bl_plus"}


def main() -> None:
    """Write runs.csv, tests.csv, claims.csv and claims.md."""
    settings = load_settings()
    keys = ["bl", *settings.variants, "bl_plus"]
    runs = pd.concat([pd.read_csv(EVALUATION / d / f"{v}.csv") for d in settings.datasets for v in keys])
    save_table(TABLES / "runs.csv", runs)

    level, resamples = settings.statistics.alpha, settings.statistics.resamples
    datasets = []
    for name in settings.datasets:
        columns = {key: load_column(name, key) for key in keys}
        entry = settings.dataset[name]
        classes = int(runs.loc[runs["dataset"] == name, "n_classes"].iloc[0])
        odd = departures(entry.images, entry.backbone, entry.training, settings.runs, level)
        patterns = settings.explainer.lime.patterns
        fewer = [] if patterns >= PATTERNS else [f"{patterns} patterns of LIME (paper: {PATTERNS})"]
        datasets.append(
            Dataset(
                name,
                entry.images.kind,
                classes,
                columns,
                odd,
                variant_departures(settings.variant),
                load_file(FAITHFULNESS / name / "rank_correlation.safetensors"),
                fewer,
            )
        )
    save_table(TABLES / "tests.csv", _tests(settings, datasets))

    published = pd.read_csv(PUBLISHED)
    seed, small_cnn = derive_seed(settings.seed, "claims"), pd.read_csv(TABLES / "small_cnn_runs.csv")
    others = judge_small_cnn(small_cnn, _small_cnn_departures(settings), published, level, resamples, seed)
    others += judge_alternatives(pd.read_csv(TABLES / "alternatives_runs.csv"), datasets, level)
    l2x, kinds = (
        pd.read_csv(TABLES / "l2x_runs.csv"),
        {name: entry.images.kind for name, entry in settings.dataset.items()},
    )
    odd_l2x = {name: _l2x_departures(settings, name) for name in dict.fromkeys(l2x["dataset"])}
    others += judge_l2x(l2x, kinds, odd_l2x, published, resamples, seed)
    claims = judge_claims(datasets, published, level, resamples, seed, others)
    save_table(TABLES / "claims.csv", claims)
    shown = claims.assign(p=[_p(p) for p in claims["p"]])
    save_text(TABLES / "claims.md", shown.to_markdown(index=False, disable_numparse=True) + "\n")
    print(claims.groupby(["holds_here", "verdict"]).size().to_string())


def _small_cnn_departures(settings: Settings) -> list[str]:
    """How the small CNN's settings depart from the paper's (its batch size is not printed)."""
    ours = settings.small_cnn.model_dump() | {"alpha": settings.statistics.alpha}
    odd = {name: value for name, value in SMALL_CNN.items() if ours[name] != value and name != "runs"}
    odd |= {"runs": RUNS} if settings.small_cnn.runs < RUNS else {}
    return [f"{name} {ours[name]} (paper: {value})" for name, value in odd.items()]


def _l2x_departures(settings: Settings, dataset: str) -> list[str]:
    """How images, backbone and settings of L2X with two networks depart from the paper's, which had one run."""
    entry, ours = settings.dataset[dataset], settings.l2x.model_dump()
    if entry.images.kind not in DATASETS:
        return []
    odd = departures(entry.images, entry.backbone, SCHEDULES[entry.images.kind], RUNS, ALPHA)
    return odd + [f"{name} {ours[name]:g} (paper: {value:g})" for name, value in L2X.items() if ours[name] != value]


def _p(p: float) -> str:
    return "" if pd.isna(p) else f"{p:.2g}"


def _tests(settings: Settings, datasets: list[Dataset]) -> pd.DataFrame:
    """Paired comparisons of every column with BL, with its left neighbour and with BL+.

    Holm corrects within a family: Table 1's comparisons on the paper's datasets at the paper's settings, those on other
    images, those on the embedded datasets, and of each the comparisons with BL+ and of columns that are not the paper's.
    """
    rows = []
    resamples = settings.statistics.resamples
    for dataset in datasets:
        paper = dataset.kind in DATASETS and not dataset.departures
        embedded = isinstance(settings.dataset[dataset.name].images, ClutteredDigits)
        group = "the paper's data" if paper else "embedded" if embedded else "other images"
        left = dict(zip(settings.variants[1:], settings.variants, strict=False))
        pairs = [(v, "bl") for v in settings.variants] + list(left.items())
        pairs += [("bl", "bl_plus")] + [(v, "bl_plus") for v in settings.variants]
        for measure in MEASURES:
            columns = dataset.columns
            differences = [columns[x].per_image(measure) - columns[y].per_image(measure) for x, y in pairs]
            seed = derive_seed(settings.seed, "bootstrap", dataset.name, measure)
            crossed = crossed_bootstrap(np.stack(differences), resamples, seed)
            for (variant, against), difference, over_both in zip(pairs, differences, crossed, strict=True):
                test = wilcoxon(columns[variant].paired(measure), columns[against].paired(measure))
                over_runs = bootstrap(difference.mean(axis=1), resamples, seed)
                ours = "BL+" if against == "bl_plus" else "further columns"
                rows.append(
                    {
                        "family": f"{group}, {'Table 1' if {variant, against} <= PAPER_COLUMNS else ours}",
                        "dataset": dataset.name,
                        "measure": measure,
                        "variant": variant,
                        "against": against,
                        "to_the_left": against == left.get(variant),
                        "test": "Wilcoxon signed-rank, exact, two-sided",
                        "n_runs": len(difference),
                        "nonzero_pairs": test.nonzero_pairs,
                        "n_images": difference.shape[1],
                        "mean_difference": difference.mean(),
                        "runs_low": over_runs.low,
                        "runs_high": over_runs.high,
                        "runs_images_low": over_both.low,
                        "runs_images_high": over_both.high,
                        "rank_biserial": test.effect_size,
                        "p": test.p,
                    }
                )
    table = pd.DataFrame(rows)
    table["p_holm"] = table.groupby("family")["p"].transform(lambda p: holm(p.to_numpy()))
    return table


if __name__ == "__main__":
    run_stage(main)
