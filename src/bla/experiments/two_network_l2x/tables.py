"""Accuracies of two-network L2X with different masks, compared run by run."""

import pandas as pd

from bla.experiments.runs import PAIRED, corrected, paired

SHOWN = {
    "soft": "soft explanation, as in training",
    "hard_dimmed": "hard patches, as dim as in training",
    "hard": "hard explanation (k patches)",
    "random": "k random patches",
}
"""The ways of showing an image, in the order of the picture."""
SETTING = ["reading", "k", "n_train_images"]
MEASURES = [f"{name}_accuracy" for name in (*SHOWN, "full")]
MEASURES += ["soft_brightness", "chosen_brightness", "precision", "random_precision"]
DIGIT_MEASURES = ["posthoc_accuracy", "random_posthoc_accuracy", "soft_accuracy", "hard_accuracy", "model_accuracy"]
DIGIT_MEASURES += ["soft_brightness"]
RUN = ["dataset", "reading", "temperature", "background", "straight_through", "k", "run", "seed", "n_train_images"]
RUN += ["n_images", "n_images_left_out", "n_classes", *MEASURES]
DIGIT_RUN = ["data", "reading", "temperature", "k", "run", "seed", "n_train_images", "n_images", *DIGIT_MEASURES]


def differences(runs: pd.DataFrame) -> pd.DataFrame:
    """Accuracies compared run by run, with Holm's p.

    Within each reading: hard explanations against soft ones, dimmed ones, and random patches. Between readings: the
    soft and the hard accuracy against the first reading's. Each of these five comparisons is a question of its own, and
    its tests on one dataset, a test per reading, are a family. Four readings need eight runs to answer it.
    """
    rows = []
    for dataset, group in runs.groupby("dataset", sort=False):
        by_reading = {str(name): part.sort_values("run") for name, part in group.groupby("reading", sort=False)}
        first = next(iter(by_reading))
        pairs = [(name, "hard", name, other) for name in by_reading for other in ("soft", "hard_dimmed", "random")]
        pairs += [(name, what, first, what) for name in by_reading if name != first for what in ("soft", "hard")]
        for reading, what, other_reading, other in pairs:
            x, y = (
                by_reading[name][f"{shown}_accuracy"].to_numpy(float)
                for name, shown in ((reading, what), (other_reading, other))
            )
            row = {"dataset": dataset, "reading": reading, "shown": what}
            row |= {"against_reading": other_reading, "against_shown": other}
            rows.append(row | paired(x, y))
    table = pd.DataFrame(rows, columns=["dataset", "reading", "shown", "against_reading", "against_shown", *PAIRED])
    return corrected(table, ["dataset", "shown", "against_shown"])


def published_posthoc_accuracy(published: pd.DataFrame) -> float:
    """The paper's post-hoc accuracy of L2X on MNIST's 3 and 8."""
    accuracies = published.query("dataset == 'mnist_3_vs_8' and method == 'L2X' and quantity == 'accuracy'")
    return float(accuracies["value"].item())
