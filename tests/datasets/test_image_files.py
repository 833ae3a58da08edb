"""Reading of images: resizing by formula, colour modes, EXIF, masks, and refused files."""

import contextlib
import hashlib
import io
import re
import struct
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bla.base.errors import BlaError
from bla.datasets import ImageFile, Listing, Split, scale_boxes
from bla.datasets import image_files as imagefiles
from bla.datasets.image_files import load_image, load_mask, read_images, resize_image

RNG = np.random.default_rng(0)


def half_pixel_bilinear(rgb, size):
    """Sample at the centres of the new pixels, without antialiasing, as TensorFlow 2's tf.image.resize does."""
    height, width, _ = rgb.shape
    out = np.zeros((size, size, 3))
    for y in range(size):
        for x in range(size):
            v = min(max((y + 0.5) * height / size - 0.5, 0), height - 1)
            h = min(max((x + 0.5) * width / size - 0.5, 0), width - 1)
            top, left = int(v), int(h)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            upper = rgb[top, left] * (1 - (h - left)) + rgb[top, right] * (h - left)
            lower = rgb[bottom, left] * (1 - (h - left)) + rgb[bottom, right] * (h - left)
            out[y, x] = upper * (1 - (v - top)) + lower * (v - top)
    return out


@pytest.mark.parametrize("shape", [(5, 7), (40, 23), (9, 9), (1, 30)])
def test_bilinear_is_the_half_pixel_formula(shape):
    rgb = RNG.integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert np.abs(resize_image(rgb, 9, "bilinear") - half_pixel_bilinear(rgb, 9)).max() <= 0.5 + 1e-4


def test_the_two_filters_differ_if_an_image_shrinks():
    rgb = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    plain, smooth = (resize_image(rgb, 8, resize).astype(int) for resize in ("bilinear", "bilinear_antialias"))
    assert np.abs(plain - smooth).max() > 20


@pytest.mark.parametrize("resize", ["bilinear", "bilinear_antialias"])
def test_an_image_of_the_right_size_is_unchanged(resize):
    rgb = RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(resize_image(rgb, 8, resize), rgb)


def test_images_are_squashed_not_cropped(tmp_path):
    Image.fromarray(np.repeat([[[255, 0, 0]], [[0, 0, 255]]], 30, axis=1).astype(np.uint8)).save(tmp_path / "a.png")
    pixels = load_image(tmp_path / "a.png", 2, "bilinear")
    assert pixels.tolist() == [[[255, 0, 0]] * 2, [[0, 0, 255]] * 2]


RED = Image.new("RGB", (8, 8), (200, 30, 40))
GREY = Image.new("L", (8, 8), 77)
MODES = {  # saved pixel -> colour that is read
    "grey.png": (GREY, (77, 77, 77)),
    "grey.jpg": (GREY, (77, 77, 77)),
    "grey_alpha.png": (GREY.convert("LA"), (77, 77, 77)),
    "black_and_white.png": (Image.new("1", (8, 8), 1), (255, 255, 255)),
    "palette.png": (RED.convert("P", palette=Image.Palette.ADAPTIVE), (200, 30, 40)),
    "alpha.png": (RED.convert("RGBA"), (200, 30, 40)),
    "cmyk.jpg": (RED.convert("CMYK"), (200, 30, 40)),
    "16_bit.png": (Image.fromarray(np.full((8, 8), 77 * 256 + 9, np.uint16)), (77, 77, 77)),
    "16_bit_white.png": (Image.fromarray(np.full((8, 8), 65535, np.uint16)), (255, 255, 255)),
}


@pytest.mark.parametrize("name", MODES)
def test_every_colour_mode_becomes_rgb(name, tmp_path):
    image, colour = MODES[name]
    image.save(tmp_path / name)
    pixels = load_image(tmp_path / name, 8, "bilinear")
    assert (pixels.shape, pixels.dtype) == ((8, 8, 3), np.uint8)
    assert np.abs(pixels.astype(int) - colour).max() <= 3


STORED = {  # EXIF orientation -> how the camera stored the upright image
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("orientation", STORED)
def test_images_are_rotated_by_their_exif_orientation(orientation, suffix, tmp_path):
    upright = Image.fromarray(np.kron([[0, 90], [160, 250]], np.ones((8, 8))).astype(np.uint8)).convert("RGB")
    turn = STORED[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    (upright if turn is None else upright.transpose(turn)).save(tmp_path / f"a{suffix}", exif=exif)
    difference = load_image(tmp_path / f"a{suffix}", 16, "bilinear").astype(int) - np.asarray(upright)
    assert np.abs(difference).max() <= 5


def test_a_16_bit_image_is_rotated_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(np.array([[0, 65535], [0, 65535]], np.uint16)).save(tmp_path / "a.png", exif=exif)
    assert load_image(tmp_path / "a.png", 2, "bilinear")[..., 0].tolist() == [[255, 0], [255, 0]]


def jpeg_with_damaged_exif():
    """A JPEG with an EXIF orientation and a width of type text: Pillow raises struct.error."""
    stored = io.BytesIO()
    RED.save(stored, "JPEG")
    tags = [(0x0112, 3, 1, struct.pack("<HH", 6, 0)), (0x0100, 2, 4, b"abc\0")]
    ifd = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHI", *tag[:3]) + tag[3] for tag in sorted(tags))
    body = b"Exif\0\0II*\0\x08\0\0\0" + ifd + b"\0\0\0\0"
    return stored.getvalue()[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + stored.getvalue()[2:]


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def oriented(image, kind, orientation):
    """The image with this EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image, kind, exif=exif)


NOISE = Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8))
BAD = {
    "tiff.jpg": encoded(RED, "TIFF"),
    "webp.jpg": encoded(RED, "WEBP"),
    "truncated_gif.jpg": encoded(NOISE, "GIF")[:2000],
    "empty.jpg": b"",
    "text.jpg": b"not an image\n" * 100,
    "truncated.jpg": encoded(NOISE, "JPEG")[:2000],
    "truncated.png": encoded(NOISE, "PNG")[:2000],
    "header_alone.png": encoded(NOISE, "PNG")[:8],
    "bomb.png": encoded(Image.new("1", (9500, 9500)), "PNG"),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_not_a_complete_image_is_named(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(BAD[name])
    with pytest.raises(BlaError) as error:
        load_image(path, 8, "bilinear")
    assert str(error.value).startswith(f"{path}: not a readable image")
    assert "replace or remove" in str(error.value)


@pytest.mark.slow
def test_damaged_bytes_raise_no_other_error(tmp_path):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x011A] = 6, "a camera", 72.0
    file = io.BytesIO()
    NOISE.resize((16, 16)).save(file, "JPEG", exif=exif)
    for _ in range(2000):
        damaged = bytearray(file.getvalue())
        for position in RNG.integers(0, 120, 3):
            damaged[position] = RNG.integers(0, 256)
        (tmp_path / "a.jpg").write_bytes(damaged)
        with contextlib.suppress(BlaError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            load_image(tmp_path / "a.jpg", 8, "bilinear")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BlaError, match=r"a\.jpg: no such image"):
        load_image(tmp_path / "a.jpg", 8, "bilinear")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("limit", "refused"), [(64, False), (63, True), (31, True), (None, False)])
def test_a_decompression_bomb_is_refused(limit, refused, tmp_path, monkeypatch):
    RED.save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(BlaError, match=r"a\.png: ") if refused else contextlib.nullcontext():
        load_image(tmp_path / "a.png", 8, "bilinear")


def test_the_first_frame_of_an_animated_gif_is_read(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encoded(RED, "GIF", save_all=True, append_images=[GREY.convert("RGB")]))
    assert np.unique(load_image(tmp_path / "a.jpg", 8, "bilinear").reshape(-1, 3), axis=0).tolist() == [[200, 30, 40]]


def test_an_image_with_damaged_exif_is_not_rotated(tmp_path):
    (tmp_path / "odd.jpg").write_bytes(jpeg_with_damaged_exif())
    (tmp_path / "plain.jpg").write_bytes(encoded(RED, "JPEG"))
    odd, plain = (load_image(tmp_path / name, 8, "bilinear") for name in ("odd.jpg", "plain.jpg"))
    np.testing.assert_array_equal(odd, plain)


def listing(folder, files, masks=None):
    """A listing of training images; `files` maps names to bytes, or to None for a missing file."""
    for name, content in files.items():
        if content is not None:
            (folder / name).write_bytes(content)
    named = [ImageFile(name, i % 3, (f"{Path(name).stem}.mask",) if masks else ()) for i, name in enumerate(files)]
    return Listing(folder, ["a", "b", "c"], {"train": named}, masks, turned=True)


def joined(parts):
    """The chunks of one split, concatenated."""
    parts = list(parts)
    arrays = [np.concatenate([getattr(part, name) for part in parts]) for name in ("images", "labels", "shapes")]
    lists = [[row for part in parts for row in getattr(part, name)] for name in ("sources", "sha256", "treatment")]
    masks = None if parts[0].masks is None else np.concatenate([part.masks for part in parts])
    return Split(*arrays[:2], masks, arrays[2], *lists)


SIXTEEN = MODES["16_bit.png"][0]
TREATED = {  # stored content -> reported problem
    "plain.jpg": (encoded(RED, "JPEG"), ""),
    "plain.png": (encoded(RED, "PNG"), ""),
    "grey.jpg": (encoded(GREY, "JPEG"), "grey"),
    "grey.png": (encoded(GREY, "PNG"), "grey"),
    "black_and_white.png": (encoded(MODES["black_and_white.png"][0], "PNG"), "black and white"),
    "palette.png": (encoded(MODES["palette.png"][0], "PNG"), "palette"),
    "transparent.png": (encoded(RED.convert("RGBA"), "PNG"), "transparent"),
    "grey_transparent.png": (encoded(GREY.convert("LA"), "PNG"), "grey, transparent"),
    "cmyk.jpg": (encoded(RED.convert("CMYK"), "JPEG"), "CMYK"),
    "16_bit.png": (encoded(SIXTEEN, "PNG"), "16-bit"),
    "turned.jpg": (oriented(RED, "JPEG", 6), "turned"),
    "turned.png": (oriented(RED, "PNG", 2), "turned"),
    "upright.jpg": (oriented(RED, "JPEG", 1), ""),
    "orientation_unknown.jpg": (oriented(RED, "JPEG", 0), ""),
    "orientation_9.jpg": (oriented(RED, "JPEG", 9), ""),
    "damaged_exif.jpg": (jpeg_with_damaged_exif(), "damaged EXIF"),
    "gif.jpg": (encoded(RED, "GIF"), "GIF inside, palette"),
    "bmp.png": (encoded(RED, "BMP"), "BMP inside"),
    "grey_turned.jpg": (oriented(GREY, "JPEG", 3), "grey, turned"),
    "16_bit_turned.png": (oriented(SIXTEEN, "PNG", 8), "16-bit, turned"),
    "grey_bmp.jpg": (encoded(GREY, "BMP"), "BMP inside, grey"),
}


@pytest.mark.parametrize("name", TREATED)
def test_conversions_of_an_image_are_recorded(name, tmp_path):
    content, treatment = TREATED[name]
    (part,) = read_images(listing(tmp_path, {name: content}), "train", 8, "bilinear")
    assert (part.sources, part.treatment) == ([name], [treatment])


def test_official_images_are_not_rotated(tmp_path):
    stored = listing(tmp_path, {"a.jpg": oriented(RED.resize((30, 20)), "JPEG", 6)})
    (part,) = read_images(replace(stored, turned=False), "train", 8, "bilinear")
    assert (part.treatment, part.shapes.tolist()) == (["EXIF turn left out"], [[20, 30]])


def test_the_hash_is_of_the_file_and_the_shape_of_the_upright_image(tmp_path):
    images = {"a.png": encoded(RED.resize((30, 20)), "PNG"), "b.jpg": oriented(RED.resize((30, 20)), "JPEG", 6)}
    (part,) = read_images(listing(tmp_path, images), "train", 8, "bilinear")
    assert part.sha256 == [hashlib.sha256(content).hexdigest() for content in images.values()]
    assert (part.shapes.dtype, part.shapes.tolist()) == (np.int32, [[20, 30], [30, 20]])
    assert (part.labels.dtype, part.labels.tolist()) == (np.int64, [0, 1])
    assert part.masks is None


COUNT = 515  # 9 chunks, enough for two processes


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Tiny images with masks, more than 512."""
    folder, masks = tmp_path_factory.mktemp("many"), RNG.integers(0, 2, (COUNT, 4, 4), dtype=np.uint8)
    masks[:, 0, 0] = 1
    for number, mask in enumerate(masks):
        Image.fromarray(mask).save(folder / f"{number}.mask", "PNG")
    pixels = RNG.integers(0, 256, (COUNT, 4, 4, 3), dtype=np.uint8)
    files = {f"{number}.png": encoded(Image.fromarray(image), "PNG") for number, image in enumerate(pixels)}
    return listing(folder, files, "binary"), pixels, masks


@pytest.mark.parametrize(
    ("start", "processes"),
    [(0, 1), (1, 1), (64, 1), (COUNT - 1, 1), (COUNT, 1), (COUNT, None)]
    + [pytest.param(start, 2, marks=pytest.mark.slow) for start in (0, 3)],
)
def test_images_come_in_order_for_any_start_and_number_of_processes(start, processes, many):
    files, pixels, masks = many
    parts = list(read_images(files, "train", 4, "bilinear", start, processes))
    assert [len(part.images) for part in parts] == [min(64, COUNT - i) for i in range(start, COUNT, 64)]
    if parts:
        whole, named = joined(parts), files.splits["train"][start:]
        np.testing.assert_array_equal(whole.images, pixels[start:])
        np.testing.assert_array_equal(whole.masks[:, 0], masks[start:] == 1)
        assert whole.sources == [file.name for file in named]
        assert whole.labels.tolist() == [file.label for file in named]
        assert whole.sha256 == [hashlib.sha256((files.folder / n).read_bytes()).hexdigest() for n in whole.sources]


@pytest.mark.slow
def test_two_processes_name_the_bad_files_in_order(many):
    files = list(many[0].splits["train"])
    bad = [5, 66, 300, 513]
    for number in bad:
        files[number] = ImageFile(f"{number}.jpg", 0)
    with pytest.raises(BlaError) as error:
        list(read_images(Listing(many[0].folder, ["a"], {"train": files}), "train", 4, "bilinear", processes=2))
    first, *lines = str(error.value).splitlines()
    assert first.startswith(f"4 of {COUNT} train images")
    assert [line.partition(": ")[0] for line in lines] == [f"{many[0].folder}/{number}.jpg" for number in bad]


@pytest.mark.slow
def test_processes_end_if_the_reader_stops_early(many):
    parts = read_images(many[0], "train", 4, "bilinear", processes=2)
    np.testing.assert_array_equal(next(parts).images, many[1][:64])
    parts.close()


GOOD = encoded(RED, "PNG")


@pytest.mark.parametrize(("start", "chunks"), [(0, [2, 2, 2, 1]), (1, [2, 2, 2])])
def test_all_files_are_tried_and_every_unreadable_one_is_named(start, chunks, tmp_path, monkeypatch):
    monkeypatch.setattr(imagefiles, "CHUNK", 2)
    files = {"0.png": GOOD, "1.png": b"", "2.png": GOOD, "3.png": GOOD, "4.png": GOOD, "5.png": BAD["text.jpg"]}
    parts, seen = read_images(listing(tmp_path, files | {"6.png": GOOD}), "train", 8, "bilinear", start), []
    with pytest.raises(BlaError) as error:
        seen.extend(len(part.images) for part in parts)
    first, *lines = str(error.value).splitlines()
    assert first.startswith("2 of 7 train images")
    assert [line.partition(": ")[0] for line in lines] == [f"{tmp_path}/1.png", f"{tmp_path}/5.png"]


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_every_kind_of_bad_file_is_in_the_message(tmp_path):
    files = {"good.png": GOOD} | BAD | {"missing.jpg": None}
    with pytest.raises(BlaError) as error:
        list(read_images(listing(tmp_path, files), "train", 8, "bilinear"))
    first, *lines = str(error.value).splitlines()
    assert first.startswith(f"{len(BAD) + 1} of {len(BAD) + 2} train images")
    assert [line.split(":")[0] for line in lines] == [f"{tmp_path}/{name}" for name in files if name != "good.png"]


def test_an_unusable_image_has_no_hash(tmp_path):
    """An unusable image has zero pixels and a zero mask in its chunk."""
    files = {"good.png": GOOD, "empty.png": b"", "maskless.png": GOOD}
    save_mask(tmp_path / "good.mask", np.ones((8, 8)))
    parts = read_images(listing(tmp_path, files, "binary"), "train", 8, "bilinear")
    part = next(parts)
    assert part.sha256 == [hashlib.sha256(GOOD).hexdigest(), "", ""]
    with pytest.raises(BlaError, match=r"^2 of 3 train images.*\n.*/empty\.png: .*\n.*/maskless\.mask: "):
        next(parts)


def save_mask(path, values, mode="L"):
    """A PNG of these pixels; in mode P they are palette indices."""
    image = Image.fromarray(np.asarray(values, np.uint8))
    if mode == "P":
        image.putpalette([0, 0, 0, 128, 0, 0, *[255] * 762])
    (image if mode == "P" else image.convert(mode)).save(path, "PNG")
    return path


@pytest.mark.parametrize(
    ("values", "mode", "masks", "object_at"),
    [
        ([0, 255, 0, 255], "L", "binary", [0, 1, 0, 1]),
        ([0, 255, 0, 255], "1", "binary", [0, 1, 0, 1]),
        ([0, 255, 0, 255], "RGB", "binary", [0, 1, 0, 1]),
        ([0, 51, 102, 153], "L", "binary", [0, 0, 0, 1]),
        ([1, 127, 128, 204], "L", "binary", [0, 0, 1, 1]),
        ([0, 1, 1, 0], "L", "binary", [0, 1, 1, 0]),
        ([0, 1, 1, 0], "P", "binary", [0, 1, 1, 0]),
        ([0, 2, 2, 0], "P", "binary", [0, 1, 1, 0]),
        ([0, 1, 2, 255], "P", "voc", [0, 1, 1, 0]),
        ([1, 2, 3, 1], "L", "trimap", [1, 0, 0, 1]),
        ([0, 1, 2, 255], "L", "trimap", [0, 1, 0, 0]),
        ([0, 1, 2, 2], "P", "trimap", [0, 1, 0, 0]),
    ],
)
def test_pixels_that_count_as_object_in_a_mask(values, mode, masks, object_at, tmp_path):
    path = save_mask(tmp_path / "a.png", np.reshape(values, (2, 2)), mode)
    mask = load_mask(path, 2, masks, (2, 2))
    assert (mask.dtype, mask.ravel().tolist()) == (np.bool_, object_at)


@pytest.mark.parametrize(("background", "marked"), [(0, 1), (0, 255), (256, 65535), (3000, 40000), (0, 65535), (0, 1023), (0, 4095), (0, 32767), (3000, 20000), (40000, 50000)])  # fmt: skip
@pytest.mark.parametrize("object_at", [[0, 1, 1, 0], [1, 1, 1, 0]])
def test_the_lighter_value_of_a_16_bit_mask_is_the_object(background, marked, object_at, tmp_path):
    values = np.where(np.reshape(object_at, (2, 2)), marked, background).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert load_mask(tmp_path / "a.png", 2, "binary", (2, 2)).ravel().tolist() == object_at


@pytest.mark.parametrize(
    ("values", "object_at"),
    [
        ([0, 51, 102, 153], [0, 0, 0, 1]),
        ([0, 300, 32767, 40000], [0, 0, 0, 1]),
        ([0, 32768, 65535, 65535], [0, 1, 1, 1]),
    ],
)
def test_of_more_16_bit_values_those_of_the_lighter_half_are_the_object(values, object_at, tmp_path):
    Image.fromarray(np.reshape(values, (2, 2)).astype(np.uint16)).save(tmp_path / "a.png")
    assert load_mask(tmp_path / "a.png", 2, "binary", (2, 2)).ravel().tolist() == object_at


@pytest.mark.parametrize("values", [[0, 5, 5, 5, 17, 300], [0, 1, 1, 256, 256, 257]])
def test_the_colours_of_a_16_bit_mask_are_counted_in_16_bits(values, tmp_path):
    Image.fromarray(np.reshape(values, (2, 3)).astype(np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(BlaError, match=r"a\.png: has 4 colours, and most of what is not background"):
        load_mask(tmp_path / "a.png", 2, "binary", (2, 3))


@pytest.mark.parametrize("transparent", [0, 5, 255, 300, 65535])
def test_a_16_bit_value_that_is_transparent_is_background(transparent, tmp_path):
    values = np.array([[0, 5, 255], [300, 301, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png", transparency=transparent)
    found = load_mask(tmp_path / "a.png", (2, 3), "alpha", (2, 3))
    np.testing.assert_array_equal(found, values != transparent)


def test_a_transparent_colour_of_16_bits_is_refused(tmp_path):
    RED.save(tmp_path / "a.png", transparency=(300, 0, 0))
    with pytest.raises(BlaError, match=r"a\.png: has a transparent colour of 16 bits; save it with an alpha channel"):
        load_mask(tmp_path / "a.png", 8, "alpha", RED.size[::-1])


@pytest.mark.parametrize(
    ("shape", "size", "rows", "columns"),
    [
        ((2, 2), 4, [0, 0, 1, 1], [0, 0, 1, 1]),
        ((4, 4), 2, [1, 3], [1, 3]),  # new centres lie on borders of old pixels; the later pixel counts
        ((3, 3), 2, [0, 2], [0, 2]),
        ((5, 2), 2, [1, 3], [0, 1]),
        ((2, 7), 3, [0, 1, 1], [1, 3, 5]),
    ],
)
def test_a_mask_is_resized_by_nearest_neighbour(shape, size, rows, columns, tmp_path):
    for number in range(shape[0] * shape[1]):
        marked = np.zeros(shape)
        marked.flat[number] = 255
        mask = load_mask(save_mask(tmp_path / "a.png", marked), size, "binary", shape)
        np.testing.assert_array_equal(mask, marked[np.ix_(rows, columns)] == 255)


@pytest.mark.parametrize(
    ("values", "masks", "reason"),
    [
        (np.ones((3, 2)), "binary", r"\(3, 2\) .*\(2, 3\).* save it in the size"),
        (np.ones((4, 6)), "trimap", r"\(4, 6\) .*\(2, 3\).* save it in the size"),
        (np.zeros((2, 3)), "binary", "no object"),
        (np.full((2, 3), 127), "binary", "no object"),
        (np.full((2, 3), 2), "trimap", "no object"),
        (None, "binary", "no such mask"),
    ],
)
def test_a_mask_of_another_size_is_refused_by_name(values, masks, reason, tmp_path):
    path = tmp_path / "a.png" if values is None else save_mask(tmp_path / "a.png", values)
    with pytest.raises(BlaError, match=rf"^{re.escape(str(tmp_path))}/a\.png: .*{reason}"):
        load_mask(path, 2, masks, (2, 3))


@pytest.mark.parametrize("content", [b"", b"text", encoded(GREY, "JPEG"), encoded(NOISE, "PNG")[:2000]])
def test_a_mask_that_cannot_be_read_is_refused_by_name(content, tmp_path):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(BlaError) as error:
        load_mask(tmp_path / "a.png", 8, "binary", (64, 64))
    assert str(error.value).startswith(f"{tmp_path}/a.png: not a readable PNG mask")


def test_a_mask_is_rotated_with_its_image(tmp_path):
    save_mask(tmp_path / "a.mask", np.repeat([[255], [0]], 15, axis=0).repeat(20, axis=1))
    content = oriented(RED.resize((30, 20)), "JPEG", 6)
    (part,) = read_images(listing(tmp_path, {"a.jpg": content}, "binary"), "train", 2, "bilinear")
    assert part.masks.tolist() == [[[[True, True], [False, False]]]]


def test_boxes_are_scaled_with_their_images():
    two = ImageFile("a.jpg", 0, boxes=((20, 10, 120, 60), (0, 0, 200, 100)))
    files = [two, ImageFile("b.jpg", 0), ImageFile("c.jpg", 1, boxes=((5, 5, 10, 50),))]
    shapes = np.array([[100, 200], [10, 10], [50, 25]], np.int32)
    assert scale_boxes(files, shapes, 10).tolist() == [[0, 1, 1, 6, 6], [0, 0, 0, 10, 10], [2, 2, 1, 4, 10]]
    assert scale_boxes(files[1:2], shapes[1:2], 10).shape == (0, 5)


@pytest.mark.parametrize("colours", [[(0, 0, 0), (255, 255, 255)], [(255, 255, 255), (0, 0, 0)], [(20, 20, 20), (90, 0, 0)], [(250, 240, 0), (0, 0, 90)]])  # fmt: skip
@pytest.mark.parametrize("object_at", [[0, 1, 1, 0], [1, 1, 1, 0]])
def test_of_a_palette_the_lighter_colour_is_the_object_whatever_its_number(colours, object_at, tmp_path):
    light = int(np.argmax([sum(colour) for colour in colours]))
    numbers = np.where(np.reshape(object_at, (2, 2)), light, 1 - light)
    image = Image.fromarray(numbers.astype(np.uint8))
    image.putpalette([value for colour in colours for value in colour])
    image.save(tmp_path / "a.png")
    assert load_mask(tmp_path / "a.png", 2, "binary", (2, 2)).ravel().tolist() == object_at


def test_an_adaptive_palette_of_white_on_black_is_read_by_its_colours(tmp_path):
    white = np.zeros((8, 8), np.uint8)
    white[2:5, 3:6] = 255
    Image.fromarray(white).convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE, colors=2).save(
        tmp_path / "a.png"
    )
    np.testing.assert_array_equal(load_mask(tmp_path / "a.png", 8, "binary", (8, 8)), white > 0)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_a_mask_of_transparency_marks_what_is_opaque(mode, tmp_path):
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, :, 3] = [255, 130]
    image = Image.fromarray(pixels).convert(mode)
    image.save(tmp_path / "a.png")
    assert load_mask(tmp_path / "a.png", 2, "alpha", (2, 2)).ravel().tolist() == [1, 1, 0, 0]


def voc_mask(inner, number, void=True):
    """A mask with VOC's palette (class `number`: bits of the number are the colour's) and its white border."""
    numbers = np.zeros((20, 20), np.uint8)
    numbers[4:15, 4:15] = 255 if void else number
    numbers[5:14, 5:14] = number
    numbers[8:11, 8:11] = inner
    colours = [
        [sum(((k >> (3 * bit + part)) & 1) << (7 - bit) for bit in range(8)) for part in range(3)] for k in range(256)
    ]
    image = Image.fromarray(numbers)
    image.putpalette([value for colour in colours for value in colour])
    return image, numbers


@pytest.mark.parametrize(("inner", "number"), [(12, 12), (15, 15), (1, 8), (20, 20)])
@pytest.mark.parametrize("kind", ["palette", "colours", "numbers"])
def test_a_mask_of_classes_is_not_taken_for_a_black_and_white_one(inner, number, kind, tmp_path):
    """Only the border of VOC's objects is nearly white."""
    image, numbers = voc_mask(inner, number)
    drawn = {"palette": image, "colours": image.convert("RGB"), "numbers": Image.fromarray(numbers)}[kind]
    drawn.save(tmp_path / "a.png")
    with pytest.raises(BlaError, match=r"a\.png: has \d colours, and most of what is not background"):
        load_mask(tmp_path / "a.png", 20, "binary", (20, 20))
    image.save(tmp_path / "a.png")
    marked = load_mask(tmp_path / "a.png", 20, "voc", (20, 20))
    np.testing.assert_array_equal(marked, (numbers > 0) & (numbers < 255))


@pytest.mark.parametrize(("grey", "deep"), [(30, False), (127, False), (20_000, True)])
def test_a_second_object_of_a_darker_grey_is_not_dropped_in_silence(grey, deep, tmp_path):
    white = 65535 if deep else 255
    values = np.zeros((64, 64), np.uint16 if deep else np.uint8)
    values[4:40, 4:40] = white
    values[50:53, 50:53] = grey
    Image.fromarray(values).save(tmp_path / "a.png")
    with pytest.raises(
        BlaError, match=rf"a\.png: has the grey levels 0, {grey}, {white}, of which {grey} fills an area"
    ):
        load_mask(tmp_path / "a.png", 64, "binary", (64, 64))


def test_a_grey_under_transparent_pixels_is_no_object(tmp_path):
    values, alpha = np.zeros((64, 64), np.uint8), np.full((64, 64), 255, np.uint8)
    values[4:40, 4:40], values[50:60, 50:60] = 255, 77
    alpha[48:62, 48:62] = 0
    alpha[values == 0] = 0  # what is opaque is what is white
    Image.fromarray(np.stack([values, alpha], axis=2)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(load_mask(tmp_path / "a.png", 64, "binary", (64, 64)), values == 255)


def test_a_second_object_of_a_lighter_grey_is_part_of_the_mask(tmp_path):
    values = np.zeros((64, 64), np.uint8)
    values[4:40, 4:40], values[50:60, 50:60] = 255, 128
    Image.fromarray(values).save(tmp_path / "a.png")
    np.testing.assert_array_equal(load_mask(tmp_path / "a.png", 64, "binary", (64, 64)), values > 0)


@pytest.mark.parametrize("greys", [[64], [16, 64, 112]])
def test_edges_of_a_few_greys_that_are_two_pixels_wide_are_no_object(greys, tmp_path):
    values = np.zeros((64, 64), np.uint8)
    for place, grey in enumerate([*greys, 255]):
        values[2 * place : 64 - 2 * place, 2 * place : 64 - 2 * place] = grey
    Image.fromarray(values).save(tmp_path / "a.png")
    np.testing.assert_array_equal(load_mask(tmp_path / "a.png", 64, "binary", (64, 64)), values == 255)


@pytest.mark.parametrize("grey", [1, 15])
def test_what_is_nearly_black_is_background_as_in_a_decoded_jpeg(grey, tmp_path):
    values = np.zeros((64, 64), np.uint8)
    values[4:40, 4:40], values[48:56, 48:56] = 255, grey
    Image.fromarray(values).save(tmp_path / "a.png")
    np.testing.assert_array_equal(load_mask(tmp_path / "a.png", 64, "binary", (64, 64)), values == 255)


@pytest.mark.parametrize("side", [9, 30, 61])
def test_a_black_and_white_mask_with_soft_edges_or_noise_is_one(side, tmp_path):
    white = np.zeros((64, 64), np.uint8)
    white[1 : 1 + side, 2 : 2 + side] = 255
    rng = np.random.default_rng(side)
    soft = np.array(
        Image.fromarray(np.kron(white, np.ones((2, 2), np.uint8))).resize((64, 64), Image.Resampling.BICUBIC)
    )
    noisy = np.abs(white.astype(int) - rng.integers(0, 60, white.shape)).astype(np.uint8)
    for values in (soft, noisy):
        Image.fromarray(values).save(tmp_path / "a.png")
        np.testing.assert_array_equal(load_mask(tmp_path / "a.png", 64, "binary", (64, 64)), white > 0)


@pytest.mark.parametrize(("mode", "masks", "message"), [("L", "alpha", "has no transparency"), ("RGB", "alpha", "has no transparency"), ("L", "voc", "is of mode L; masks of the kind voc have a palette"), ("RGB", "voc", "is of mode RGB")])  # fmt: skip
def test_a_mask_of_another_kind_is_refused_by_name(mode, masks, message, tmp_path):
    path = save_mask(tmp_path / "a.png", np.full((2, 2), 255), mode)
    with pytest.raises(BlaError, match=rf"a\.png: {message}"):
        load_mask(path, 2, masks, (2, 2))


def _with_alpha(grey, alpha):
    return Image.merge("LA", [Image.fromarray(np.array(rows, np.uint8)) for rows in (grey, alpha)])


@pytest.mark.parametrize(
    ("grey", "alpha"),
    [
        ([[255, 255, 255, 255]], [[255, 0, 0, 0]]),
        ([[200, 30, 60, 0]], [[255, 255, 255, 0]]),
        ([[30, 255, 255, 255]], [[255, 0, 0, 0]]),
    ],
    ids=["white everywhere", "photograph on black", "photograph on white"],
)
def test_a_mask_whose_colours_and_transparency_disagree_is_refused_as_binary(grey, alpha, tmp_path):
    _with_alpha(grey, alpha).save(tmp_path / "a.png")
    with pytest.raises(BlaError, match=r"a\.png: has transparent pixels, .*; set masks to alpha"):
        load_mask(tmp_path / "a.png", (1, 4), "binary", (1, 4))
    opaque = [value > 0 for value in alpha[0]]
    assert load_mask(tmp_path / "a.png", (1, 4), "alpha", (1, 4)).ravel().tolist() == opaque


@pytest.mark.parametrize("alpha", [[[255, 255, 0, 0]], [[255, 255, 255, 255]], [[200, 130, 127, 0]]])
def test_a_binary_mask_may_have_an_alpha_channel_that_agrees_or_is_opaque(alpha, tmp_path):
    _with_alpha([[255, 255, 0, 0]], alpha).save(tmp_path / "a.png")
    assert load_mask(tmp_path / "a.png", (1, 4), "binary", (1, 4)).ravel().tolist() == [1, 1, 0, 0]
