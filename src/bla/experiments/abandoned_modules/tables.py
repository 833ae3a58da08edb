"""Section 3.3's modules against BLA: run r of each against run r of BLA, which starts from the same head."""

import pandas as pd

from bla.experiments.runs import PAIRED, corrected, paired

MEASURES = [
    "accuracy",
    "loss",
    "soft_accuracy",
    "soft_loss",
    "explanation_size",
    "effective_cells",
    "share_one_cell",
    "share_empty",
]
LOGITS = ["smallest_logit", "median_largest_logit", "largest_logit"]
RUN = ["dataset", "variant", "explanation", "run", "seed", "n_images", *MEASURES, *LOGITS]


def against_bla(runs: pd.DataFrame) -> pd.DataFrame:
    """Every variant against `bla` on each dataset, paired by run, with Holm's p.

    A family is the variants of one dataset and measure, since each measure is a question of its own. With all measures
    in one family eight runs could not answer.

    `runs` has a row per run with the columns dataset, variant, run, accuracy, loss and explanation_size.
    """
    rows = []
    for dataset, group in runs.groupby("dataset", sort=False):
        by_variant = {variant: part.sort_values("run") for variant, part in group.groupby("variant", sort=False)}
        bla = by_variant.pop("bla")
        for variant, part in by_variant.items():
            for name in ("accuracy", "loss", "explanation_size"):
                row: dict[str, object] = {"dataset": dataset, "variant": variant, "measure": name}
                rows.append(row | paired(part[name].to_numpy(float), bla[name].to_numpy(float)))
    return corrected(pd.DataFrame(rows, columns=["dataset", "variant", "measure", *PAIRED]), ["dataset", "measure"])
