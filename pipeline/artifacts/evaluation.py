"""Results of all runs on the test images: tables, values per run and image, and loss curves."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors.numpy import save_file

from bla.base.atomic import replacing
from bla.base.specs import BoundedLogits, NoExplanation, Variant
from bla.experiments.runs import SIZE_QUANTILES, Column, table_of_runs
from bla.inference.paired import standard_error
from pipeline.artifacts.arrays import load_arrays
from pipeline.artifacts.tables import load_table, save_table

if TYPE_CHECKING:
    from bla.method.modules import Evaluation, Trained

EVALUATION = Path("data/evaluation")
CURVES = Path("reports/curves")
FRONT = ["dataset", "variant", "run", "seed", "n_images", "n_classes", "correct", "accuracy", "loss"]
EXPLAINED = ["soft_accuracy", "soft_loss", "n_cells", "explanation_size"]
EXPLAINED += [f"explanation_size_q{round(100 * q):02d}" for q in SIZE_QUANTILES]
EXPLAINED += ["effective_cells", "share_without_weight"]


def save_results(
    dataset: str, variant: str, spec: Variant, seeds: list[int], trained: "Trained", result: "Evaluation"
) -> None:
    """Write a column's results: a table with a row per run, arrays with a value per run and image, and the loss curve."""
    runs = table_of_runs(result).assign(dataset=dataset, variant=variant, seed=seeds)
    runs["n_classes"] = trained.head.weight.shape[1]
    arrays = {"correct": result.correct.numpy(), "loss": result.loss.numpy()}
    if explained := result.explained:
        runs["n_cells"] = explained.hard.shape[2]
        arrays["size"] = explained.hard.sum(dim=2).numpy().astype(np.int16)
    columns = FRONT if isinstance(spec, NoExplanation) else FRONT + EXPLAINED
    columns = columns + ["share_never_at_bound"] * isinstance(spec, BoundedLogits)  # only these logits have a bound
    save_table(EVALUATION / dataset / f"{variant}.csv", runs[columns])
    with replacing(EVALUATION / dataset / f"{variant}.safetensors") as part:
        save_file(arrays, part)
    save_table(CURVES / f"{dataset}-{variant}.csv", _curve(trained.losses.double().numpy()))
    if runs.empty:
        print(f"{dataset} {variant}: no runs, because the classifier is your own and is not trained further")
        return
    message = f"{dataset} {variant}: accuracy {runs['accuracy'].mean():.4f}, loss {runs['loss'].mean():.4f}"
    print(message + (f", {runs['explanation_size'].mean():.1f} cells" if result.explained else ""))


def _curve(losses: NDArray[np.float64]) -> pd.DataFrame:
    """The mean training loss of each epoch, from losses `[R, epochs]`; no rows if nothing was trained."""
    if not losses.size:
        return pd.DataFrame(columns=["epoch", "loss", "standard_error"])
    epochs = range(1, losses.shape[1] + 1)
    return pd.DataFrame({"epoch": epochs, "loss": losses.mean(axis=0), "standard_error": standard_error(losses)})


def load_runs(dataset: str, variants: list[str]) -> pd.DataFrame:
    """The tables of runs of some columns, a row per run."""
    tables = [load_table(EVALUATION / dataset / f"{variant}.csv") for variant in variants]
    return pd.concat([table for table in tables if len(table)])  # an empty one would change the types of columns


def load_columns(dataset: str, variants: list[str]) -> dict[str, Column]:
    """The per-image results of the columns that have runs: BL+ of an own classifier has none."""
    columns = {variant: load_column(dataset, variant) for variant in variants}
    return {variant: column for variant, column in columns.items() if len(column.correct)}


def load_column(dataset: str, variant: str) -> Column:
    """The per-image results of a column, all runs."""
    arrays = load_arrays(EVALUATION / dataset / f"{variant}.safetensors")
    return Column(arrays["correct"], arrays["loss"].astype(np.float64), arrays.get("size"))
