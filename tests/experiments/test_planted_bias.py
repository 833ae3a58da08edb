"""The planted bias: the cue's pixels, and the table by hand, against scipy, and on simulated classifiers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import pyplot
from scipy import stats

from bla.base.specs import PaintedBirds
from bla.datasets.painted_birds import paint, scenes
from bla.experiments.related_methods.planted_bias.cue import COLOUR, paint_cue
from bla.experiments.related_methods.planted_bias.figures import chart
from bla.experiments.related_methods.planted_bias.tables import (
    COLUMNS,
    MASS,
    SHARE,
    bias_table,
    comparison,
    mass_on_the_cue,
    use_of_the_cue,
)
from bla.metrics.interventions import weight_on_part

SPEC = PaintedBirds(
    kind="painted_birds", train_images=16, test_images=16, image_size=64, bird_size=(0.4, 0.6), leaves=3, loose_parts=1, noise=0.03
)  # fmt: skip


@pytest.fixture(scope="module")
def birds():
    return np.stack([paint(scene)[0] for scene in scenes(SPEC, "test", seed=0)[:3]])


def test_a_scene_with_the_cue_equals_the_original_in_every_pixel_outside_the_cue(birds):
    cued, masks = paint_cue(birds, 0.2, [5, 6, 7])
    changed = (cued != birds).any(axis=3)
    for number in range(len(birds)):
        assert masks[number].any()
        y, x = np.nonzero(masks[number])
        centre, radius = (y.mean(), x.mean()), 0.2 * 64 / 2
        distance = np.hypot(*(np.indices((64, 64)) - np.array(centre)[:, None, None]))
        assert not changed[number][distance > radius + 1.2].any()
        assert (cued[number][masks[number]] != birds[number][masks[number]]).any(axis=1).mean() > 0.95
    assert birds.flags.writeable  # and the originals are as they were
    np.testing.assert_array_equal(birds, np.stack([paint(scene)[0] for scene in scenes(SPEC, "test", seed=0)[:3]]))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**62), st.floats(0.1, 0.5), st.sampled_from([(32, 32), (40, 64), (65, 33)]))
def test_the_disc_lies_inside_and_has_its_area(seed, size, sides):
    image = np.zeros((1, *sides, 3), np.uint8)
    cued, masks = paint_cue(image, size, [seed])
    area = np.pi * (size * min(sides) / 2) ** 2
    assert masks.sum() == pytest.approx(area, rel=0.1, abs=4)
    colours = cued[0][masks[0]].astype(float)
    middle = colours[colours.sum(axis=1).argmax()]
    shade = middle / COLOUR
    assert np.ptp(shade) < 0.06
    assert 0.8 < shade[0] < 1.07
    y, x = np.nonzero(masks[0])
    for at, side in ((y, sides[0]), (x, sides[1])):  # not cut off: it is as wide as its diameter
        assert np.ptp(at) + 1 == pytest.approx(size * min(sides), abs=1.6)
        assert 0 <= at.min() <= at.max() < side


def test_a_cue_depends_on_the_seed_of_its_image_alone(birds):
    every, masks = paint_cue(birds, 0.2, [5, 6, 7])
    alone, mask = paint_cue(birds[1:2], 0.2, [6])
    np.testing.assert_array_equal(every[1], alone[0])
    np.testing.assert_array_equal(masks[1], mask[0])
    assert not np.array_equal(masks[0], masks[1])
    other = paint_cue(birds[[0]], 0.2, [6])[1][0]
    np.testing.assert_array_equal(other, masks[1])  # not of the pixels


def test_a_constant_map_has_the_share_of_the_area_and_a_map_of_the_cue_nearly_all():
    masks = paint_cue(np.zeros((1, 64, 64, 3), np.uint8), 0.3, [1])[1]
    area = masks.mean(axis=(1, 2))
    assert weight_on_part(np.ones((1, 8, 8)), masks) == pytest.approx(area)
    cells = masks.reshape(1, 8, 8, 8, 8).mean(axis=(2, 4))
    assert weight_on_part((cells == 1).astype(float), masks) == pytest.approx(1)


def test_runs_are_averaged_within_an_image_and_tested_over_images():
    values = np.array([[0.2, 0.4, 0.6, 0.9, 0.5], [0.4, 0.6, 0.6, 0.7, 0.7]])
    others = np.array([[0.1, 0.1, 0.2, 0.3, 0.9]])
    row = comparison(MASS, "x", values, others)
    first = np.array([0.3, 0.5, 0.6, 0.8, 0.6])
    assert (row["n_runs"], row["n_images"]) == (2, 5)
    assert row["value"] == pytest.approx(first.mean())
    assert row["standard_error"] == pytest.approx(first.std(ddof=1) / 5**0.5)
    assert row["deviation_runs"] == pytest.approx(np.std([0.52, 0.6], ddof=1))
    assert row["difference"] == pytest.approx((first - others[0]).mean())
    expected = stats.wilcoxon((first - others[0]).round(9), method="exact").pvalue
    assert row["p"] == pytest.approx(expected)
    assert row["p_smallest"] == 2**-4


def test_images_without_a_mass_do_not_count():
    nan = np.nan
    row = comparison(
        MASS, "x", np.array([[0.2, nan, 0.4, nan], [0.4, 0.6, nan, nan]]), np.array([[0.1, 0.1, nan, 0.1]])
    )
    assert row["n_images"] == 2
    assert row["value"] == pytest.approx((0.3 + 0.6) / 2)
    assert row["other"] == pytest.approx(0.1)
    empty = comparison(MASS, "x", np.full((2, 3), nan), np.zeros((1, 3)))
    assert empty["n_images"] == 0
    assert np.isnan(empty["p"])
    assert bias_table([empty | {"dataset": "a"}])["p_holm"].isna().all()


def test_equal_maps_do_not_differ():
    same = np.random.default_rng(0).random((3, 8))
    row = comparison(MASS, "x", same, same)
    assert (row["difference"], row["p"]) == (0, 1)


def table(of_biased: float, images: int = 40, runs: int = 3):
    """Simulated: a classifier that uses the cue, a method with `of_biased` more mass on it, and a method that ignores it."""
    rng = np.random.default_rng(1)
    cue, clean = rng.random((runs, images)) < 0.8, rng.random((runs, images)) < 0.05
    rows = [{"method": "bl", "title": "BL"} | row for row in use_of_the_cue({"biased": cue, "without_cue": clean, "unbiased": clean})]  # fmt: skip
    area = np.full(images, 0.02)
    for name, more in (("cam", of_biased), ("constant", 0)):
        plain = area + (rng.normal(0, 0.005, (runs, images)) if name == "cam" else np.zeros((runs, images)))
        shifted = plain + more * rng.random((runs, images))
        rows += [{"method": name, "title": name} | row for row in mass_on_the_cue(shifted, plain, area)]
    return bias_table([{"dataset": "a"} | row for row in rows])


def test_a_method_that_shows_the_cue_is_told_from_one_that_does_not():
    result = table(0.3)
    assert list(result) == COLUMNS
    assert len(result) == 2 + 2 * 2
    p = result.set_index(["method", "against"])["p_holm"]
    assert (p["bl"] < 1e-3).all()
    assert (p["cam"] < 1e-3).all()
    assert (p["constant"] == 1).all()
    assert (p.drop("constant") >= result.set_index(["method", "against"])["p"].drop("constant")).all()


def test_all_comparisons_of_a_dataset_are_one_family():
    result = table(0.3)
    p = np.sort(result["p"])
    adjusted = np.minimum(np.maximum.accumulate(p * np.arange(len(p), 0, -1)), 1)
    np.testing.assert_allclose(np.sort(result["p_holm"]), adjusted)


def test_the_picture_has_every_method_and_the_share_of_the_area():
    figure = chart(table(0.3))
    (axis,) = figure.axes
    assert [text.get_text() for text in axis.get_yticklabels()] == ["cam", "constant"]
    assert axis.lines[-1].get_xdata()[0] == pytest.approx(0.02)
    assert "from" in axis.get_title()
    assert len(chart(bias_table([])).axes) == 1
    pyplot.close("all")
    assert {SHARE, MASS} == set(table(0.3)["measure"])
