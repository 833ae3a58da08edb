"""MNIST: 70,000 handwritten digits of 28x28 grey pixels, 60,000 of them for training.

LeCun, Cortes and Burges 1998, http://yann.lecun.com/exdb/mnist. CC BY-SA 3.0.

    {train,t10k}-images-idx3-ubyte.gz, {train,t10k}-labels-idx1-ubyte.gz

An idx file is two zero bytes, the type (8: unsigned bytes), the number of axes, their sizes as big-endian 32-bit
numbers, and the values. Copies are compressed differently, so the hash of the content counts: an existing file with the
official name is accepted however it was compressed.
"""

import gzip
import hashlib
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from bla.base.download import Source, fetch
from bla.base.errors import BlaError
from bla.base.specs import Mnist
from bla.datasets import Split, SplitName, drawn
from bla.datasets.image_files import resize_image

_MIRRORS = "https://ossci-datasets.s3.amazonaws.com/mnist", "https://storage.googleapis.com/cvdf-datasets/mnist"


def _source(name: str, size: int, sha256: str) -> Source:
    return Source(name, tuple(f"{mirror}/{name}" for mirror in _MIRRORS), size, f"sha256:{sha256}")


SOURCES = (
    _source(
        "train-images-idx3-ubyte.gz", 9_912_422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
    ),
    _source("train-labels-idx1-ubyte.gz", 28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
    _source("t10k-images-idx3-ubyte.gz", 1_648_877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
    _source("t10k-labels-idx1-ubyte.gz", 4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
)
CONTENTS = {
    "train-images-idx3-ubyte.gz": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte.gz": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte.gz": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte.gz": "27ae3e4e09519cfbb04c329615203637",
}
"""MD5 of each file's decompressed content."""


def load(spec: Mnist, folder: Path, split: SplitName) -> Split:
    """The digits of `spec.classes` in the official order, grey repeated to RGB and resized; downloaded if not in `folder`.

    Labels are positions in `spec.classes`, sources are image numbers in the official file. With `validation_images` the
    last training images stand for the test images. Raises BlaError, naming the file, if the content is not the official
    digits.
    """
    prefix = "t10k" if split == "test" and spec.validation_images is None else "train"
    images, digits = (_read(source, folder) for source in SOURCES if source.name.startswith(prefix))
    chosen = np.flatnonzero(np.isin(digits, spec.classes))
    if (count := spec.validation_images) is not None:
        if count >= len(chosen):
            raise BlaError(f"validation_images: {count:,} of {len(chosen):,} training images leave none to train on")
        chosen = chosen[:-count] if split == "train" else chosen[-count:]
    labels = np.array([spec.classes.index(digit) for digit in digits[chosen]], np.int64)
    rgb = np.empty((len(chosen), spec.image_size, spec.image_size, 3), np.uint8)
    for start in tqdm(range(0, len(chosen), 256), f"resize {split} images", disable=None):
        # As channels of one image, which are resized independently: one call per digit takes many times as long.
        grey = images[chosen[start : start + 256]].transpose(1, 2, 0)
        resized = resize_image(grey, spec.image_size, spec.resize).transpose(2, 0, 1)
        rgb[start : start + 256] = resized[..., None]
    return drawn(rgb, labels, None, [str(number) for number in chosen])


def _read(source: Source, folder: Path) -> NDArray[np.uint8]:
    path = folder / source.name
    if not path.is_file():  # `fetch` would refuse the official digits if compressed differently
        fetch(source, folder)
    try:
        data = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise BlaError(f"{path}: not a complete gzip file ({error}); delete it and run again") from error
    digest, right = hashlib.md5(data, usedforsecurity=False).hexdigest(), CONTENTS[source.name]
    if digest != right:
        raise BlaError(f"{path}: its content has the MD5 {digest}, MNIST's is {right}; delete it and run again")
    if data[:3] != b"\0\0\x08":
        raise BlaError(f"{path}: not an idx file of unsigned bytes")
    start = 4 + 4 * data[3]
    shape = struct.unpack(f">{data[3]}I", data[4:start])
    if len(data) - start != math.prod(shape):
        raise BlaError(f"{path}: {len(data) - start:,} values, but its header says {shape}")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
