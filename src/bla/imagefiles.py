"""The one place that opens image files: decode, orient, convert to RGB, resize.

    pixels = load_image(Path("cat.jpg"), size=224, resize="bilinear")  # uint8 [224, 224, 3]

Grey, palette, transparent, CMYK and 16-bit images become RGB; what cannot be read is an error that names the file.
"""

import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch.nn.functional import interpolate

from bla.errors import BlaError
from bla.specs import Resize

FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}
"""File endings that count as images, and the only formats that Pillow may try."""


def load_image(path: Path, size: int, resize: Resize) -> NDArray[np.uint8]:
    """Read an image file as uint8 `[size, size, 3]`, turned as its EXIF says and squashed to a square, not cropped.

    Raises BlaError, naming the file, if it is empty, truncated, not a JPEG or PNG, or suspiciously large.
    """
    try:
        with Image.open(path, formats=sorted(set(FORMATS.values()))) as image:
            if image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf):  # at which Pillow only warns
                raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I"):  # 16-bit grey, which `convert` would clip at 255
                upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
            rgb = np.array(upright.convert("RGB"))
    except FileNotFoundError as error:
        raise BlaError(f"{path}: no such image") from error
    except Exception as error:  # damaged bytes make Pillow raise anything, struct.error and TypeError included
        raise BlaError(f"{path}: not a readable image ({error}); replace or remove the file") from error
    return resize_image(rgb, size, resize)


def resize_image(rgb: NDArray[np.uint8], size: int, resize: Resize) -> NDArray[np.uint8]:
    """Resize uint8 `[H, W, 3]` to `[size, size, 3]`, computed in float and rounded to the nearest integer.

    `bilinear` samples without antialiasing, as the `tf.image.resize` of the authors' code does;
    `bilinear_antialias` averages over the source pixels, as Pillow and torchvision do by default.
    """
    pixels = torch.from_numpy(rgb).permute(2, 0, 1)[None].float()
    resized = interpolate(
        pixels, (size, size), mode="bilinear", align_corners=False, antialias=resize == "bilinear_antialias"
    )
    result: NDArray[np.uint8] = resized[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).numpy()
    return result
