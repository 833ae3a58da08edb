"""Figures of explanations beside their inputs."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from bla.experiments.explanations.figures import explanations, overview
from bla.plotting.style import save_figure
from pipeline.artifacts.images import captions, class_names

RNG = np.random.default_rng(0)


def test_figures_have_a_row_per_map_and_colour_bars_for_logits_and_weights():
    images = RNG.integers(0, 256, (3, 28, 28, 3), dtype=np.uint8)
    logits, hard = -RNG.random((3, 7, 7)), (RNG.random((3, 7, 7)) > 0.5).astype(float)
    figure = explanations(images, logits, RNG.random((3, 7, 7)), hard, ["x", "y", "z"], "heading")
    assert len(figure.axes) == 5 * 3 + 2
    sizes = [axis.get_xlabel() for axis in figure.axes if "cells" in axis.get_xlabel()]
    assert sizes == [f"{int(mask.sum())} of 49 cells" for mask in hard]


def test_the_overview_says_what_each_column_keeps_and_predicts():
    images, hard = RNG.integers(0, 256, (2, 28, 28, 3), dtype=np.uint8), np.zeros((2, 7, 7))
    hard[0, 0, :3], hard[1, 2, 2] = 1, 1
    likely, right = np.array([0.5, 0.987]), np.array([True, False])
    predictions = {key: (["owl", "jay"], likely, right) for key in ("bl", "bla", "own")}
    axes = overview(images, {"bla": hard, "own": hard}, predictions, ["owl", "tit"]).axes
    assert len(axes) == 3 * 2
    assert [axis.get_title() for axis in axes[:2]] == ["owl", "tit"]
    labels = [axis.get_xlabel() for axis in axes]
    assert labels[:4] == ["owl, 50%", "jay, 99%", "3 of 49 cells\nowl, 50%", "1 of 49 cells\njay, 99%"]
    assert [axis.xaxis.label.get_fontweight() for axis in axes[:2]] == ["bold", "normal"]


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("owl", "owl, 50%"),
        ("twelve_chars", "twelve_chars, 50%"),
        ("american bulldog", "american bulldog,\n50%"),
        ("091.American\nThree toed", "091.American\nThree toed, 50%"),
    ],
)
def test_a_long_name_has_a_line_of_its_own_and_neighbours_do_not_touch(name, label):
    images, predictions = np.zeros((6, 28, 28, 3), np.uint8), ([name] * 6, np.full(6, 0.5), np.ones(6, bool))
    figure = overview(images, {}, {"bl": predictions}, [name] * 6)
    assert [axis.get_xlabel() for axis in figure.axes] == [label] * 6
    figure.draw_without_rendering()
    boxes = [axis.xaxis.label.get_window_extent() for axis in figure.axes]
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def test_with_separate_scales_every_image_has_its_own_colour_bars():
    images, maps = RNG.integers(0, 256, (3, 28, 28, 3), dtype=np.uint8), RNG.random((3, 7, 7))
    figure = explanations(images, -maps, maps, np.round(maps), ["x", "y", "z"], "heading", own_scale=True)
    assert len(figure.axes) == 5 * 3 + 2 * 3


def test_long_class_names_become_two_short_lines(tmp_path, monkeypatch):
    names = ["091.American_Three_toed_Woodpecker", "3", "$ and £"]
    (tmp_path / "data/images/birds").mkdir(parents=True)
    table = pd.DataFrame({"label": range(3), "name": names})
    table.to_csv(tmp_path / "data/images/birds/classes.csv", index=False)
    monkeypatch.chdir(tmp_path)
    assert class_names("birds") == names
    assert captions("birds") == ["091.American\nThree toed …", "3", r"\$ and £"]


@pytest.mark.parametrize(
    ("name", "caption"),
    [("$1_to_$5", r"\$1 to \$5"), ("中文类别名", "class 0"), ("<b>&", "<b>&"), ("Ωmega", "Ωmega"), ("ไทย", "class 0")],
)
def test_any_class_name_can_be_drawn_without_a_warning(name, caption, tmp_path, monkeypatch, recwarn):
    (tmp_path / "data/images/odd").mkdir(parents=True)
    pd.DataFrame({"label": [0], "name": [name]}).to_csv(tmp_path / "data/images/odd/classes.csv", index=False)
    monkeypatch.chdir(tmp_path)
    assert captions("odd") == [caption]
    save_figure(overview(np.zeros((1, 28, 28, 3), np.uint8), {}, {"bl": (captions("odd"), np.ones(1), np.ones(1, bool))}, captions("odd")), tmp_path / "x.png", "png")  # fmt: skip
    assert not recwarn.list
