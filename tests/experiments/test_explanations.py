"""Figures of explanations beside their inputs."""

import numpy as np
import pandas as pd

from bla.experiments.explanations.figures import explanations, overview
from pipeline.artifacts.images import captions, class_names

RNG = np.random.default_rng(0)


def test_figures_have_a_row_per_map_and_colour_bars_for_logits_and_weights():
    images = RNG.integers(0, 256, (3, 28, 28, 3), dtype=np.uint8)
    logits, hard = -RNG.random((3, 7, 7)), (RNG.random((3, 7, 7)) > 0.5).astype(float)
    figure = explanations(images, logits, RNG.random((3, 7, 7)), hard, ["x", "y", "z"], "heading")
    assert len(figure.axes) == 5 * 3 + 2
    sizes = [axis.get_xlabel() for axis in figure.axes if "cells" in axis.get_xlabel()]
    assert sizes == [f"{int(mask.sum())} of 49 cells" for mask in hard]
    assert len(overview(images, {"bla": hard, "own": hard}, ["x", "y", "z"]).axes) == 3 * 3


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
