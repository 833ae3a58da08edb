"""Frozen feature extractors: any timm model whose features form a spatial map.

    spec = Backbone("tf_efficientnetv2_b0", "tf_efficientnetv2_b0.safetensors", "imagenet")
    extractor = load_backbone(spec, Path(spec.weights), image_size=224)
    f = extractor(images)          # uint8 [B, 224, 224, 3] -> [B, 49, 1280]

Weights are safetensors files; pickled weights are never loaded. Stochastic depth (Huang et al. 2016) drops residual
branches at random. Keras kept it on while the authors' heads trained on a "frozen" extractor, so that a draw of it belongs
to their features: `drop_factors` draws it for every image from a seed, and batch normalisation stays frozen.
"""

import copy
import difflib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.layers.drop import DropPath
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from bla.base.download import Source
from bla.base.errors import BlaError
from bla.base.specs import Backbone, Normalisation

_B0 = "https://huggingface.co/timm/tf_efficientnet_b0.aa_in1k/resolve/{}/model.safetensors"
HUB = {
    "timm/tf_efficientnet_b0.aa_in1k": Source(
        "tf_efficientnet_b0.aa_in1k.safetensors",
        (_B0.format("f5ec7c5"), _B0.format("main")),  # whichever answers: the hash decides
        None,
        "sha256:bc97e48e1360ee9d9c9d8a39ad2fb9b85ad150eb89d6fc69cd0f08301b5e0b3e",
    )
}
"""Weights on the timm hub by name, pinned. EfficientNet-B0 as the paper used it, Apache-2.0."""

STATISTICS: dict[Normalisation, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "keras_2021": ((0.485, 0.456, 0.406), (0.229**0.5, 0.224**0.5, 0.225**0.5)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
"""Mean and divisor of each channel, for pixels in [0, 1]. Keras 2.3 to 2.8 divided EfficientNet's input by the square
root of the standard deviation (tensorflow issue 49930): `keras_2021` is what the paper's features saw."""


class ResidualDrop(nn.Module):
    """Stochastic depth in a residual branch, with factors that are set from outside instead of drawn in here."""

    def __init__(self, drop: float) -> None:
        super().__init__()
        self.drop = drop
        self.factors: Tensor | None = None

    def forward(self, branch: Tensor) -> Tensor:
        """Scale the branch `[B, ...]` of each image by its factor; unchanged where there are none."""
        return branch if self.factors is None else branch * self.factors.view(-1, *[1] * (branch.ndim - 1))


class Extractor(nn.Module):
    """A timm model and its input normalisation: uint8 images `[B, H, W, 3]` to features `[B, n, C]`, row by row."""

    mean: Tensor
    divisor: Tensor

    def __init__(self, model: nn.Module, normalisation: Normalisation) -> None:
        super().__init__()
        mean, divisor = STATISTICS[normalisation]
        self.model = model
        self.drops: list[ResidualDrop] = []
        for parent in list(model.modules()):
            for name, child in parent.named_children():
                if isinstance(child, DropPath) and child.drop_prob:
                    self.drops.append(ResidualDrop(child.drop_prob))
                    setattr(parent, name, self.drops[-1])
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("divisor", torch.tensor(divisor).view(3, 1, 1) * 255, persistent=False)

    def feature_map(self, images: Tensor) -> Tensor:
        """The map `[B, C, h, w]` of uint8 images `[B, H, W, 3]`; BlaError if the model has none."""
        # Permuted uint8 pixels are already channels-last, the faster memory format of convolutions.
        pixels = (images.permute(0, 3, 1, 2).float() - self.mean) / self.divisor
        features: Tensor = self.model.forward_features(pixels)  # type: ignore[operator]
        channels = self.model.num_features
        if features.ndim == 4 and features.shape[3] == channels:
            features = features.permute(0, 3, 1, 2)
        if features.ndim != 4 or features.shape[1] != channels:
            raise BlaError(
                f"its features have shape {list(features.shape)}, not [images, channels, height, width]: "
                "bounded logit attention needs a backbone with a spatial feature map, such as an EfficientNet or ResNet"
            )
        return features

    def forward(self, images: Tensor, factors: Tensor | None = None) -> Tensor:
        """Features `[B, n, C]` of uint8 images `[B, H, W, 3]`, clean or with the images' `drop_factors` `[B, M]`."""
        for number, drop in enumerate(self.drops):
            drop.factors = None if factors is None else factors[:, number]
        try:
            return self.feature_map(images).flatten(2).transpose(1, 2)
        finally:  # what calls `feature_map` sees the clean model
            for drop in self.drops:
                drop.factors = None

    def drop_factors(self, images: int, seed: int) -> Tensor:
        """One draw of stochastic depth for so many images: `[images, M]`, 0 or 1 / (1 - p) for each of M branches."""
        kept = 1 - torch.tensor([drop.drop for drop in self.drops])
        uniform = torch.rand(images, len(kept), generator=torch.Generator().manual_seed(seed))
        return (uniform < kept) / kept


def build_backbone(spec: Backbone, image_size: int) -> Extractor:
    """The architecture with random weights, in training mode.

    Raises BlaError if timm does not know it, cannot give it the output stride, or has no spatial map for the image size.
    """
    if not timm.is_model(spec.architecture):
        near = difflib.get_close_matches(spec.architecture, timm.list_models(), 3)
        raise BlaError(
            f"architecture: timm has no {spec.architecture}" + (f" (did you mean {', '.join(near)}?)" if near else "")
        )
    options: dict[str, Any] = {} if spec.output_stride is None else {"output_stride": spec.output_stride}
    options |= {"drop_path_rate": spec.stochastic_depth} if spec.stochastic_depth else {}
    try:
        model = timm.create_model(spec.architecture, pretrained=False, num_classes=0, **options)
    except (TypeError, AssertionError, ValueError, RuntimeError) as error:
        reason = f" ({error})" if str(error) else ""
        if spec.stochastic_depth and "drop_path_rate" in reason:
            raise BlaError(f"stochastic_depth: {spec.architecture} has none; set it to 0") from error
        if spec.output_stride is None:
            raise BlaError(f"architecture: timm cannot build {spec.architecture}{reason}") from error
        raise BlaError(
            f"output_stride: {spec.architecture} cannot use {spec.output_stride}{reason}; try null"
        ) from error
    extractor = Extractor(model.to(memory_format=torch.channels_last), spec.normalisation).eval()
    if spec.stochastic_depth and not extractor.drops:
        raise BlaError(f"stochastic_depth: {spec.architecture} has none; set it to 0")
    try:
        with torch.inference_mode():
            side = extractor.feature_map(torch.zeros(1, image_size, image_size, 3, dtype=torch.uint8)).shape[3]
    except (RuntimeError, AssertionError) as error:
        raise BlaError(f"{spec.architecture} cannot take images of {image_size} pixels ({error})") from error
    wanted = spec.output_stride
    if wanted and side not in (image_size // wanted, math.ceil(image_size / wanted)):  # timm rounds some silently
        raise BlaError(
            f"output_stride: {spec.architecture} cannot use {wanted}: {image_size} pixels give {side} cells a side; "
            "try null"
        )
    return extractor.train()


def load_backbone(spec: Backbone, weights: Path, image_size: int) -> Extractor:
    """The frozen extractor in evaluation mode; BlaError if the weights do not fit or there is no spatial map.

    `weights` is a safetensors file; a classifier in it is left out, everything else must fit exactly.
    """
    extractor = build_backbone(spec, image_size)
    try:
        found = load_file(weights)
    except (OSError, SafetensorError) as error:
        raise BlaError(
            f"{weights}: not a readable .safetensors file ({error}); name another, or delete it and run make repro"
        ) from error
    classifier = extractor.model.pretrained_cfg.get("classifier") or ()  # type: ignore[union-attr, operator]
    names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    found = {k: v for k, v in found.items() if not k.startswith(tuple(f"{name}." for name in names))}
    wanted = extractor.model.state_dict()
    odd = sorted(
        k
        for k in found.keys() | wanted.keys()
        if k not in found or k not in wanted or found[k].shape != wanted[k].shape
    )
    if odd:
        raise BlaError(
            f"{weights}: does not fit {spec.architecture}: {len(odd)} of {len(wanted)} tensors are missing, foreign or "
            f"of another shape ({', '.join(odd[:3])}, ...); name the architecture that these weights belong to"
        )
    extractor.model.load_state_dict(found)
    return extractor.eval().requires_grad_(False)


def fold_batch_norm(extractor: Extractor) -> Extractor:
    """The same extractor with batch normalisation folded into the convolutions before it, for faster inference.

    Exact in theory; in practice checked on noise, and where the features differ by more than 1e-4 (a model that applies
    its layers in another order than it lists them) the extractor is returned as it was.
    """
    folded = copy.deepcopy(extractor)
    _fold(folded.model)
    side = 64
    noise = torch.randint(0, 256, (2, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        try:
            before, after = extractor(noise), folded(noise)
        except (RuntimeError, AssertionError):  # a model that wants its own image size
            return extractor
    return folded if (after - before).norm() <= 1e-4 * before.norm() else extractor


def _fold(parent: nn.Module) -> None:
    convolution: tuple[str, nn.Conv2d] | None = None
    for name, child in list(parent.named_children()):
        if isinstance(child, nn.BatchNorm2d) and convolution and child.num_features == convolution[1].out_channels:
            setattr(parent, convolution[0], fuse_conv_bn_eval(convolution[1], child))
            rest = [getattr(child, part) for part in ("drop", "act") if hasattr(child, part)]  # timm's BatchNormAct2d
            setattr(parent, name, nn.Sequential(*rest))
            convolution = None
        elif isinstance(child, nn.Conv2d):
            convolution = name, child
        else:
            _fold(child)


def batch_size_for(device: torch.device, side: int) -> int:
    """How many images of `side` pixels to extract at once.

    Measured on two cores: 16 of 224 pixels are a third faster than 32, whose activations leave the cache.
    """
    return 512 if device.type == "cuda" else max(1, 16 * 224**2 // side**2)


def extract(
    extractor: Extractor,
    images: NDArray[np.uint8],
    device: torch.device,
    draws: Sequence[int] = (),
    start: int = 0,
    batch_size: int | None = None,
) -> Iterator[NDArray[np.float16]]:
    """Half-precision features of uint8 images `[N, H, W, 3]`, in batches `[B, n, C]`, from row `start` on.

    Without `draws` there are N rows of clean features; with D seeds there are D * N, draw by draw (see
    `Extractor.drop_factors`). The forward pass is in single precision on a CPU and in half precision (autocast) on a GPU,
    where the next batch is read while one is computed. Raises BlaError if a feature is not a finite half-precision number.
    """
    extractor, count = extractor.to(device), len(images)
    size = batch_size or batch_size_for(device, images.shape[1])
    pending: tuple[int, Tensor] | None = None
    for draw in range(start // count, max(1, len(draws))):
        factors = extractor.drop_factors(count, draws[draw]).to(device) if draws else None
        for first in range(start % count if draw == start // count else 0, count, size):
            rows = slice(first, first + size)
            batch = torch.from_numpy(np.array(images[rows]))  # which may lie in a memory map
            batch = batch.pin_memory() if device.type == "cuda" else batch
            with torch.inference_mode(), torch.autocast(device.type, torch.float16, enabled=device.type == "cuda"):
                features = extractor(batch.to(device, non_blocking=True), None if factors is None else factors[rows])
            if pending:  # a GPU is at work on the next batch by now
                yield _checked(*pending)
            pending = first, features.half()
    if pending:
        yield _checked(*pending)


def _checked(first: int, features: Tensor) -> NDArray[np.float16]:
    if not features.isfinite().all():
        raise BlaError(
            f"the features of images {first} to {first + len(features) - 1} hold NaN or exceed half precision (65,504); "
            "the weights are damaged, or the normalisation is not the one they were trained with"
        )
    result: NDArray[np.float16] = features.cpu().numpy()
    return result
