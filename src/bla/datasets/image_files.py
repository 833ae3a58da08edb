"""Reading of image files, here alone: decode, orient, convert to RGB, resize, in parallel.

    pixels = load_image(Path("cat.jpg"), size=224, resize="bilinear")  # uint8 [224, 224, 3]

| an image that is | becomes |
|---|---|
| grey, black-and-white, or of a palette | RGB of the same colours |
| transparent | its colours without the alpha channel (as TensorFlow decodes it) |
| CMYK | RGB by Pillow's plain conversion |
| 16-bit | its upper eight bits |
| rotated by its EXIF tag | upright in your own folders; as stored in the official datasets, whose boxes, masks and published results ignore EXIF; a damaged EXIF is ignored |
| a GIF or BMP with another file ending | its first frame (Oxford-IIIT Pet and ImageNet have such files) |
| truncated, empty, of another format, of more than 89 million pixels | an error that names the file |

The conversion of an image is its `treatment` in the manifest.
"""

import hashlib
import io
import math
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import islice
from multiprocessing import resource_tracker
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch.nn.functional import interpolate

from bla.base.errors import BlaError
from bla.base.files import refuse_pipe
from bla.base.specs import MaskFormat, Resize, height_and_width
from bla.datasets import ImageFile, Listing, Split, SplitName, label_array

FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}
"""File endings of images, and their formats."""

READABLE = ("JPEG", "PNG", "GIF", "BMP")
"""The formats that Pillow may try."""

TREATMENTS = {"1": "black and white", "L": "grey", "LA": "grey, transparent", "P": "palette", "RGBA": "transparent"} | {
    "CMYK": "CMYK",
    "I;16": "16-bit",
}
"""The `treatment` of each Pillow mode that is converted to RGB."""

FEW = 32
"""Colours of a mask, at most, that are taken for classes; more are shades of its edges."""

FEW_GREYS = 8
"""Grey levels of a mask, at most, of which a dark one may be an object; more are shades of its edges."""

NEARLY_BLACK = 1 / 16
"""Share of the range of grey levels that noise, such as JPEG's, may be lighter than the background."""

AGREES = 0.8
"""Intersection over union of what is white and what is opaque, at least, in a mask with transparent pixels; edges may differ."""

CHUNK = 64
"""Images that a process reads at a time."""


def load_image(path: Path, size: int | tuple[int, int], resize: Resize) -> NDArray[np.uint8]:
    """Read an image file as uint8 `[H, W, 3]` of this size, turned as its EXIF says and resized, not cropped.

    Raises BlaError, naming the file, if it cannot be read (see the table above).
    """
    return resize_image(read_image(path), size, resize)


def read_image(path: Path) -> NDArray[np.uint8]:
    """The RGB pixels `[H, W, 3]` of an image file in its own size, turned as its EXIF says; errors as `load_image`."""
    return _decode(path, True)[0]


def _decode(path: Path, turn: bool) -> tuple[NDArray[np.uint8], str, str]:
    """The RGB pixels `[H, W, 3]` of a file, the SHA-256 of its bytes, and its treatment."""
    treatment = []
    try:
        refuse_pipe(path)
        data = path.read_bytes()
        if not data:
            raise ValueError("an empty file")
        with Image.open(io.BytesIO(data), formats=READABLE) as image:
            if image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf):  # for which Pillow only warns
                raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
            if image.format not in FORMATS.values():
                treatment.append(f"{image.format} inside")
            if image.mode != "RGB":
                treatment.append(TREATMENTS.get(image.mode, image.mode))
            image.load()
            upright: Image.Image = image
            try:
                if image.getexif().get(0x0112) in range(2, 9):  # other values mean no rotation
                    upright = ImageOps.exif_transpose(image) if turn else image
                    treatment.append("turned" if turn else "EXIF turn left out")
            except Exception:  # Pillow may raise anything for a damaged EXIF; the pixels are fine
                treatment.append("damaged EXIF")
            if upright.mode.startswith("I"):
                upright = _upper_bits(upright)
            return np.array(upright.convert("RGB")), hashlib.sha256(data).hexdigest(), ", ".join(treatment)
    except FileNotFoundError as error:
        raise BlaError(f"{path}: no such image") from error
    except Exception as error:  # struct.error and TypeError included
        # Pillow names the address of the bytes in memory.
        reason = f"no {', '.join(READABLE)}" if isinstance(error, UnidentifiedImageError) else error
        raise BlaError(f"{path}: not a readable image ({reason}); replace or remove the file") from error


def _upper_bits(image: Image.Image) -> Image.Image:
    """The upper eight bits of 16-bit grey, which `convert` would clip at 255."""
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))


def resize_image(rgb: NDArray[np.uint8], size: int | tuple[int, int], resize: Resize) -> NDArray[np.uint8]:
    """Resize uint8 `[H, W, C]` to this size (a side, or height and width), computed in float and rounded to the nearest integer.

    `bilinear` samples without antialiasing, as the `tf.image.resize` of the authors' code does;
    `bilinear_antialias` averages over the source pixels, as Pillow and torchvision do by default.
    """
    pixels = torch.from_numpy(rgb).permute(2, 0, 1)[None].float()
    resized = interpolate(
        pixels, height_and_width(size), mode="bilinear", align_corners=False, antialias=resize == "bilinear_antialias"
    )
    result: NDArray[np.uint8] = resized[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).numpy()
    return result


def load_mask(path: Path, size: int | tuple[int, int], masks: MaskFormat, of: tuple[int, int]) -> NDArray[np.bool_]:
    """Read a mask file as bool `[H, W]`, true on the object, resized by nearest neighbour.

    `of` is the height and width of the image. Raises BlaError, naming the file, if it has another size, cannot be read,
    or marks no object.
    """
    try:
        refuse_pipe(path)
        with Image.open(path, formats=["PNG"]) as image:
            whole = _marked(image, masks)
    except BlaError as error:
        raise BlaError(f"{path}: {error}") from error
    except FileNotFoundError as error:
        raise BlaError(f"{path}: no such mask") from error
    except Exception as error:
        raise BlaError(f"{path}: not a readable PNG mask ({error})") from error
    if whole.shape != of:
        raise BlaError(
            f"{path}: a mask of {whole.shape} pixels for an image of {of} (height, width, as its EXIF turns it); save it "
            "in the size and position in which the image is shown"
        )
    if not whole.any():
        raise BlaError(f"{path}: the mask marks no object; is it one of the kind {masks}?")
    pixels = torch.from_numpy(whole)[None, None].float()
    nearest: NDArray[np.bool_] = interpolate(pixels, height_and_width(size), mode="nearest-exact")[0, 0].bool().numpy()
    return nearest


def _marked(image: Image.Image, masks: MaskFormat) -> NDArray[np.bool_]:
    """The pixels `[H, W]` of a mask that are the object; BlaError if the file cannot be a mask of this kind."""
    if masks == "alpha":
        if "A" not in image.getbands() and "transparency" not in image.info:
            raise BlaError("has no transparency, which masks of the kind alpha need")
        hidden = image.info.get("transparency")
        if image.mode.startswith("I"):  # `convert` would clip the values at 255
            return np.asarray(np.asarray(image) != hidden)
        if isinstance(hidden, tuple) and max(hidden) > 255:
            raise BlaError("has a transparent colour of 16 bits; save it with an alpha channel")
        alpha: NDArray[np.bool_] = np.array(image.convert("RGBA").getchannel("A")) >= 128
        return alpha
    if masks == "voc":
        if image.mode != "P":
            raise BlaError(f"is of mode {image.mode}; masks of the kind voc have a palette")
        entries = np.array(image)
        return (entries > 0) & (entries < 255)
    if masks == "trimap":
        ones: NDArray[np.bool_] = np.array(image if image.mode in ("P", "L", "1") else image.convert("L")) == 1
        return ones
    deep = image.mode.startswith("I")
    # A palette's colours decide, not their numbers; `convert` would clip 16-bit values at 255.
    values = np.asarray(image) if deep else np.array(image.convert("RGB").convert("L"))
    levels, counts = np.unique(values, return_counts=True)
    if 2 < len(levels) <= FEW and counts[1:].max() > counts[-1]:  # the white border of VOC's objects, for example
        raise BlaError(
            f"has {len(levels)} colours, and most of what is not background is not the lightest one; masks of the kind "
            "binary are black and white (other kinds: trimap, voc, alpha)"
        )
    half = 32768 if levels[-1] > 255 else 128  # 16-bit files may hold 8-bit values
    lightest = levels[-1] == 1 or (len(levels) == 2 and (deep or (image.mode == "P" and levels[-1] < 128)))
    white: NDArray[np.bool_] = values >= (levels[-1] if lightest else half)
    opaque = np.array(image.convert("RGBA").getchannel("A")) >= 128 if "A" in image.getbands() else np.ones_like(white)
    lowest, reach = int(levels[0]), NEARLY_BLACK * (int(levels[-1]) - int(levels[0]))
    dark = [int(level) for level in levels if lowest + reach < level < half] if 2 < len(levels) <= FEW_GREYS else []
    if filling := [level for level in dark if _fills_an_area((values == level) & opaque)]:
        raise BlaError(
            f"has the grey levels {', '.join(map(str, levels))}, of which {filling[0]} fills an area, but would count as "
            "background; make what is object white and the rest black"
        )
    if not opaque.all() and (white & opaque).sum() < AGREES * (white | opaque).sum():
        raise BlaError(
            "has transparent pixels, and what is opaque is not what is white; set masks to alpha, or save it without "
            "an alpha channel"
        )
    return white


def _fills_an_area(pixels: NDArray[np.bool_]) -> bool:
    """Whether 3 x 3 neighbouring pixels `[H, W]` are all true; a soft edge is thinner."""
    rows = pixels[:-2] & pixels[1:-1] & pixels[2:]
    return bool((rows[:, :-2] & rows[:, 1:-1] & rows[:, 2:]).any())


def read_images(
    listing: Listing,
    split: SplitName,
    size: int | tuple[int, int],
    resize: Resize,
    start: int = 0,
    processes: int | None = None,
) -> Iterator[Split]:
    """Read the images of a split in order, starting at number `start`, in chunks that fit in memory.

    Many images are read in parallel processes (default: one per core); the result does not depend on their number.
    Unusable images are zero and have no hash in their chunk; a BlaError that names them all is raised at the end.
    """
    files = listing.splits[split][start:]
    chunks = [files[i : i + CHUNK] for i in range(0, len(files), CHUNK)]
    how = (
        replace(listing, splits={}),
        height_and_width(size),
        resize,
    )  # so that a process does not receive the list of all files
    processes = min(
        processes or os.cpu_count() or 1, len(chunks) // 4
    )  # for a few chunks, starting processes takes longer
    problems: list[str] = []
    if processes < 2:
        results: Iterator[tuple[Split, list[str]]] = (_read_chunk(chunk, *how) for chunk in chunks)
    else:
        results = _in_processes(chunks, how, processes)
    for part, wrong in results:
        problems += wrong
        yield part
    if problems:
        count = len(listing.splits[split])
        raise BlaError(f"{len(problems)} of {count} {split} images cannot be used:\n" + "\n".join(problems))


def _in_processes(
    chunks: list[list[ImageFile]], how: tuple[Listing, tuple[int, int], Resize], processes: int
) -> Iterator[tuple[Split, list[str]]]:
    context = multiprocessing.get_context("forkserver")  # `fork` would inherit torch's threads
    context.set_forkserver_preload(["torch", "PIL.Image"])  # the server cannot import `bla`: it does not get sys.path
    with ExitStack() as stack:
        with _deaf_to_interrupts():
            pool = stack.enter_context(ProcessPoolExecutor(processes, context, _begin))
            rest = iter(chunks)
            waiting = deque(pool.submit(_read_chunk, chunk, *how) for chunk in islice(rest, 4 * processes))
            wait(list(waiting)[:processes])
        try:
            while waiting:  # limits how many are in flight, so that memory stays bounded
                yield waiting.popleft().result()
                waiting.extend(pool.submit(_read_chunk, chunk, *how) for chunk in islice(rest, 1))
        finally:
            pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """Compute with one thread, and end when the process that reads the images ends, even killed; so does the server."""
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_reader, daemon=True).start()


def _end_with_reader() -> None:
    if reader := multiprocessing.parent_process():  # not the server, which is the parent for the system
        reader.join()
        os._exit(1)


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Delay Ctrl-C to the end of the block; processes started within it ignore Ctrl-C."""
    resource_tracker.ensure_running()  # now, because it unblocks signals
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited by the processes
    heard: list[int] = []
    alone = (
        threading.current_thread() is not threading.main_thread()
    )  # no handler can be set in other threads, and none is called there
    before = None if alone else signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    try:
        yield
    finally:
        if not alone:
            signal.signal(signal.SIGINT, before)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if heard:
        raise KeyboardInterrupt


def _read_chunk(
    files: Sequence[ImageFile], listing: Listing, size: tuple[int, int], resize: Resize
) -> tuple[Split, list[str]]:
    """Read some images in order; unusable ones get zeros for pixels and no hash."""
    folder, masks, names = listing.folder, listing.masks, listing.mask_names
    images = np.zeros((len(files), *size, 3), np.uint8)
    marked = np.zeros((len(files), len(names), *size), np.bool_) if masks else None
    shapes = np.zeros((len(files), 2), np.int32)
    hashes, treatments, problems = [""] * len(files), [""] * len(files), []
    for i, file in enumerate(files):
        try:
            pixels, sha256, treatment = _decode(folder / file.name, listing.turned)
            height, width = pixels.shape[:2]
            for place, mask in enumerate(file.masks):
                if marked is not None and masks and mask:
                    marked[i, place] = load_mask(folder / mask, size, masks, (height, width))
            images[i] = resize_image(pixels, size, resize)
            shapes[i], hashes[i], treatments[i] = (height, width), sha256, treatment
        except BlaError as error:
            problems.append(str(error))
    labels, sources = label_array([file.label for file in files], len(listing.classes)), [file.name for file in files]
    return Split(images, labels, marked, shapes, sources, hashes, treatments, names), problems
