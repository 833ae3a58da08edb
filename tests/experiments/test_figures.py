"""What the pictures show, checked by numbers where numbers can tell."""

import hashlib

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import interpolate

from bla.base.paper import COLUMNS
from bla.experiments.unstated_choices import tables as fidelity
from bla.plotting.figures import _upsample, choices, explanations, figure_three, overlay, overview, save_figure
from pipeline.artifacts import pictures

RNG = np.random.default_rng(0)
RUNS = pd.DataFrame(
    [
        {"dataset": d, "variant": v, "run": r, "accuracy": 0.9 - i / 50 + r / 1000, "loss": 0.3 + i / 10 + r / 100}
        for d in ("a", "b")
        for i, v in enumerate(("bl", "bla", "bla_hot", "bl_plus"))
        for r in range(5)
    ]
)


def test_masks_are_upsampled_as_torch_does_bilinearly():
    small = RNG.random((7, 7))
    wanted = interpolate(torch.from_numpy(small)[None, None], (112, 112), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(_upsample(small, 112), wanted[0, 0].numpy(), atol=1e-12)


def test_an_overlay_is_half_image_and_half_turbo_of_the_mask_scaled_to_its_maximum():
    image = RNG.integers(0, 256, (14, 14, 3), dtype=np.uint8)
    everywhere = overlay(image, np.full((7, 7), 0.25))
    np.testing.assert_allclose(everywhere, 0.5 * image / 255 + 0.5 * np.array(matplotlib.colormaps["turbo"](1.0)[:3]))


def test_figure_three_shows_every_run_and_the_baselines_median():
    figure = figure_three(RUNS)
    assert len(figure.axes) == 4
    for axis, (dataset, measure) in zip(figure.axes, [("a", 0), ("b", 0), ("a", 1), ("b", 1)], strict=True):
        own = RUNS[(RUNS["dataset"] == dataset) & (RUNS["variant"] != "bl")]
        values = 1 - own["accuracy"] if measure == 0 else own["loss"]
        dots = np.concatenate(
            [np.asarray(c.get_offsets())[:, 1] for c in axis.collections if len(c.get_offsets()) == 5]
        )
        np.testing.assert_allclose(np.sort(dots), np.sort(values))
        bl = RUNS[(RUNS["dataset"] == dataset) & (RUNS["variant"] == "bl")]
        median = (1 - bl["accuracy"] if measure == 0 else bl["loss"]).median()
        assert any(line.get_linestyle() == "--" and np.allclose(line.get_ydata(), median) for line in axis.lines)
        assert "n = 5 runs" in axis.get_title()
        assert [tick.get_text() for tick in axis.get_xticklabels()] == ["BLA", "bla_hot", "BL+"]


def test_pictures_have_a_row_a_map_and_a_colour_bar_for_logits_and_weights():
    images = RNG.integers(0, 256, (3, 28, 28, 3), dtype=np.uint8)
    logits, hard = -RNG.random((3, 7, 7)), (RNG.random((3, 7, 7)) > 0.5).astype(float)
    figure = explanations(images, logits, RNG.random((3, 7, 7)), hard, ["x", "y", "z"], "heading")
    assert len(figure.axes) == 5 * 3 + 2
    sizes = [axis.get_xlabel() for axis in figure.axes if "cells" in axis.get_xlabel()]
    assert sizes == [f"{int(mask.sum())} of 49 cells" for mask in hard]
    assert len(overview(images, {"bla": hard, "own": hard}, ["x", "y", "z"]).axes) == 3 * 3


def changes(*datasets):
    """Effects of every choice on random runs of some columns of these datasets."""
    names = ("bl", "bl_plus", "bla_t", "bla_t_renormalise", "bla_t_indicator", "bla_ph", "bla_ph_reloaded")
    rows = [
        {"dataset": d, "normalisation": n, "stochastic_depth": s, "draws": 1, "column": c, "run": r}
        | dict(zip(fidelity.MEASURES, RNG.random(3), strict=True))
        | ({"explanation_size": np.nan} if c.startswith("bl_") or c == "bl" else {})
        for d in datasets for n in fidelity.NORMALISATIONS for s in fidelity.STOCHASTIC_DEPTHS for c in names for r in range(4)
    ]  # fmt: skip
    keys = ["dataset", "normalisation", "stochastic_depth", "draws", "column", "run"]
    return fidelity.effects(pd.DataFrame(rows, columns=[*keys, *fidelity.MEASURES]))


@pytest.mark.parametrize("datasets", [("a",), ("a", "b")], ids=len)
def test_choices_have_a_row_a_dataset_and_show_every_main_effect(datasets):
    effects = changes(*datasets)
    figure = choices(effects)
    assert len(figure.axes) == 3 * len(datasets)
    labels = ["change in accuracy", "change in loss (nats)", "change in explanation size (cells)"]
    for number, axis in enumerate(figure.axes):
        dataset, measure = datasets[number // 3], fidelity.MEASURES[number % 3]
        main = effects[
            (effects["dataset"] == dataset) & (effects["measure"] == measure) & (effects["setting"] == "all")
        ]
        assert axis.get_xlabel() == labels[number % 3]
        drawn = np.concatenate([bar.lines[0].get_xdata(orig=False) for bar in axis.containers])
        np.testing.assert_allclose(np.sort(drawn), np.sort(main["difference"]))
        ends = [bar.lines[2][0].get_segments()[0][:, 0] for bar in axis.containers]
        np.testing.assert_allclose(np.sort(ends, axis=0), np.sort(main[["low", "high"]], axis=0))
        assert axis.get_title() == (f"{dataset} (n = 4 runs)" if number % 3 == 1 else "")
    told = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert len(told) == len(fidelity.CHOICES)
    assert told[1] == "stochastic depth:\n0.0 → 0.2"
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {COLUMNS[c] for c in set(effects["column"])}


def test_choices_say_so_where_there_is_nothing_to_show():
    figure = choices(changes())
    assert figure.get_suptitle() == "None of fidelity.datasets is among the datasets that ran"
    assert not any(axis.containers for axis in figure.axes)


def test_choices_draw_what_the_csv_holds(tmp_path):
    effects = changes("a")
    effects.to_csv(tmp_path / "effects.csv", index=False)
    save_figure(choices(effects), tmp_path / "a.png", "png")
    save_figure(choices(pd.read_csv(tmp_path / "effects.csv")), tmp_path / "b.png", "png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("kind", ["svg", "png"])
@pytest.mark.parametrize("drawn", [figure_three, choices], ids=lambda f: f.__name__)
def test_equal_figures_are_equal_bytes(kind, drawn, tmp_path):
    hashes, shown = set(), RUNS if drawn is figure_three else changes("a")
    for number in range(2):
        path = tmp_path / f"{number}.{kind}"
        save_figure(drawn(shown), path, kind)
        hashes.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(hashes) == 1


def test_long_class_names_become_two_short_lines(tmp_path, monkeypatch):
    names = ["091.American_Three_toed_Woodpecker", "3", "$ and £"]
    (tmp_path / "birds").mkdir()
    pd.DataFrame({"label": range(3), "name": names}).to_csv(tmp_path / "birds/classes.csv", index=False)
    monkeypatch.setattr(pictures, "IMAGES", tmp_path)
    assert pictures.class_names("birds") == ["091.American\nThree toed …", "3", r"\$ and £"]
