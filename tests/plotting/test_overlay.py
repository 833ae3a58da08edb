"""Overlays: the colours of an image under an explanation."""

import matplotlib
import numpy as np
import pytest

from bla.plotting.overlay import overlay
from bla.plotting.sheet import contact_sheet, scaled_overlay

RNG = np.random.default_rng(0)


def test_an_overlay_is_half_image_and_half_turbo_colours_of_the_scaled_mask():
    image = RNG.integers(0, 256, (14, 14, 3), dtype=np.uint8)
    everywhere = overlay(image, np.full((7, 7), 0.25))
    np.testing.assert_allclose(everywhere, 0.5 * image / 255 + 0.5 * np.array(matplotlib.colormaps["turbo"](1.0)[:3]))


def test_an_empty_explanation_has_the_lowest_colour_everywhere():
    lowest = 0.5 * np.array(matplotlib.colormaps["turbo"](0.0)[:3])
    found = overlay(np.zeros((14, 14, 3), np.uint8), np.zeros((7, 7)))
    np.testing.assert_allclose(found, np.broadcast_to(lowest, (14, 14, 3)))


def test_an_overlay_covers_an_image_that_is_not_square():
    lowest, highest = (0.5 * np.array(matplotlib.colormaps["turbo"](at)[:3]) for at in (0.0, 1.0))
    found = overlay(np.zeros((4, 16, 3), np.uint8), np.array([[1.0, 0, 0, 0]]))
    assert found.shape == (4, 16, 3)
    np.testing.assert_allclose(found[:, :2], np.broadcast_to(highest, (4, 2, 3)))
    np.testing.assert_allclose(found[:, 6:], np.broadcast_to(lowest, (4, 10, 3)))


@pytest.mark.parametrize(("noise", "constant"), [(0, True), (3e-8, True), (4e-7, True), (1e-6, False), (1e-3, False)])
def test_a_map_whose_values_differ_by_rounding_alone_is_constant(noise, constant):
    """The noise is relative to the map's 0.02; what counts as equal differs by less than 2^-20 = 9.5e-7."""
    values = 0.02 * (1 + noise * np.array([[0.0, 1], [-1, 0]]))
    image = np.zeros((4, 4, 3), np.uint8)
    lowest, highest = (0.5 * np.array(matplotlib.colormaps["turbo"](at)[:3]) for at in (0.0, 1.0))
    found = scaled_overlay(image, values)
    np.testing.assert_allclose(found[0, 3], highest)
    np.testing.assert_allclose(found[3, 0], highest if constant else lowest)
    assert np.ptp(found, axis=(0, 1)).any() != constant
    figure = contact_sheet(image[None], {"CAM": values[None]}, {"CAM": np.zeros((1, 2, 2), bool)}, ["a cat"])
    assert figure.axes[1].get_xlabel() == ("constant" if constant else "")


@pytest.mark.parametrize("values", [[[np.nan, 0.3], [0.1, 0.2]], [[0.2, 0.2], [0.2, np.nan]], [[np.nan] * 2] * 2])
def test_a_map_with_nan_is_not_labelled_constant(values):
    image, cells = np.zeros((1, 4, 4, 3), np.uint8), np.zeros((1, 2, 2), bool)
    figure = contact_sheet(image, {"CAM": np.array([values])}, {"CAM": cells}, ["a cat"])
    assert figure.axes[1].get_xlabel() == ""
