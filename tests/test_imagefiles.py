"""The one place that opens images: resizing by formula, every colour mode, EXIF, and files that are refused."""

import contextlib
import io
import struct
import warnings

import numpy as np
import pytest
from PIL import Image

from bla.errors import BlaError
from bla.imagefiles import load_image, resize_image

RNG = np.random.default_rng(0)


def half_pixel_bilinear(rgb, size):
    """Sample at the centres of the new pixels, without antialiasing: what TensorFlow 2's tf.image.resize computes."""
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


@pytest.mark.parametrize("shape", [(5, 7), (40, 23), (9, 9), (200, 150)])
def test_bilinear_antialias_is_what_pillow_computes(shape):
    rgb = RNG.integers(0, 256, (*shape, 3), dtype=np.uint8)
    pillow = np.asarray(Image.fromarray(rgb).resize((9, 9), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(resize_image(rgb, 9, "bilinear_antialias") - pillow).max() <= 1


def test_the_two_differ_where_an_image_shrinks():
    rgb = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    plain, smooth = (resize_image(rgb, 8, resize).astype(int) for resize in ("bilinear", "bilinear_antialias"))
    assert np.abs(plain - smooth).max() > 20


@pytest.mark.parametrize("resize", ["bilinear", "bilinear_antialias"])
def test_an_image_of_the_right_size_stays_as_it_is(resize):
    rgb = RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(resize_image(rgb, 8, resize), rgb)


def test_images_are_squashed_not_cropped(tmp_path):
    Image.fromarray(np.repeat([[[255, 0, 0]], [[0, 0, 255]]], 30, axis=1).astype(np.uint8)).save(tmp_path / "a.png")
    pixels = load_image(tmp_path / "a.png", 2, "bilinear")
    assert pixels.tolist() == [[[255, 0, 0]] * 2, [[0, 0, 255]] * 2]


RED = Image.new("RGB", (8, 8), (200, 30, 40))
GREY = Image.new("L", (8, 8), 77)
MODES = {  # what is saved -> the colour that is read
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


STORED = {  # EXIF orientation -> how the camera stored the upright picture
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
def test_images_are_turned_as_their_exif_says(orientation, suffix, tmp_path):
    upright = Image.fromarray(np.kron([[0, 90], [160, 250]], np.ones((8, 8))).astype(np.uint8)).convert("RGB")
    turn = STORED[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    (upright if turn is None else upright.transpose(turn)).save(tmp_path / f"a{suffix}", exif=exif)
    difference = load_image(tmp_path / f"a{suffix}", 16, "bilinear").astype(int) - np.asarray(upright)
    assert np.abs(difference).max() <= 5


def test_a_16_bit_image_is_turned_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(np.array([[0, 65535], [0, 65535]], np.uint16)).save(tmp_path / "a.png", exif=exif)
    assert load_image(tmp_path / "a.png", 2, "bilinear")[..., 0].tolist() == [[255, 0], [255, 0]]


def jpeg_with_odd_exif():
    """A JPEG whose EXIF asks for a turn and calls its width a text: Pillow raises struct.error."""
    stored = io.BytesIO()
    RED.save(stored, "JPEG")
    tags = [(0x0112, 3, 1, struct.pack("<HH", 6, 0)), (0x0100, 2, 4, b"abc\0")]
    ifd = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHI", *tag[:3]) + tag[3] for tag in sorted(tags))
    body = b"Exif\0\0II*\0\x08\0\0\0" + ifd + b"\0\0\0\0"
    return stored.getvalue()[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + stored.getvalue()[2:]


def encoded(image, kind):
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


NOISE = Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8))
BAD = {
    "gif.jpg": encoded(RED, "GIF"),
    "bmp.png": encoded(RED, "BMP"),
    "tiff.jpg": encoded(RED, "TIFF"),
    "empty.jpg": b"",
    "text.jpg": b"not an image\n" * 100,
    "truncated.jpg": encoded(NOISE, "JPEG")[:2000],
    "truncated.png": encoded(NOISE, "PNG")[:2000],
    "header_alone.png": encoded(NOISE, "PNG")[:8],
    "odd_exif.jpg": jpeg_with_odd_exif(),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_no_whole_image_is_refused_by_name(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(BAD[name])
    with pytest.raises(BlaError) as error:
        load_image(path, 8, "bilinear")
    assert str(error.value).startswith(f"{path}: not a readable image (")
    assert str(error.value).endswith("; replace or remove the file")


def test_damaged_bytes_never_raise_anything_else(tmp_path):
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
    with pytest.raises(BlaError, match=r"a\.jpg: no such image$"):
        load_image(tmp_path / "a.jpg", 8, "bilinear")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("limit", "refused"), [(64, False), (63, True), (31, True), (None, False)])
def test_a_decompression_bomb_is_refused(limit, refused, tmp_path, monkeypatch):
    RED.save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(BlaError, match=r"a\.png: not a readable image") if refused else contextlib.nullcontext():
        load_image(tmp_path / "a.png", 8, "bilinear")
