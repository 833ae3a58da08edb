"""Overlays: the colours of an image under an explanation."""

import os
import subprocess
import sys

import matplotlib
import numpy as np
import pytest

from bla.plotting.overlay import overlay, scaled
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


SHEET = """
import sys, pathlib, numpy
from bla.plotting.sheet import contact_sheet, save_sheet
image, values, cells = numpy.zeros((2, 8, 8, 3), numpy.uint8), numpy.ones((2, 2, 2)), numpy.eye(2, dtype=bool)[None].repeat(2, 0)
values[1] = [[0, 1], [2, 3]]
save_sheet(contact_sheet(image, {"a_b": values}, {"a_b": cells}, ["cat_1", "$"]), pathlib.Path(sys.argv[1]))
"""


@pytest.mark.parametrize(
    "line",
    ["text.usetex: True", "figure.facecolor: black", "savefig.facecolor: black", "font.family: monospace"],
)
def test_a_matplotlibrc_of_the_user_changes_no_contact_sheet(line, tmp_path):
    (tmp_path / "matplotlibrc").write_text(line)
    pictures = []
    for variables in ({"MATPLOTLIBRC": str(tmp_path)}, {}):
        target = tmp_path / f"{len(pictures)}.png"
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | variables
        subprocess.run([sys.executable, "-c", SHEET, target], env=environment, check=True, capture_output=True)
        pictures.append(target.read_bytes())
    assert pictures[0] == pictures[1]


@pytest.mark.parametrize(
    ("values", "shares", "constant"),
    [
        ([[1.0, 3], [2, 5]], [[0, 0.5], [0.25, 1]], False),
        ([[0.2, 0.2], [0.2, 0.2 + 1e-9]], [[1, 1], [1, 1]], True),
        ([[0.0, 0], [0, np.nan]], [[1, 1], [1, 1]], False),
    ],
)
def test_a_map_is_scaled_from_its_smallest_to_its_largest_value(values, shares, constant):
    found = scaled(np.array(values))
    np.testing.assert_allclose(found[0], shares)
    assert found[1] is constant
