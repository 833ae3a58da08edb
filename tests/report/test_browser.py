"""The explanation browser as a file: bytes of cells, places of thumbnails, escaping, measures and messages."""

import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.spatial.distance import cityblock

from bla.base.errors import BlaError
from bla.report.browser import builder
from bla.report.browser.builder import FOLDER, SCRIPTS, browser_page, cells_of, common_top, disagreement, sheets
from bla.report.browser.records import Collection, Method, Predictions, mean_distance, shares

ROOT = Path(__file__).parents[2]
RIGHT = np.array([True, False, True])
BL = Predictions(np.array([0, 1, 1]), np.array([0.5, 0.75, 1.0]), np.array([0.5, 2.0, np.nan]), RIGHT)
MAPS = np.array([[[1.0, -3.0], [0.0, 0.0]], [[np.nan] * 2] * 2, [[0.0, 0.0], [0.0, 0.0]]])
KEPT = np.array([[[True, False], [False, True]]] * 3)
PLAIN = Method("cam", "CAM", MAPS, BL, KEPT)


def collection(methods=(PLAIN,), name="own", files=("a.jpg", "b.jpg", "c.jpg"), classes=("cat", "dog")):
    images = np.arange(3 * 32 * 32 * 3, dtype=np.uint8).reshape(3, 32, 32, 3)
    return Collection(name, images, files, classes, np.array([0, 0, 1]), list(methods))


class Parts(HTMLParser):
    """The elements of a page, and the texts of its scripts, as a browser's parser sees them."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self.current = [], {}, None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.current = tag if tag != "script" else dict(attrs).get("id", "code")

    def handle_data(self, data):
        self.texts[self.current] = self.texts.get(self.current, "") + data


def data_of(text):
    return json.loads(Parts(text).texts["data"])


def unpacked(text, kind):
    return np.frombuffer(base64.b64decode(text), kind)


def test_cells_are_signed_shares_of_the_largest_cell():
    cells, tops = cells_of(MAPS[[0, 2]])
    assert cells.tolist() == [[42, -127, 0, 0], [0, 0, 0, 0]]  # 127 / 3 = 42.3
    assert tops.tolist() == [0.75, 0]


def test_the_page_holds_exactly_these_bytes():
    (made,) = data_of(browser_page([collection()], "Maps"))["collections"]
    (method,) = made["methods"]
    assert unpacked(method["images"], "<i4").tolist() == [0, 2]  # image 1 has no map
    assert unpacked(method["cells"], "i1").tolist() == [42, -127, 0, 0, 0, 0, 0, 0]
    assert unpacked(method["tops"], "<f4").tolist() == [0.75, 0]
    assert unpacked(method["kept"], "u1").tolist() == [0b10010000] * 2
    assert made["grid"] == [2, 2]
    assert made["labels"] == [[0], [0], [1]]
    (predictions,) = made["predictions"]
    assert unpacked(predictions["classes"], "<i4").tolist() == [0, 1, 1]
    assert unpacked(predictions["probabilities"], "<f4").tolist() == [0.5, 0.75, 1]
    np.testing.assert_array_equal(unpacked(predictions["losses"], "<f4"), [0.5, 2, np.nan])
    assert unpacked(predictions["right"], "u1").tolist() == [1, 0, 1]


def test_images_may_have_several_classes_or_none_that_is_known():
    labels = np.array([[True, True], [False, False], [False, True]])
    several = replace(collection([replace(PLAIN, predictions=replace(BL, right=None))]), labels=labels)
    (made,) = data_of(browser_page([several], "Maps"))["collections"]
    assert made["labels"] == [[0, 1], [], [1]]
    assert made["predictions"][0]["right"] is None


def test_the_example_of_the_documentation_runs():
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/browser.md").read_text(), re.DOTALL)
    values = {}
    exec(example, values)
    assert data_of(values["text"])["collections"][0]["files"] == ["a.jpg", "b.jpg"]


def test_methods_of_one_classifier_share_its_predictions():
    own = replace(PLAIN, name="bla", predictions=replace(BL, classes=np.array([1, 1, 1])))
    (made,) = data_of(browser_page([collection([PLAIN, own, replace(PLAIN, name="lime")])], "Maps"))["collections"]
    assert [method["predictions"] for method in made["methods"]] == [0, 1, 0]
    assert len(made["predictions"]) == 2


@pytest.mark.parametrize("count", [1, 23, 101])
def test_every_thumbnail_has_its_place_and_no_colour_of_its_neighbour(count):
    colours = np.random.default_rng(0).integers(0, 256, (count, 1, 1, 3), dtype=np.uint8)
    files, tile = sheets(np.broadcast_to(colours, (count, 40, 56, 3)), 48)
    assert tile == (48, 48)  # 48 x 34.3, in whole blocks
    assert len(files) == -(-count // 100)
    for number in range(count):
        sheet = np.asarray(Image.open(io.BytesIO(files[number // 100])), int)
        row, column = divmod(number % 100, 10)
        there = sheet[row * 48 : (row + 1) * 48, column * 48 : (column + 1) * 48]
        assert np.abs(there - colours[number]).max() <= 6


def test_images_smaller_than_a_thumbnail_stay_small_and_many_images_get_small_thumbnails(monkeypatch):
    assert sheets(np.zeros((2, 28, 28, 3), np.uint8), 112)[1] == (32, 32)
    monkeypatch.setattr(builder, "SIDE", 32)
    monkeypatch.setattr(builder, "SMALL_SIDE", 16)
    for most, side in ((6, 32), (5, 16)):
        monkeypatch.setattr(builder, "MANY_IMAGES", most)
        made = data_of(browser_page([collection(), collection(name="two")], "Maps"))["collections"]
        assert [one["tile"] for one in made] == [[side, side]] * 2


HOSTILE = [
    "</script><img src=x onerror=alert(1)>",
    "<!--<script>",
    "]]></SCRIPT >",
    "\"><b>&amp;\u2028'",
    "$data ${script} 鳥.jpg",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_name_can_leave_the_data(text):
    plain = Parts(browser_page([collection()], "Maps"))
    method = replace(PLAIN, name=text, title=text)
    page = browser_page([collection([method], text, [text] * 3, [text, "dog"])], text, home=text)
    parts = Parts(page)
    assert [tag for tag in parts.elements if tag != "a"] == plain.elements
    (made,) = json.loads(parts.texts["data"])["collections"]
    assert made["name"] == made["classes"][0] == made["files"][2] == made["methods"][0]["title"] == text
    assert parts.texts["code"] == plain.texts["code"]
    assert parts.texts["h1"].strip() == text


def test_the_page_needs_no_network_and_writes_no_markup():
    code = "".join((FOLDER / name).read_text() for name in (*SCRIPTS, "browser.html", "browser.css"))
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\(|fetch\(|XMLHttpRequest", code)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", code)
    assert {path.name for path in FOLDER.glob("*.js")} == set(SCRIPTS)
    assert browser_page([collection()], "Maps") == browser_page([collection()], "Maps")


SMALL_MAPS = st.lists(st.lists(st.integers(-3, 3), min_size=4, max_size=4), min_size=2, max_size=6)


@settings(max_examples=30, deadline=None)
@given(SMALL_MAPS)
def test_mean_distance_is_the_mean_over_pairs(values):
    maps = np.array(values, float).reshape(-1, 1, 2, 2)
    flat = shares(maps).reshape(len(maps), 4)
    pairs = [cityblock(flat[i], flat[j]) / 2 for i in range(len(flat)) for j in range(i)]
    np.testing.assert_allclose(mean_distance(maps), [np.mean(pairs)], atol=1e-12)
    assert 0 <= mean_distance(maps)[0] <= 1 + 1e-12


def test_mean_distance_of_equal_disjoint_opposite_and_single_maps():
    left, right = np.array([[[1.0, 0.0]]]), np.array([[[0.0, 5.0]]])
    assert mean_distance(np.stack([left, 7 * left])) == [0]
    assert mean_distance(np.stack([left, right])) == [1]
    assert mean_distance(np.stack([left, -left])) == [1]
    assert np.isnan(mean_distance(left[None])).all()


def test_disagreement_leaves_out_controls_and_methods_without_some_maps():
    full = np.nan_to_num(MAPS, nan=1.0)
    one, other = Method("one", "one", full, BL), Method("two", "two", full[::-1], BL)
    pair = disagreement([one, other])
    assert pair is not None
    control = Method("random", "random", np.ones((3, 2, 2)), BL, control=True)
    np.testing.assert_array_equal(disagreement([one, control, PLAIN, other]), pair)
    assert disagreement([one, control, PLAIN]) is None


def test_the_common_scale_ends_at_the_95th_percentile_of_largest_shares():
    peaks = np.array([np.full((2, 2), 1.0)] * 99 + [np.array([[1.0, 0.0], [0.0, 0.0]])])
    method = Method("m", "m", peaks, BL)
    assert common_top([method]) == 0.25
    assert common_top([Method("zero", "zero", np.zeros((3, 2, 2)), BL)]) == 1


OTHER = Method("lime", "LIME", np.zeros((3, 7, 7)), BL)
WRONG = {
    "own: 2 file names for 3 images": collection(files=("a", "b")),
    "own: has no methods": collection([]),
    "same name: cam, cam": collection([PLAIN, PLAIN]),
    "own: the maps of lime are [3, 7, 7], not [3, 2, 2]": collection([PLAIN, OTHER]),
    "own: the maps of cam are [2, 2, 2], not [3, 2, 2]": collection([replace(PLAIN, maps=MAPS[:2])]),
    "cam: NaN or infinite numbers within a map": collection([replace(PLAIN, maps=np.where(MAPS == 1, np.nan, MAPS))]),
    "the kept cells of cam are [3, 4]": collection([replace(PLAIN, kept=KEPT.reshape(3, 4))]),
    "cam: 2 numbers in losses for 3 images": collection([replace(PLAIN, predictions=replace(BL, losses=np.zeros(2)))]),
    "cam: 1 numbers in spread": collection([replace(PLAIN, spread=np.zeros(1))]),
}


@pytest.mark.parametrize("message", WRONG)
def test_arrays_that_do_not_fit_are_named(message):
    with pytest.raises(BlaError, match=re.escape(message)):
        browser_page([WRONG[message]], "Maps")
