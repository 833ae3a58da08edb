"""What the training stages write and the later ones read: features, heads, results per run and per image."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from bla.base.specs import BoundedLogits, Variant
from bla.inference.paired import Column, standard_error
from pipeline.artifacts.files import load_tensor, replacing, save_table
from pipeline.artifacts.paths import CURVES, EVALUATION, FEATURES

if TYPE_CHECKING:
    from torch import Tensor

    from bla.method.modules import Evaluation, Head, Trained

SIZE_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def load_features(dataset: str, split: str) -> "tuple[Tensor, Tensor]":
    """Features, `[D, N, n, C]` of train, `[N, n, C]` of test, half precision, and labels `[N]`, all memory-mapped."""
    features, labels = (FEATURES / dataset / f"{split}_{what}.npy" for what in ("features", "labels"))
    return load_tensor(features), load_tensor(labels)


def save_head(path: Path, head: "Head") -> None:
    """Write R heads: `head.weight` `[R, K, C]`, `head.bias` `[R, K]`."""
    with replacing(path) as part:
        save_file(_head_arrays(head), part)


def load_head(path: Path) -> "Head":
    """Read R heads."""
    import torch

    from bla.method.modules import Head

    arrays = load_file(path)
    return Head(torch.from_numpy(arrays["head.weight"]), torch.from_numpy(arrays["head.bias"]))


def save_trained(path: Path, trained: "Trained") -> None:
    """Write R heads and, if there are any, R modules: `module.weight` `[R, C]`, `module.bias` `[R]`."""
    arrays = _head_arrays(trained.head)
    if trained.module is not None:
        arrays |= {"module.weight": trained.module.weight.numpy(), "module.bias": trained.module.bias.numpy()}
    with replacing(path) as part:
        save_file(arrays, part)


def _head_arrays(head: "Head") -> dict[str, NDArray[np.float32]]:
    return {"head.weight": head.weight.numpy(), "head.bias": head.bias.numpy()}


def save_results(
    dataset: str, variant: str, spec: Variant, seeds: list[int], trained: "Trained", result: "Evaluation"
) -> None:
    """Write a column's results: a table with one row a run, arrays with one value a run and image, the loss curve.

    Of the maps only those of run 0 are kept, `[N, n]`, for the pictures.
    """
    images = result.correct.shape[1]
    runs = pd.DataFrame({"dataset": dataset, "variant": variant, "run": range(len(seeds)), "seed": seeds})
    runs["n_images"], runs["n_classes"] = images, trained.head.weight.shape[1]
    runs["correct"] = result.correct.sum(dim=1).numpy()
    runs["accuracy"] = runs["correct"] / images
    runs["loss"] = result.loss.double().mean(dim=1).numpy()
    arrays = {"correct": result.correct.numpy(), "loss": result.loss.numpy()}
    if explained := result.explained:
        runs["soft_accuracy"] = explained.correct.sum(dim=1).numpy() / images
        runs["soft_loss"] = explained.loss.double().mean(dim=1).numpy()
        size = explained.hard.sum(dim=2).numpy().astype(np.int16)
        runs["explanation_size"] = size.mean(axis=1)
        for q, values in zip(SIZE_QUANTILES, np.quantile(size, SIZE_QUANTILES, axis=1), strict=True):
            runs[f"explanation_size_q{round(100 * q):02d}"] = values
        if isinstance(spec, BoundedLogits):
            runs["share_never_at_bound"] = 1 - (explained.logits == 0).any(dim=2).numpy().mean(axis=1)
        runs["share_without_weight"] = (explained.soft.sum(dim=2) == 0).numpy().mean(axis=1)
        maps = {"logits": explained.logits, "soft": explained.soft, "hard": explained.hard}
        arrays |= {"size": size} | {name: values[0].numpy() for name, values in maps.items()}
    save_table(EVALUATION / dataset / f"{variant}.csv", runs)
    with replacing(EVALUATION / dataset / f"{variant}.safetensors") as part:
        save_file(arrays, part)
    losses = trained.losses.double().numpy()
    epochs = range(1, losses.shape[1] + 1)
    curve = pd.DataFrame({"epoch": epochs, "loss": losses.mean(axis=0), "standard_error": standard_error(losses)})
    save_table(CURVES / f"{dataset}-{variant}.csv", curve)
    message = f"{dataset} {variant}: accuracy {runs['accuracy'].mean():.4f}, loss {runs['loss'].mean():.4f}"
    print(message + (f", {runs['explanation_size'].mean():.1f} cells" if result.explained else ""))


def load_column(dataset: str, variant: str) -> Column:
    """The per-image results of a column, all runs."""
    arrays = load_file(EVALUATION / dataset / f"{variant}.safetensors")
    return Column(arrays["correct"], arrays["loss"].astype(np.float64), arrays.get("size"))


def load_maps(dataset: str, variant: str) -> list[NDArray[np.float64]]:
    """Logits, soft weights and hard explanation (0 or 1) of run 0 on the test images, `[N, h, w]` each."""
    arrays = load_file(EVALUATION / dataset / f"{variant}.safetensors")
    side = math.isqrt(arrays["logits"].shape[1])
    return [arrays[name].reshape(-1, side, side).astype(np.float64) for name in ("logits", "soft", "hard")]
