"""Stage `x_features`: XNN's x-features on test images, class by class. Tables and pictures in reports/."""

from functools import partial

import numpy as np

from bla.datasets import equal_shares
from bla.experiments.related_methods.x_features.figures import x_features
from bla.experiments.related_methods.x_features.tables import class_row, contribution_rows, tables
from bla.explainers.mask_optimisation import MaskSettings
from bla.explainers.x_features import encode
from bla.plotting.maps import sentence
from pipeline.artifacts.figures import FIGURES, Pictures, remove_others, save_pictures
from pipeline.artifacts.images import class_names
from pipeline.artifacts.tables import save_tables
from pipeline.maps.x_features import drawn, load_fitted
from pipeline.run.methods import method_settings
from pipeline.run.settings import load_settings

METHOD, DRAWN = "xnn", 3
"""The method, and how many classes are drawn."""


def main() -> None:
    """Write x_features.csv, x_features_contributions.csv, and x_features/DATASET.png for each dataset."""
    settings, pictures, rows, contributions = load_settings(), Pictures(), [], []
    by_i_gos = settings.x_features.heat_map == "i_gos"
    masks = method_settings(settings, "i_gos", MaskSettings) if by_i_gos else None
    for dataset in settings.datasets:
        path = FIGURES / "x_features" / f"{dataset}.png"
        if METHOD not in settings.learned_explainers:
            pictures[path] = partial(sentence, f"{dataset}: not drawn, because xnn is not among learned_explainers")
            continue
        fitted, names = load_fitted(dataset, METHOD, settings), class_names(dataset)
        state = fitted.method.state
        for run, logits in enumerate(fitted.logits):
            for label, name in enumerate(names):
                weights, bias = state["head.weight"][run, label].cpu(), state["head.bias"][run, label].cpu()
                x = encode(fitted.method.encoder(run, label), fitted.means)[-1].cpu()
                key = {"dataset": dataset, "run": run, "class": name}
                row = key | class_row(x, weights, bias, logits[:, label])
                training = {
                    "epochs": int(state["epochs"][run, label]),
                    "converged": bool(state["converged"][run, label]),
                }
                rows.append(row | training | {"r_squared_held_out": float(state["r_squared"][run, label])})
                if row["faithful"]:
                    predicted = (logits.argmax(dim=1) == label).numpy()
                    contributions += [key | of_one for of_one in contribution_rows(x, weights, predicted)]
        run = min(settings.faithfulness.run, len(fitted.logits) - 1)
        chosen = np.flatnonzero(equal_shares(np.ones(len(names), np.int64), min(DRAWN, len(names))))
        of_run = [row for row in rows if row["dataset"] == dataset and row["run"] == run]
        classes = [drawn(fitted, dataset, run, int(label), of_run[label], contributions, masks) for label in chosen]
        heading = f"{dataset}, run {run}: x-features on the test images where they are largest"
        pictures[path] = partial(x_features, classes, heading)
        faithful = sum(bool(row["faithful"]) for row in of_run)
        print(f"{dataset}: XNN of run {run} is faithful for {faithful} of {len(names)} classes")
    save_tables("x_features", tables(rows, contributions))
    save_pictures(pictures)
    remove_others(FIGURES / "x_features", pictures)
