"""The explanation browser in headless Chromium: filters, order, links, keys, copying, blank cells, hostile names, speed."""

import csv
import io
import json
import re

import numpy as np
import pytest
from chromium import open_page

from bla.base.spreadsheet import FORMULA
from bla.report.browser.builder import browser_page
from bla.report.browser.records import Collection, Method, Predictions

COUNT = 60
CLASSES = ["cat", "</script><b>dog</b>", '=cow, "a"']
HOSTILE_FILE = "</script><img src=x onerror='document.title=1'>.jpg"


def small_collection(name="own"):
    """60 images of 3 classes; `bla` explains all, with losses 0, 1, .. and sizes 0 to 4; `cam` the first five."""
    rng = np.random.default_rng(0)
    labels = np.arange(COUNT) % 3
    wrong = np.arange(COUNT) % 10 == 0
    own = Predictions(np.where(wrong, (labels + 1) % 3, labels), np.full(COUNT, 0.5), np.arange(COUNT) * 1.0, ~wrong)
    bl = Predictions(labels, np.full(COUNT, 0.75), np.zeros(COUNT), np.ones(COUNT, bool))
    maps = rng.random((COUNT, 2, 2))
    kept = np.arange(4).reshape(2, 2) < (np.arange(COUNT) % 5)[:, None, None]
    some = np.where(np.arange(COUNT)[:, None, None] < 5, maps - 0.5, np.nan)
    methods = [
        Method("bla", "BLA", maps, own, kept, spread=np.arange(COUNT)[::-1] / COUNT),
        Method("cam", "CAM", some, bl),
        Method("random", "<i>random</i>", rng.random((COUNT, 2, 2)), bl, control=True),
        Method("other", "other", maps[::-1], bl),
    ]
    images = rng.integers(0, 256, (COUNT, 16, 16, 3), dtype=np.uint8)
    files = [HOSTILE_FILE, *(f"{n}.jpg" for n in range(1, COUNT))]
    return Collection(name, images, files, CLASSES, labels, methods)


def without_classes():
    """Two images: the second one shows no class, which is known."""
    none = Predictions(np.array([1, 0]), np.array([0.5, 0.25]), np.zeros(2), np.array([False, True]))
    labels = np.array([[True, True, False], [False] * 3])
    methods = [Method("bla", "BLA", np.ones((2, 2, 2)), none)]
    return Collection("several", np.zeros((2, 16, 16, 3), np.uint8), ["x", "y"], CLASSES, labels, methods)


def unlabelled():
    """Two images, wider than high, whose classes are unknown."""
    guesses = Predictions(np.array([1, 0]), np.array([0.5, 0.75]), np.full(2, np.nan), None)
    methods = [Method("bla", "BLA", np.ones((2, 2, 2)), guesses)]
    return Collection("new", np.zeros((2, 16, 32, 3), np.uint8), ["x", "y"], CLASSES, np.zeros((2, 3), bool), methods)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("browser") / "browser.html"
    path.write_text(
        browser_page([small_collection(), small_collection("two"), unlabelled(), without_classes()], "Maps of <us>"),
        encoding="utf-8",
    )
    return path


@pytest.fixture(scope="module")
def chromium(file):
    with open_page(file) as page:
        yield page


@pytest.fixture
def show(chromium, file):
    """`show("method=cam")` opens the page with this state; returns the page."""

    def opened(state=""):
        chromium.open(f"{file.as_uri()}#{state}")
        return chromium

    return opened


NUMBERS = "shown.map((item) => item.number)"
STATUS = "document.getElementById('status').textContent"


def test_a_link_shows_what_it_names_and_every_control_says_so(show):
    page = show("dataset=own&class=cat&right=wrong&sort=loss&method=bla&scale=each&at=own:30")
    assert page.evaluate(NUMBERS) == [30, 0]  # wrong: 0, 10, ..; cat: 0, 3, ..; the larger loss first
    assert page.evaluate(STATUS) == "2 of 124 images"
    values = page.evaluate(
        "['dataset', 'class', 'right', 'sort', 'method'].map((id) => document.getElementById(id).value)"
    )
    assert values == ["own", "cat", "wrong", "loss", "bla"]
    assert page.evaluate("document.querySelector('input[name=scale]:checked').value") == "each"
    assert page.evaluate("document.querySelector('.card.active').textContent").startswith("✗ 50 % ")


def choose(page, name, value):
    page.evaluate(f"(() => {{ const e = document.getElementById({name!r}); e.value = {value!r}; e.dispatchEvent(new Event('change', {{bubbles: true}})); }})()")  # fmt: skip


def test_filters_change_the_address_and_the_address_gives_the_filters_back(show):
    page = show()
    assert page.evaluate("shown.length") == 124
    for name, value in (("dataset", "two"), ("class", CLASSES[1]), ("right", "right"), ("from", "2"), ("to", "3")):
        choose(page, name, value)
    expected = [n for n in range(COUNT) if n % 3 == 1 and n % 10 and n % 5 in (2, 3)]
    assert page.evaluate(NUMBERS) == expected
    address = page.evaluate("location.hash")
    assert page.evaluate("(state.class = '', refresh(), shown.length)") > len(expected)
    assert show(address[1:]).evaluate(NUMBERS) == expected
    page.evaluate("document.getElementById('reset').click()")
    assert page.evaluate("shown.length") == 124
    assert page.evaluate("location.hash") in ("", "#")


@pytest.mark.parametrize(
    ("state", "first", "last"),
    [
        ("sort=loss", 59, 0),
        ("sort=loss&smallest=1", 0, 59),
        ("sort=spread", 0, 59),
        ("sort=size", 4, 55),
        ("sort=size&smallest=1", 0, 59),
        ("smallest=1", 59, 0),
    ],
)
def test_orders(show, state, first, last):
    numbers = show(f"dataset=own&{state}").evaluate(NUMBERS)
    assert (numbers[0], numbers[-1]) == (first, last)
    assert sorted(numbers) == list(range(COUNT))


def test_the_order_by_disagreement_is_that_of_the_numbers(show):
    page = show("dataset=own&sort=disagreement")
    values = page.evaluate("shown.map((item) => factsOf(item, 'bla').disagreement)")
    assert values == sorted(values, reverse=True)
    assert 0 < values[0] <= 1


def test_a_method_without_this_number_says_so_and_images_without_it_come_last(show):
    page = show("method=cam&sort=size")
    assert "no image has a number for size" in page.evaluate(STATUS)
    assert page.evaluate(NUMBERS) == [*range(COUNT), *range(COUNT), 0, 1, 0, 1]


def test_cells_that_were_not_computed_are_blank_and_say_so(show):
    page = show("method=cam&dataset=own")
    assert "55 of them without a map, because CAM was not computed for them" in page.evaluate(STATUS)
    assert page.evaluate("document.getElementById('image-4').querySelector('.blank')") is None
    assert "not computed" in page.evaluate("document.getElementById('image-5').textContent")
    assert "map not computed" in page.evaluate("document.getElementById('image-5').getAttribute('aria-label')")
    assert show("method=cam&mapped=1&dataset=own").evaluate(NUMBERS) == [0, 1, 2, 3, 4]
    page.press("End", "Enter", "ArrowLeft")
    assert page.evaluate("document.querySelectorAll('#figures canvas').length") == 5  # the image and four methods
    page = show("at=own:7&open=1")
    assert page.evaluate("document.querySelectorAll('#figures canvas').length") == 4
    assert "not computed for this image" in page.evaluate("document.getElementById('figures').textContent")


def test_keys_move_open_choose_methods_mark_and_close(show):
    page = show("dataset=own")
    columns = page.evaluate("layout().columns")
    page.press("ArrowRight", "ArrowRight", "ArrowLeft", "ArrowDown")
    assert page.evaluate("active") == 1 + columns
    page.press("ArrowUp", "ArrowUp")
    assert page.evaluate("active") == 0
    page.press("End")
    assert page.evaluate("[active, document.querySelector('.card.active').id]") == [59, "image-59"]
    assert page.evaluate("document.getElementById('grid').getAttribute('aria-activedescendant')") == "image-59"
    page.press("Home", "ArrowRight", "Enter")
    assert page.evaluate("[dialog.open, document.getElementById('open-title').textContent]") == [True, "1.jpg"]
    assert page.evaluate("location.hash") == "#dataset=own&at=own%3A1&open=1"
    page.press("ArrowRight", "2")
    assert page.evaluate("[document.getElementById('open-title').textContent, state.method]") == ["2.jpg", "cam"]
    assert page.evaluate("document.querySelector('figure.chosen button').textContent") == "CAM"
    page.press("Escape")
    assert page.evaluate("[dialog.open, location.hash]") == [False, "#dataset=own&method=cam&at=own%3A2"]
    page.press("0", " ")
    assert page.evaluate("[state.method, state.marked]") == ["", "own:2"]
    page.press("9")
    assert page.evaluate("state.method") == ""  # there is no ninth method


def test_an_open_image_stays_open_when_another_method_or_a_link_leaves_it_out(show):
    page = show("dataset=own&right=wrong&at=own:20&open=1")
    opened = "[dialog.open, document.getElementById('open-title').textContent]"
    text = "document.getElementById('open-text').textContent"
    assert "image 3 of 6 shown" in page.evaluate(text)
    page.press("4")  # this method is wrong for no image
    assert page.evaluate("shown.length") == 0
    assert page.evaluate(opened) == [True, "20.jpg"]
    assert "not among the 0 images shown" in page.evaluate(text)
    page.press(" ", "1")
    assert page.evaluate("state.marked") == "own:20"
    assert "image 3 of 6 shown" in page.evaluate(text)
    page = show("dataset=own&class=cat&at=own:20&open=1")  # 20 is a cow
    assert page.evaluate(opened) == [True, "20.jpg"]
    page.press("ArrowRight")
    assert page.evaluate(opened) == [True, "3.jpg"]


def test_keys_on_a_control_are_the_control_s(show):
    page = show()
    page.evaluate("(document.getElementById('more').open = true, document.getElementById('from').focus())")
    page.press("3", "ArrowRight")
    assert page.evaluate("[active, state.method, document.getElementById('from').value]") == [0, "bla", "3"]


def copied(page, button):
    page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: {writeText: async (text) => { window.copied = text; }}, configurable: true})")  # fmt: skip
    page.evaluate(f"document.getElementById({button!r}).click()")
    return page.evaluate("window.copied")


def test_file_names_and_csv_are_those_of_the_shown_or_of_the_marked_images(show):
    page = show("dataset=own&right=wrong&sort=loss")
    assert copied(page, "copy-names").splitlines() == [*(f"{n}.jpg" for n in (50, 40, 30, 20, 10)), HOSTILE_FILE]
    page.press("ArrowDown", " ")
    marked = copied(page, "copy-names").splitlines()
    assert len(marked) == 1
    lines = copied(show("dataset=own&marked=own:1,own:2"), "copy-csv").splitlines()
    assert lines[0].startswith("dataset,file,image,true_class,method,predicted,probability,right,loss,size,spread")
    assert lines[1].startswith("own,1.jpg,1,</script><b>dog</b>,bla,</script><b>dog</b>,0.5,yes,1,1,")
    assert lines[2].startswith('own,2.jpg,2,"\'=cow, ""a""",bla,"\'=cow, ""a""",0.5,yes,2,2,')  # no formula
    assert len(lines) == 3


def test_the_characters_of_a_formula_are_those_of_the_tables(show):
    cells = [f"{start}1" for start in (*FORMULA, "1", "a", "'", '"')]
    written = show("").evaluate(f"{json.dumps(cells)}.map(csvCell)")
    assert [next(csv.reader(io.StringIO(cell, newline="")))[0] for cell in written] == [
        f"'{cell}" if cell.startswith(FORMULA) else cell for cell in cells
    ]


def test_the_image_alone_says_whose_numbers_it_shows(show):
    page = show("method=&dataset=own&right=wrong&sort=loss")
    assert page.evaluate(STATUS) == "6 of 124 images; predictions and numbers are those of BLA"
    assert ",bla," in copied(page, "copy-csv").splitlines()[1]
    assert "those of" not in show("method=cam").evaluate(STATUS)


def test_a_browser_that_forbids_copying_shows_the_text(show):
    page = show("dataset=own&marked=own:5")
    page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined, configurable: true})")
    page.evaluate("document.getElementById('copy-names').click()")
    page.wait("document.getElementById('copy').open")
    assert page.evaluate("document.getElementById('copy-text').value") == "5.jpg\n"


@pytest.mark.parametrize(
    "state", ["method=nothing", "at=own:60", "right=maybe", "colour=red", "toString=1", "marked=own:1,own:x"]
)
def test_what_a_link_names_and_the_page_lacks_is_said(show, state):
    status = show(state).evaluate(STATUS)
    assert status.startswith("This page does not know ")
    assert state.partition("=")[0] in status
    assert "124 of 124 images" in status


def test_names_are_texts_not_markup(show):
    page = show("at=own:0&open=1")
    page.wait("document.querySelector('#figures canvas').width > 1")
    assert page.evaluate("document.querySelectorAll('b, i, main img, dialog img, header img').length") == page.evaluate("document.querySelectorAll('.help b').length")  # fmt: skip
    assert page.evaluate("document.title") == "Maps of <us>"
    assert page.evaluate("document.getElementById('open-title').textContent") == HOSTILE_FILE
    assert "<i>random</i>" in page.evaluate("document.getElementById('figures').textContent")


def test_the_scale_is_one_for_all_methods_until_it_is_switched(show):
    page = show("dataset=own")
    ends = "shown.slice(0, 9).map((item) => endOf(mapOf(item, state.method), state.scale))"
    assert page.evaluate(f"new Set({ends}).size") == 1
    assert re.search(
        r"^ends at [\d.]+ % of a map's weight$", page.evaluate("document.getElementById('end').textContent")
    )
    page.evaluate("document.querySelector('input[value=each]').click()")
    assert page.evaluate(f"new Set({ends}).size") == 9
    assert page.evaluate("location.hash") == "#dataset=own&scale=each"
    page.evaluate("grid.focus()")
    page.press("Enter")
    page.evaluate("document.getElementById('open-scale').click()")
    assert page.evaluate("location.hash") == "#dataset=own&at=own%3A0&open=1"


def test_screen_readers_get_the_prediction_and_the_largest_cells_of_the_map(show):
    page = show("at=own:1&open=1")
    label = page.evaluate("document.querySelectorAll('#figures canvas')[1].getAttribute('aria-label')")
    assert (
        "true class </script><b>dog</b>, predicted </script><b>dog</b>, 50 %, right. BLA: largest weights of 2 by 2"
        in label
    )
    map_ = small_collection().methods[0].maps[1]
    row, column = np.unravel_index(map_.argmax(), (2, 2))
    assert f"cells: row {row + 1}, column {column + 1} ({round(100 * map_.max() / map_.sum())} %)" in label
    assert label.endswith("keeps 1 cell")


def test_images_without_true_classes_are_neither_right_nor_wrong(show):
    page = show("dataset=new&sort=loss")
    assert page.evaluate("[...document.querySelectorAll('.card')].map((card) => card.innerText)") == [
        f"50 % {CLASSES[1]}\nnew\nloss –",
        "75 % cat\nnew\nloss –",
    ]
    assert "x, new, true class unknown, predicted" in page.evaluate("document.querySelector('.card').getAttribute('aria-label')")  # fmt: skip
    page.wait(
        "document.querySelector('.card canvas').width > 0 && document.querySelector('.card canvas').width !== 300"
    )
    assert page.evaluate("(({width, height}) => width / height)(document.querySelector('.card canvas'))") == pytest.approx(2, abs=0.05)  # fmt: skip
    assert show("dataset=new&right=right").evaluate("shown.length") == 0
    assert show("dataset=new&right=wrong&open=1").evaluate("[shown.length, dialog.open]") == [0, False]


def test_an_image_has_several_classes_or_none(show):
    page = show("dataset=several")
    labels = page.evaluate("[...document.querySelectorAll('.card')].map((card) => card.getAttribute('aria-label'))")
    assert f"true class cat, {CLASSES[1]}, predicted" in labels[0]
    assert "true class none, predicted cat, 25 %, right" in labels[1]
    assert show(f"dataset=several&class={CLASSES[1]}").evaluate(NUMBERS) == [0]


@pytest.mark.parametrize(("width", "dark"), [(390, False), (390, True), (1280, False), (1280, True)])
def test_nothing_is_wider_than_the_window_and_colours_follow_the_system(show, width, dark):
    page = show()
    page.send("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
    page.send(
        "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    )
    for state in ("", "open=1"):
        page = show(state)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("dialog.scrollWidth <= dialog.clientWidth")
    columns = page.evaluate("layout().columns")
    assert columns == (2 if width == 390 else 8)
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(23, 24, 26)" if dark else "rgb(255, 255, 255)")


@pytest.mark.slow
def test_two_thousand_images_fit_in_15_mb_and_only_those_near_the_window_are_elements(tmp_path):
    rng, count = np.random.default_rng(0), 2000
    coarse = rng.integers(0, 256, (50, 14, 14, 3)).repeat(8, axis=1).repeat(8, axis=2)
    textures = np.clip(coarse + rng.normal(0, 12, coarse.shape), 0, 255).astype(np.uint8)  # 112 pixels, as a thumbnail
    labels = rng.integers(0, 10, count)
    own = Predictions(labels, rng.random(count), rng.random(count), np.ones(count, bool))
    methods = [
        Method(f"m{n}", f"method {n}", rng.normal(size=(count, 7, 7)), own, spread=rng.random(count)) for n in range(20)
    ]
    many = Collection("many", np.tile(textures, (40, 1, 1, 1)), [f"images/{n}.jpg" for n in range(count)], list("abcdefghij"), labels, methods)  # fmt: skip
    path = tmp_path / "many.html"
    path.write_text(browser_page([many], "Many"), encoding="utf-8")
    assert path.stat().st_size < 15e6
    with open_page(path, "sort=loss") as page:
        assert page.evaluate("shown.length") == count
        assert page.evaluate("document.querySelectorAll('.card').length") < 100
        page.press("End")
        assert page.evaluate("[active, document.querySelectorAll('.card').length < 100]") == [count - 1, True]
