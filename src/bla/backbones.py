"""Frozen feature extractors: any timm model whose features form a spatial map.

    spec = Backbone("tf_efficientnetv2_b0", "tf_efficientnetv2_b0.safetensors", "imagenet")
    extractor = load_backbone(spec, Path(spec.weights), image_size=224)
    f = extractor(images)          # uint8 [B, 224, 224, 3] -> [B, 49, 1280]

Weights are safetensors files on disk; nothing is downloaded here, and pickled weights are never loaded.
"""

import difflib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from bla.errors import BlaError
from bla.specs import Backbone, Normalisation

STATISTICS: dict[Normalisation, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "keras_2021": ((0.485, 0.456, 0.406), (0.229**0.5, 0.224**0.5, 0.225**0.5)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
"""Mean and divisor of each channel, for pixels in [0, 1]. Keras 2.3 to 2.8 divided EfficientNet's input by the square
root of the standard deviation (tensorflow issue 49930): `keras_2021` is what the paper's features saw."""


class Extractor(nn.Module):
    """A timm model and its input normalisation: uint8 images `[B, H, W, 3]` to features `[B, n, C]`, row by row."""

    mean: Tensor
    divisor: Tensor

    def __init__(self, model: nn.Module, normalisation: Normalisation) -> None:
        super().__init__()
        mean, divisor = STATISTICS[normalisation]
        self.model = model
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

    def forward(self, images: Tensor) -> Tensor:
        """Features `[B, n, C]` of uint8 images `[B, H, W, 3]`."""
        return self.feature_map(images).flatten(2).transpose(1, 2)


def build_backbone(spec: Backbone, image_size: int) -> Extractor:
    """The architecture with random weights, in training mode.

    Raises BlaError if timm does not know it, cannot give it the output stride, or has no spatial map for the image size.
    """
    if not timm.is_model(spec.architecture):
        near = difflib.get_close_matches(spec.architecture, timm.list_models(), 3)
        raise BlaError(
            f"architecture: timm has no {spec.architecture}" + (f" (did you mean {', '.join(near)}?)" if near else "")
        )
    stride: dict[str, Any] = {} if spec.output_stride is None else {"output_stride": spec.output_stride}
    try:
        model = timm.create_model(spec.architecture, pretrained=False, num_classes=0, **stride)
    except (TypeError, AssertionError, ValueError, RuntimeError) as error:
        reason = f" ({error})" if str(error) else ""
        if spec.output_stride is None:
            raise BlaError(f"architecture: timm cannot build {spec.architecture}{reason}") from error
        raise BlaError(
            f"output_stride: {spec.architecture} cannot use {spec.output_stride}{reason}; try null"
        ) from error
    extractor = Extractor(model.to(memory_format=torch.channels_last), spec.normalisation).eval()
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
        raise BlaError(f"{weights}: not a readable .safetensors file ({error})") from error
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


def extract(
    extractor: Extractor, images: NDArray[np.uint8], device: torch.device, batch_size: int
) -> Iterator[NDArray[np.float16]]:
    """Half-precision features of uint8 images `[N, H, W, 3]`, in batches `[B, n, C]` (float32 forward on a CPU).

    Raises BlaError if a feature is not a finite half-precision number.
    """
    extractor = extractor.to(device)
    for start in range(0, len(images), batch_size):
        batch = torch.from_numpy(images[start : start + batch_size]).to(device)
        with torch.inference_mode():
            features = extractor(batch).half()
        if not features.isfinite().all():
            raise BlaError(
                f"the features of images {start} to {start + len(batch) - 1} hold NaN or exceed half precision (65,504); "
                "the weights are damaged, or the normalisation is not the one they were trained with"
            )
        result: NDArray[np.float16] = features.cpu().numpy()
        yield result
