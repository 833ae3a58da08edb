"""Frozen feature extractors: a network with a spatial feature map (`bla.networks.sources`) and its normalisation.

    spec = Backbone(architecture="tf_efficientnetv2_b0", weights="tf_efficientnetv2_b0.safetensors", normalisation="imagenet")
    extractor = load_backbone(spec, Path(spec.weights), image_size=(224, 224))
    f = extractor(images)          # uint8 [B, 224, 224, 3] -> [B, 49, 1280]

Weights are safetensors files; pickled weights are never loaded. Stochastic depth (Huang et al. 2016) drops residual
branches at random. In Keras it stayed on while the authors' heads trained on a "frozen" extractor, so their training
features are noisy: `drop_factors` draws this noise for each image from a seed. Batch normalisation is always frozen.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from bla.base.download import Source
from bla.base.errors import BlaError
from bla.base.files import refuse_pipe
from bla.base.specs import Backbone, Normalisation, height_and_width
from bla.method.modules import CHECKPOINT_HEAD
from bla.networks.patches import batch_size_for
from bla.networks.sources import Network, build_network, last_layer, no_map
from bla.runtime.threads import in_parts

_B0 = "https://huggingface.co/timm/tf_efficientnet_b0.aa_in1k/resolve/{}/model.safetensors"
HUB = {
    "timm/tf_efficientnet_b0.aa_in1k": Source(
        "tf_efficientnet_b0.aa_in1k.safetensors",
        (_B0.format("f5ec7c5"), _B0.format("main")),  # either address may answer; the hash decides
        None,
        "sha256:bc97e48e1360ee9d9c9d8a39ad2fb9b85ad150eb89d6fc69cd0f08301b5e0b3e",
    )
}
"""Weights on the timm hub by name, pinned. EfficientNet-B0 as the paper used it, Apache-2.0."""

DEFAULT_CLASSES = 1000
"""ImageNet's; for networks that are built only to list their layers."""

WRAPPERS = ("module.", "_orig_mod.")
"""What torch.nn.DataParallel, AveragedModel and torch.compile put before the names of weights."""
TRAINERS = ("state_dict.", "model.", "backbone.", "net.")
"""What training programs such as Lightning put there; the user's own network may have such a part."""

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and divisor of each channel, for pixels in [0, 1]."""
STATISTICS: dict[Normalisation, Statistics] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "keras_2021": ((0.485, 0.456, 0.406), (0.229**0.5, 0.224**0.5, 0.225**0.5)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "half_keras_2021": ((0.5, 0.5, 0.5), (0.5**0.5, 0.5**0.5, 0.5**0.5)),
}
"""The named normalisations. Keras 2.3 to 2.8 divided EfficientNet's input by the square
root of the standard deviation (tensorflow issue 49930): `keras_2021` is what the paper used, `half_keras_2021` the same
mistake for weights that were trained with `half`."""


class ResidualDrop(nn.Module):
    """Stochastic depth in a residual branch, with factors set from outside instead of drawn here."""

    def __init__(self, drop: float) -> None:
        super().__init__()
        self.drop = drop
        self.factors: Tensor | None = None

    def forward(self, branch: Tensor) -> Tensor:
        """Scale the branch `[B, ...]` of each image by its factor, if there are factors."""
        return branch if self.factors is None else branch * self.factors.view(-1, *[1] * (branch.ndim - 1))


class Extractor(nn.Module):
    """A network and its input normalisation: uint8 images `[B, H, W, 3]` to features `[B, n, C]`, row by row."""

    mean: Tensor
    divisor: Tensor

    def __init__(self, network: Network, statistics: Statistics) -> None:
        from timm.layers.drop import DropPath

        super().__init__()
        mean, divisor = statistics
        self.network = network
        self.drops: list[ResidualDrop] = []
        for parent in list(network.modules()):
            for name, child in parent.named_children():
                if isinstance(child, DropPath) and child.drop_prob:
                    self.drops.append(ResidualDrop(child.drop_prob))
                    setattr(parent, name, self.drops[-1])
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("divisor", torch.tensor(divisor).view(3, 1, 1) * 255, persistent=False)

    @property
    def model(self) -> nn.Module:
        """The part of the network that makes the feature map, such as a timm model."""
        return self.network.model

    def normalised(self, images: Tensor) -> Tensor:
        """What the network gets for images `[B, H, W, 3]` in [0, 255]: `[B, 3, H, W]`."""
        # In whole rows, because three numbers at a time are slow. Permuted pixels are already channels-last, the faster
        # memory format of convolutions.
        mean, divisor = (values.flatten().repeat(images.shape[2]) for values in (self.mean, self.divisor))
        return ((images.float().flatten(2) - mean) / divisor).view(images.shape).permute(0, 3, 1, 2)

    def feature_map(self, images: Tensor) -> Tensor:
        """The map `[B, C, h, w]` of uint8 images `[B, H, W, 3]`; BlaError if the model has none."""
        features = self.network.features(self.normalised(images))
        if features.ndim != 4:
            raise no_map(features)
        return features

    def forward(self, images: Tensor, factors: Tensor | None = None) -> Tensor:
        """Features `[B, n, C]` of uint8 images `[B, H, W, 3]`, clean or with the images' `drop_factors` `[B, M]`."""
        for number, drop in enumerate(self.drops):
            drop.factors = None if factors is None else factors[:, number]
        try:
            return self.feature_map(images).flatten(2).transpose(1, 2)
        finally:  # `feature_map` alone is always clean
            for drop in self.drops:
                drop.factors = None

    def drop_factors(self, images: int, seed: int) -> Tensor:
        """One draw of stochastic depth: `[images, M]`, 0 or 1 / (1 - p) for each of M branches."""
        keep_probability = 1 - torch.tensor([drop.drop for drop in self.drops])
        uniform = torch.rand(images, len(keep_probability), generator=torch.Generator().manual_seed(seed))
        return (uniform < keep_probability) / keep_probability


def trained_with(spec: Backbone) -> Statistics | None:
    """The statistics with which the weights were trained, or else the architecture's, as timm or torchvision says; None if neither does."""
    import timm

    for name in (spec.weights.rpartition("/")[2].removesuffix(".safetensors"), spec.architecture):
        with contextlib.suppress(RuntimeError):  # timm knows the model, but not what follows its first dot
            if (config := timm.get_pretrained_cfg(name)) is not None:
                return tuple(map(float, config.mean)), tuple(map(float, config.std))
    source, _, name = spec.architecture.rpartition("/")
    if source != "torchvision":
        return None
    if name in ("googlenet", "inception_v3"):  # their `transform_input`, which is off here, turns ImageNet's into these
        return STATISTICS["half"]
    from torchvision import models  # type: ignore[import-untyped]

    preset = models.get_model_weights(name).DEFAULT.transforms()
    return tuple(preset.mean), tuple(preset.std)


def statistics_of(spec: Backbone) -> Statistics:
    """The statistics of a backbone's normalisation; BlaError if it is `model` and nothing is known of the model's."""
    if spec.normalisation != "model":
        return STATISTICS[spec.normalisation]
    if (found := trained_with(spec)) is None:
        known = ", ".join(STATISTICS)
        raise BlaError(
            f"normalisation: neither timm nor torchvision says how {spec.architecture} was trained; name one of {known}"
        )
    return found


def build_backbone(spec: Backbone, image_size: int | tuple[int, int], classes: int | None = None) -> Extractor:
    """The architecture with random weights, in training mode; with `classes` it includes its own tail.

    Raises BlaError if it is unknown, does not support the output stride, or has no spatial map for the image size.
    """
    size = height_and_width(image_size)
    options: dict[str, Any] = {} if spec.output_stride is None else {"output_stride": spec.output_stride}
    options |= {"drop_path_rate": spec.stochastic_depth} if spec.stochastic_depth else {}
    try:
        network = build_network(spec.architecture, size, classes, **options)
    except (TypeError, AssertionError, ValueError, RuntimeError) as error:
        reason = f" ({error})" if str(error) else ""
        if spec.stochastic_depth and "drop_path_rate" in reason:
            raise BlaError(f"stochastic_depth: {spec.architecture} has none; set it to 0") from error
        if spec.output_stride is None:
            raise BlaError(f"architecture: {spec.architecture} cannot be built{reason}") from error
        raise BlaError(
            f"output_stride: {spec.architecture} cannot use {spec.output_stride}{reason}; try null"
        ) from error
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)
    extractor = Extractor(network, statistics_of(spec)).eval()
    if spec.stochastic_depth and not extractor.drops:
        raise BlaError(f"stochastic_depth: {spec.architecture} has none; set it to 0")
    try:
        with torch.inference_mode():
            cells = extractor.feature_map(torch.zeros(1, *size, 3, dtype=torch.uint8)).shape[2:]
    except (RuntimeError, AssertionError) as error:
        reason = f" ({error})" if str(error) else ""
        shown = size[0] if size[0] == size[1] else f"{size[0]} x {size[1]}"
        raise BlaError(f"{spec.architecture} cannot take images of {shown} pixels{reason}") from error
    if cells.numel() < 2:
        raise BlaError(f"image_size: {spec.architecture} makes one cell of {size[0]} x {size[1]} pixels; enlarge it")
    if spec.stochastic_depth and not _drops_whole_images(extractor, size):
        raise BlaError(f"stochastic_depth: {spec.architecture} applies it to parts of images; set it to 0")
    stride = spec.output_stride
    for pixels, side in zip(size, cells, strict=True):
        if stride and side not in (pixels // stride, math.ceil(pixels / stride)):  # timm rounds some without a warning
            raise BlaError(
                f"output_stride: {spec.architecture} cannot use {stride}: {pixels} pixels give {side} cells a side; "
                "try null"
            )
    return extractor.train()


def _drops_whole_images(extractor: Extractor, size: tuple[int, int]) -> bool:
    """Whether the inputs of all residual drops have a row per image, as in networks without windows or token groups."""
    try:
        with torch.inference_mode():
            extractor(torch.zeros(3, *size, 3, dtype=torch.uint8), extractor.drop_factors(3, 0))
    except RuntimeError:
        return False
    return True


def load_backbone(spec: Backbone, weights: Path, image_size: int | tuple[int, int]) -> Extractor:
    """The frozen extractor in evaluation mode; BlaError if the weights do not fit or there is no spatial map.

    `weights` is a safetensors file; see `with_weights`.
    """
    try:
        refuse_pipe(weights)
        loaded = load_file(weights)
    except (OSError, ValueError, SafetensorError) as error:
        raise BlaError(
            f"{weights}: not a readable .safetensors file ({error}); name another, or delete it and run make repro"
        ) from error
    return with_weights(spec, loaded, weights, image_size)


def with_weights(
    spec: Backbone, loaded: dict[str, Tensor], weights: Path, image_size: int | tuple[int, int]
) -> Extractor:
    """The frozen extractor with the weights `loaded` from the file `weights`, which must fit exactly.

    If `spec.tail` is pooled, a classifier in the file is ignored; otherwise the file decides the number of classes.
    """
    loaded = plain_names(spec, loaded)
    classes = None if spec.tail == "pooled" else _classes(spec, loaded, image_size)
    network = (extractor := build_backbone(spec, image_size, classes)).network
    ignored, expected = network.ignored(), network.weights()
    loaded = {name: value for name, value in loaded.items() if not name.startswith((*ignored, CHECKPOINT_HEAD))}
    # Batch normalisations with a momentum never read their count, and many files lack it.
    loaded = {name: value for name, value in expected.items() if name.endswith(".num_batches_tracked")} | loaded
    misfits = sorted(
        name
        for name in loaded.keys() | expected.keys()
        if name not in loaded
        or name not in expected
        or loaded[name].shape != expected[name].shape
        or loaded[name].is_floating_point() != expected[name].is_floating_point()
    )
    if misfits:
        raise BlaError(
            f"{weights}: does not fit {spec.architecture}: {len(misfits)} of {len(expected)} tensors are missing, unknown or "
            f"of another shape or type ({', '.join(misfits[:3])}, ...); name the architecture that these weights belong to"
        )
    for name, value in loaded.items():
        if not value.float().isfinite().all():
            raise BlaError(f"{weights}: {name}: NaN or infinite numbers; name another file, or save this one again")
    network.load_weights(loaded)
    return extractor.eval().requires_grad_(False)


def plain_names(spec: Backbone, loaded: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights without the prefixes that wrappers and trainers put before all names, and their count of averages."""
    others = () if spec.architecture.startswith("own/") else TRAINERS
    loaded = {name: value for name, value in loaded.items() if name != "n_averaged"}
    while prefix := next((p for p in (*WRAPPERS, *others) if loaded and all(n.startswith(p) for n in loaded)), ""):
        loaded = {name.removeprefix(prefix): value for name, value in loaded.items()}
    return loaded


def _classes(spec: Backbone, loaded: dict[str, Tensor], image_size: int | tuple[int, int]) -> int:
    """The number of classes of the tail whose weights were loaded; BlaError if its last layer is missing."""
    name = last_layer(build_network(spec.architecture, height_and_width(image_size), DEFAULT_CLASSES))
    if name not in loaded or loaded[name].ndim == 0:
        raise BlaError(
            f"tail: the weights of the network's own layers after the map are needed, but the file has no {name}; "
            "name a file with them, or set tail to pooled and classifier to trained_here"
        )
    return len(loaded[name])


def extract(
    extractor: Extractor,
    images: NDArray[np.uint8],
    device: torch.device,
    draws: Sequence[int] = (),
    start: int = 0,
    batch_size: int | None = None,
) -> Iterator[NDArray[np.float16]]:
    """Half-precision features of uint8 images `[N, H, W, 3]`, in batches `[B, n, C]`, from row `start` on.

    Without `draws` there are N rows of clean features; with D seeds there are D * N rows, draw by draw (see
    `Extractor.drop_factors`). The forward pass is in single precision on a CPU and in half precision (autocast) on a
    GPU, which computes one batch while the next is read. Raises BlaError if a feature is not a finite half-precision
    number.
    """
    extractor, count = extractor.to(device), len(images)
    size = batch_size or batch_size_for(device, images.shape[1:3])
    pending: tuple[int, Tensor] | None = None
    for draw in range(start // count, max(1, len(draws))):
        factors = extractor.drop_factors(count, draws[draw]).to(device) if draws else None
        for first in range(start % count if draw == start // count else 0, count, size):
            rows = slice(first, first + size)
            batch = torch.from_numpy(np.array(images[rows]))  # `images` may be a memory map
            batch = batch.pin_memory() if device.type == "cuda" else batch
            with torch.inference_mode(), torch.autocast(device.type, torch.float16, enabled=device.type == "cuda"):
                images_of_batch = batch.to(device, non_blocking=True)
                if factors is None:
                    features = in_parts(extractor, images_of_batch)
                else:  # the factors are set in the network, which all threads share
                    features = extractor(images_of_batch, factors[rows])
            if pending:  # meanwhile a GPU computes the next batch
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
