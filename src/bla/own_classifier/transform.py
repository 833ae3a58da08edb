"""The transform of a trained classifier, in two parts: pixels that a person can look at, and a normalisation.

    transform = Transform(size=224, resize=256)              # or torchvision's or timm's, or any function of one's own
    preparation = prepare(transform)
    pixels = preparation.pixels(image)                       # PIL image -> [H, W, 3] in [0, 255]
    preparation.normalised(pixels)                           # equals transform(image)

Explanation methods hide parts of pixels, so they need the first part. A black, a grey and a white image tell mean and
divisor of each channel; the rest of the transform (resize, crop, padding) is called as it is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional  # type: ignore[import-untyped]

from bla.base.errors import BlaError

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
WHOLE = 1e-3
"""How far pixels may be from integers to be taken as integers."""
TOLERANCE = 1e-4
CALLS = 20
"""How often a transform must give the same tensor: a random flip does so twice in every other case."""


@dataclass(frozen=True, kw_only=True)
class Transform:
    """Resize, crop the centre, normalise; a PIL image becomes a tensor `[3, H, W]`, as with torchvision's presets.

    `size` is the input of the classifier, a side or height and width. `resize` is the shorter side before the crop, or
    height and width; None squashes the image to `size`. `mean` and `std` are for pixels in [0, 1].
    """

    size: int | tuple[int, int]
    resize: int | tuple[int, int] | None = None
    mean: tuple[float, ...] = IMAGENET[0]
    std: tuple[float, ...] = IMAGENET[1]

    def __call__(self, image: Image.Image) -> Tensor:
        """The normalised tensor `[3, H, W]`."""
        size = [self.size, self.size] if isinstance(self.size, int) else list(self.size)
        resize = size if self.resize is None else self.resize
        resized = functional.resize(image, resize if isinstance(resize, int) else list(resize))
        pixels = functional.pil_to_tensor(functional.center_crop(resized, size))
        result: Tensor = functional.normalize(pixels.float() / 255, self.mean, self.std)
        return result


@dataclass(frozen=True)
class Preparation:
    """A transform as pixels and a normalisation: transform(image) = (pixels / 255 - mean) / std, for inputs of this size."""

    transform: Callable[[Any], Any]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int]

    def pixels(self, image: Image.Image) -> Tensor:
        """The input `[H, W, 3]` in [0, 255]: uint8, or float where the transform resizes in float; BlaError for another size."""
        tensor = _called(self.transform, image)
        if tuple(tensor.shape[1:]) != self.size:
            raise BlaError(
                f"resize: the transform gives {_shown(tensor.shape[1:])} pixels for an image of {image.height} x "
                f"{image.width}, but {_shown(self.size)} for another one; end it with a crop or resize to a fixed size"
            )
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        values = ((tensor.float() * std + mean) * 255).permute(1, 2, 0)
        if not (values.isfinite().all() and values.min() >= -1 and values.max() <= 256):
            raise BlaError(
                f"normalise: pixels of {_number(values.min())} to {_number(values.max())} instead of 0 to 255: the transform does "
                "not only subtract a mean and divide by a number; bla needs one that treats all images alike"
            )
        whole = values.round()
        if (values - whole).abs().max() <= WHOLE:
            return whole.to(torch.uint8).contiguous()
        return values.clamp(0, 255).contiguous()

    def normalised(self, pixels: Tensor) -> Tensor:
        """What the network sees, `[B, 3, H, W]`, of pixels `[B, H, W, 3]`."""
        mean, std = (torch.tensor(values, device=pixels.device).view(3, 1, 1) for values in (self.mean, self.std))
        return (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std

    def unnormalised(self, inputs: Tensor) -> Tensor:
        """The nearest uint8 pixels `[B, H, W, 3]` of inputs `[B, 3, H, W]`."""
        mean, std = (torch.tensor(values, device=inputs.device).view(3, 1, 1) for values in (self.mean, self.std))
        return ((inputs * std + mean) * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def prepare(transform: Callable[[Any], Any]) -> Preparation:
    """Split a transform; BlaError, naming the step, if it is random, or not pixels followed by a normalisation."""
    black, grey, white = (_colour(transform, (level,) * 3) for level in (0, 128, 255))
    if not (white > black).all():
        raise BlaError(f"normalise: the transform gives {black.tolist()} for black and {white.tolist()} for white")
    if not torch.allclose(black + (white - black) * 128 / 255, grey, atol=1e-2, rtol=1e-3):
        raise BlaError(
            "normalise: the transform of grey is not between those of black and white; bla needs a linear one"
        )
    red = (_colour(transform, (255, 0, 0)) - black) / (white - black)
    if red[2] > 0.9 and red[0] < 0.1:
        raise BlaError("colours: the transform makes BGR of RGB; let the model's first layer do that instead")
    std = 1 / (white - black)
    photo = check_images()[0]
    first, *others = (_called(transform, photo) for _ in range(CALLS))
    if not all(first.shape == other.shape and torch.equal(first, other) for other in others):
        raise BlaError(
            "transform: two calls on one image differ; use the transform of evaluation, without random steps"
        )
    height, width = first.shape[1:]
    return Preparation(transform, tuple((-black * std).tolist()), tuple(std.tolist()), (height, width))


def check_images() -> list[Image.Image]:
    """Four smooth coloured images: wide, high, square, and smaller than most inputs; the same in every call."""
    rng = np.random.default_rng(0)
    images = []
    for height, width in ((375, 500), (500, 333), (256, 256), (90, 120)):
        coarse = Image.fromarray(rng.integers(0, 256, (7, 7, 3), dtype=np.uint8))
        images.append(coarse.resize((width, height), Image.Resampling.BICUBIC))
    return images


def _colour(transform: Callable[[Any], Any], rgb: tuple[int, ...]) -> Tensor:
    """The three values at the centre of an image of one colour: there is no padding."""
    result = _called(transform, Image.new("RGB", (320, 256), rgb))
    return result[:, result.shape[1] // 2, result.shape[2] // 2].double()


def _called(transform: Callable[[Any], Any], image: Image.Image) -> Tensor:
    try:
        result = transform(image)
    except BlaError:
        raise
    except Exception as error:  # the user's function may raise anything
        raise BlaError(f"transform: it fails on a PIL image ({type(error).__name__}: {error})") from error
    if not isinstance(result, Tensor) or result.ndim != 3 or result.shape[0] != 3:
        shape = list(result.shape) if hasattr(result, "shape") else type(result).__name__
        raise BlaError(f"transform: it must return a tensor [3, height, width] for a PIL image, not {shape}")
    return result


def _shown(size: Any) -> str:
    return " x ".join(str(side) for side in size)


def _number(value: Tensor) -> str:
    return f"{float(value):.4g}"
