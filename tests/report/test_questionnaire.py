"""The questionnaire: its data and pictures, and a person who fills it in, in headless Chromium."""

import base64
import hashlib
import io
import json
import re
import time

import numpy as np
import pandas as pd
import pytest
from chromium import open_page
from PIL import Image

from bla.experiments.explanations.user_study.answers import comparisons, read_answers
from bla.experiments.explanations.user_study.protocol import METHODS, OTHERS, QUESTIONS
from bla.experiments.explanations.user_study.tables import exclusions, prediction_tests, preferences
from bla.plotting.overlay import overlay
from bla.report.questionnaire.page import NO_HASH, StudyDataset, only_cells, questionnaire, visible_cells

DANGEROUS = "</script><b id='injected'>&amp;\"quoted\"'"
TOTAL = 2 * (len(OTHERS) * QUESTIONS + len(METHODS)) + 1
EMPTY = pd.DataFrame({"where": ["Figure 4"] * 9, "value": np.arange(9.0)})
EMPTY["method"] = [text for other in OTHERS.values() for text in (f"BLA-T over {other}", f"{other} over BLA-T", f"BLA-T equal to {other}")]  # fmt: skip


def dataset(name, classes, count=16, side=112):
    rng = np.random.default_rng(len(name))
    images = np.tile(rng.integers(0, 256, (count, 1, 1, 3), dtype=np.uint8), (1, side, side, 1))
    maps = {method: (rng.random((count, 7, 7)) > 0.7).astype(float) for method in METHODS}
    maps["grad_cam"] = rng.random((count, 7, 7))
    decided = np.arange(count) % len(classes)
    examples = {label: images[label] for label in range(len(classes) - 1)}
    return StudyDataset(name, "painted_birds", ["2 runs (paper: 20)"], classes, np.arange(count) + 100, images, decided, maps, examples)  # fmt: skip


@pytest.fixture(scope="module")
def datasets():
    return [dataset("pair", ["one", "two"]), dataset("many", [DANGEROUS, "b_b", "c", "d", "e"])]


@pytest.fixture(scope="module")
def page(datasets):
    return questionnaire(datasets)


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="study">(.*?)</script>', page, re.DOTALL)[1])


def pixels_of(address):
    return np.array(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))), int)


def test_the_hash_is_that_of_the_page_without_its_hash(page):
    digest = data_of(page)["page"]
    assert page.count(digest) == 1
    assert hashlib.sha256(page.replace(digest, NO_HASH).encode()).hexdigest() == digest


def test_another_page_has_another_hash(datasets, page):
    assert questionnaire(datasets) == page
    assert data_of(questionnaire(datasets[:1]))["page"] != data_of(page)["page"]


def test_the_page_asks_for_nothing_from_the_net_and_holds_names_as_data(page):
    assert "http" not in page.replace("http-equiv", "")
    assert "default-src 'none'" in page
    assert page.count("</script>") == 2
    assert data_of(page)["datasets"][1]["classes"][0] == DANGEROUS


def test_there_is_no_field_for_text(page):
    fields = set(re.findall(r'<input type="(\w+)"', page))
    assert fields == {"checkbox", "number", "radio"}
    assert "<textarea" not in page
    assert "<select" not in page


def test_pictures_are_the_overlays_of_the_maps(datasets, page):
    image = data_of(page)["datasets"][0]["images"][3]
    for method in METHODS:
        expected = 255 * overlay(datasets[0].images[3], datasets[0].maps[method][3])
        assert abs(pixels_of(image["overlays"][method]) - expected).mean() < 8  # JPEG
    assert (image["number"], image["decided"]) == (103, 1)


def test_only_the_cells_of_an_explanation_are_visible():
    image, cells = np.full((4, 6, 3), 200, np.uint8), np.array([[True, False], [False, False]])
    shown = only_cells(image, cells)
    assert (shown[:2, :3] == 200).all()
    assert (shown == 200).sum() == 2 * 3 * 3
    assert set(np.unique(shown)) == {128, 200}


def test_grad_cam_shows_as_many_cells_as_bla_t_and_those_with_its_largest_values():
    maps = {"bla_t": np.array([[[1.0, 0], [1, 0]]]), "grad_cam": np.array([[[0.1, 0.5], [0.0, 0.7]]])}
    assert visible_cells(maps, "grad_cam", 0).tolist() == [[False, True], [False, True]]
    assert visible_cells(maps, "bla_t", 0).tolist() == [[True, False], [True, False]]


ANSWER = """(() => {
  const item = questionsOf(state.seed)[state.answers.length];
  const preferred = {grad_cam: "bla_t", l2x_f: "other", other_image: "equal"}[item.against];
  const other = item.bla_t === "left" ? "right" : "left";
  const value = item.method ? (item.method === "bla_t" ? item.image.decided : item.options.find(o => o !== item.image.decided))
    : {bla_t: item.bla_t, other, equal: "equal"}[preferred];
  document.querySelector(`#choices [value="${value}"]`).click();
  document.querySelector("#question button").click();
})()"""
"""Prefers BLA-T to Grad-CAM, L2X-F to BLA-T, nothing to another image's; predicts the class from BLA-T alone."""


@pytest.fixture(scope="module")
def browser(page, tmp_path_factory):
    """The page in a browser of phone width."""
    path = tmp_path_factory.mktemp("browser") / "questionnaire.html"
    path.write_text(page, encoding="utf-8")
    with open_page(path, width=390, height=844) as browser:
        assert browser.requests() == [path.as_uri()]
        yield browser


def shown(browser):
    return browser.evaluate("SCREENS.filter(screen => !at(screen).hidden)")


@pytest.mark.slow
def test_a_person_fills_it_in_with_reloads_and_the_file_gives_the_counted_percentages(page, browser, tmp_path):
    browser.save_downloads(tmp_path)
    assert shown(browser) == ["consent"]
    browser.evaluate("document.querySelector('#consent button').click()")
    assert shown(browser) == ["consent"], "no start without consent"
    browser.evaluate(
        "document.querySelector('#consent input').click(); document.querySelector('#consent button').click()"
    )
    browser.evaluate("document.querySelector('[name=age]').value = '17'")
    for name, value in (("gender", "other"), ("ml", "agree"), ("xai", "strongly disagree")):
        browser.evaluate(f"document.querySelector('[name={name}][value=\"{value}\"]').click()")
    browser.evaluate("document.querySelector('#about button').click()")
    assert shown(browser) == ["about"], "too young"
    browser.evaluate(
        "document.querySelector('[name=age]').value = '41'; document.querySelector('#about button').click()"
    )
    browser.reload()
    assert shown(browser) == ["introduction"]
    browser.evaluate("document.querySelector('#introduction button').click()")
    browser.evaluate("document.querySelector('#comprehension [value=grass]').click(); document.querySelector('#comprehension button').click()")  # fmt: skip
    assert shown(browser) == ["comprehension"]
    assert browser.evaluate("!at('hint').hidden")
    browser.evaluate("document.querySelector('#comprehension [value=sun]').click(); document.querySelector('#comprehension button').click()")  # fmt: skip
    assert shown(browser) == ["question"]
    browser.evaluate("document.querySelector('#question button').click()")
    assert browser.evaluate("at('place').textContent") == f"Question 1 of {TOTAL}", "no step without an answer"
    assert browser.evaluate("document.documentElement.scrollWidth") <= 390
    for _ in range(10):
        browser.evaluate(ANSWER)
    before = browser.evaluate("[at('place').textContent, at('text').textContent, state.seed, at('bar').value]")
    assert before[0] == f"Question 11 of {TOTAL}"
    assert before[3] == 10
    browser.reload()
    assert browser.evaluate("[at('place').textContent, at('text').textContent, state.seed, at('bar').value]") == before
    # 23 hours later the person goes on; 25 hours later the answers are gone.
    hours = "(() => {{ const s = JSON.parse(localStorage[KEY]); s.saved -= {} * 3600000; localStorage[KEY] = JSON.stringify(s) }})()"
    kept = browser.evaluate("localStorage[KEY]")
    browser.evaluate(hours.format(23))
    browser.reload()
    assert browser.evaluate("at('place').textContent") == before[0]
    browser.evaluate(hours.format(25))
    browser.reload()
    assert shown(browser) == ["consent"]
    browser.evaluate(f"localStorage[KEY] = {json.dumps(kept)}")
    browser.reload()
    for _ in range(TOTAL - 10):
        browser.evaluate(ANSWER)
    assert shown(browser) == ["end"]
    assert browser.evaluate("document.getElementById('injected')") is None
    # Finished stays finished, also later than a day.
    text = browser.evaluate("at('answers').textContent")
    browser.evaluate(hours.format(100))
    browser.reload()
    assert shown(browser) == ["end"]
    assert browser.evaluate("at('answers').textContent") == text
    browser.evaluate("at('download').click()")
    end = time.monotonic() + 20
    while not (files := list(tmp_path.glob("answers-*.json"))) and time.monotonic() < end:
        time.sleep(0.1)
    (file,) = files
    assert file.read_text() == text
    person = read_answers(file)
    assert person.page == data_of(page)["page"]
    assert (person.age, person.gender, person.ml, person.xai) == (41, "other", "agree", "strongly disagree")
    assert person.comprehension.choice == "grass", "the first attempt counts"
    assert exclusions([person])[0].startswith("comprehension item: grass instead of sun; median time")
    shares = preferences([person], EMPTY, 99, 0)
    shares = shares[shares["dataset"] == "all"].groupby("against", sort=False)["share"].apply(tuple).to_dict()
    assert shares == {"grad_cam": (1, 0, 0), "l2x_f": (0, 1, 0), "other_image": (0, 0, 1)}
    right = prediction_tests([person], 99, 0).set_index(["dataset", "method"])
    assert right.loc["all", "share_right"].tolist() == [1, 0, 0, 0]
    assert right.loc[("pair", "bla_t"), "guess_level"] == 0.5
    assert right.loc[("many", "bla_t"), "guess_level"] == 0.25
    seen = [(c.dataset, c.image) for c in person.comparisons] + [(p.dataset, p.image) for p in person.predictions]
    assert len(set(seen)) == len(seen), "no image twice"
    assert len(comparisons([person])) == TOTAL - 9
    assert {c.bla_t for c in person.comparisons} == {"left", "right"}


@pytest.mark.slow
def test_sides_and_order_follow_from_the_seed_and_sides_are_balanced(browser):
    plan = "JSON.stringify(questionsOf({}).map(q => [q.dataset.name, q.image.number, q.against, q.bla_t, q.method, q.options]))"
    assert browser.evaluate(plan.format(7)) == browser.evaluate(plan.format(7)) != browser.evaluate(plan.format(8))
    left = browser.evaluate(
        "Array.from({length: 200}, (_, seed) => questionsOf(seed).filter(q => q.bla_t === 'left').length / 25)"
    )
    assert np.mean(left) == pytest.approx(0.5, abs=0.03)
    assert browser.evaluate("[generator(1)(), generator(4294967295)()]") == [mulberry32(1), mulberry32(4294967295)]


def mulberry32(seed):
    """The first random number of a seed."""
    mask = 0xFFFFFFFF
    state = (seed + 0x6D2B79F5) & mask
    t = (state ^ (state >> 15)) * (state | 1) & mask
    t ^= (t + ((t ^ (t >> 7)) * (t | 61) & mask)) & mask
    return ((t ^ (t >> 14)) & mask) / 2**32
