"""XNN as fitted, on a dataset's test images: x-features, logits, and what is drawn of a class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bla.datasets import class_of_each
from bla.experiments.related_methods.x_features.figures import DrawnClass
from bla.explainers.l_cam import as_maps
from bla.explainers.learned.xnn import XNN, pooled_and_logits
from bla.explainers.mask_optimisation import MaskSettings
from bla.explainers.x_features import encode, grad_cams
from bla.networks.backbones import load_backbone
from bla.networks.patches import Grid
from pipeline.artifacts.explained_images import load_classifier
from pipeline.artifacts.features import explained_features, load_grid
from pipeline.artifacts.images import captions, load_images, load_labels
from pipeline.artifacts.models import BACKBONES, load_state
from pipeline.run.environment import choose_device
from pipeline.run.methods import method_settings
from pipeline.run.settings import Settings

SHOWN = 2
"""Images of each x-feature in a picture."""


@dataclass(frozen=True)
class Fitted:
    """The fitted method, test features `[N, n, C]`, their means `[N, C]`, and the logits `[R, N, K]` of the fitted runs, on the CPU."""

    method: XNN
    features: Tensor
    grid: Grid
    means: Tensor
    logits: Tensor


def load_fitted(dataset: str, name: str, settings: Settings) -> Fitted:
    """XNN with its state, on the dataset's test features."""
    device, features, grid = choose_device(), explained_features(dataset), load_grid(dataset)
    _, height, width, _ = load_images(dataset, "test").shape
    backbone = load_backbone(settings.dataset[dataset].backbone, BACKBONES / f"{dataset}.safetensors", (height, width))
    classifier = load_classifier(dataset, settings, backbone).to(device).eval()
    method = XNN(classifier, method_settings(settings, name, XNN.Settings)).load(load_state(dataset, name))
    means, logits = pooled_and_logits(classifier, features, grid, device)
    return Fitted(method, features, grid, means, logits[: len(method.state["head.weight"])].cpu())


@torch.no_grad()
def drawn(
    fitted: Fitted,
    dataset: str,
    run: int,
    label: int,
    row: Mapping[str, Any],
    contributions: Sequence[Mapping[str, Any]],
    masks: MaskSettings | None,
) -> DrawnClass:
    """The x-features in use of a class, by contribution if it is `faithful` (its row of the table), else by number.

    Heat maps are Grad-CAMs, or with `masks` those of I-GOS.
    """
    names, labels = captions(dataset), class_of_each(load_labels(dataset, "test"))
    encoder, weights = fitted.method.encoder(run, label), fitted.method.state["head.weight"][run, label]
    own = [c for c in contributions if (c["dataset"], c["run"], c["class"]) == (dataset, run, row["class"])]
    numbers = [c["x_feature"] for c in own] if row["faithful"] else weights.nonzero()[:, 0].tolist()
    x = encode(encoder, fitted.means)[-1]
    strongest = x[:, numbers].T.argsort(dim=1, descending=True, stable=True)[:, :SHOWN].cpu()  # [V, S]
    maps = as_maps(fitted.features[strongest.flatten()].to(x.device).float(), fitted.grid)
    images = np.array(load_images(dataset, "test")[strongest.flatten().numpy()])
    if masks is None:
        cams = grad_cams(encoder, maps)[1].cpu().unflatten(0, strongest.shape)
        chosen = cams[torch.arange(len(numbers)), :, torch.tensor(numbers, dtype=torch.int64)]
    else:
        pixels = torch.from_numpy(images).to(x.device).unflatten(0, strongest.shape)
        made = zip(numbers, pixels, strict=True)
        optimised = [fitted.method.i_gos_maps(run, label, number, of_one, masks) for number, of_one in made]
        chosen = torch.stack(optimised).cpu() if optimised else torch.zeros(*strongest.shape, 1, 1)
    mean, error = (np.array([c[key] for c in own]) if row["faithful"] else None for key in ("contribution", "standard_error"))  # fmt: skip
    return DrawnClass(
        names[label].replace("\n", " "),
        float(row["r_squared"]),
        numbers,
        mean,
        error,
        images.reshape(*strongest.shape, *images.shape[1:]),
        chosen.double().numpy(),
        [[f"{names[labels[n]]}\n{x[n, k]:.2f}" if labels[n] >= 0 else f"{x[n, k]:.2f}" for n in of_one.tolist()] for k, of_one in zip(numbers, strongest, strict=True)],
    )  # fmt: skip
