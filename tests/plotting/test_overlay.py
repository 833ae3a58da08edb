"""An image under an explanation, and which colours it then has."""

import matplotlib
import numpy as np

from bla.plotting.overlay import overlay

RNG = np.random.default_rng(0)


def test_an_overlay_is_half_image_and_half_turbo_of_the_mask_scaled_to_its_maximum():
    image = RNG.integers(0, 256, (14, 14, 3), dtype=np.uint8)
    everywhere = overlay(image, np.full((7, 7), 0.25))
    np.testing.assert_allclose(everywhere, 0.5 * image / 255 + 0.5 * np.array(matplotlib.colormaps["turbo"](1.0)[:3]))


def test_an_explanation_without_any_cell_is_the_lowest_colour_everywhere():
    lowest = 0.5 * np.array(matplotlib.colormaps["turbo"](0.0)[:3])
    found = overlay(np.zeros((14, 14, 3), np.uint8), np.zeros((7, 7)))
    np.testing.assert_allclose(found, np.broadcast_to(lowest, (14, 14, 3)))
