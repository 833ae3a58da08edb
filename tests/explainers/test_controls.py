"""Maps that ignore the classifier."""

import numpy as np
import torch
from scipy import ndimage, stats

from bla.explainers.controls.centre import Centre
from bla.explainers.controls.constant import Constant
from bla.explainers.controls.edges import Edges
from bla.explainers.controls.random import Random

GRID, SIDE = 4, 64


def test_the_constant_map_is_constant(small, images, targets, seeds):
    assert Constant(small).explain(images, targets, seeds).unique().tolist() == [1]


def test_the_random_map_depends_only_on_the_seed_and_the_size_of_the_feature_map(classifier, folded, images, targets):
    seeds = torch.tensor([5, 9, 5])
    maps = Random(classifier.run(0)).explain(images, targets, seeds)
    assert maps.shape == (3, GRID, GRID)
    assert maps.min() >= 0
    assert maps.max() < 1
    assert len(maps[:2].unique()) == 2 * GRID**2
    assert maps[0].equal(maps[2])
    assert Random(folded.run(1)).explain(255 - images, (targets + 1) % 3, seeds).equal(maps)
    many = Random(classifier.run(0)).explain(images[:1].expand(300, -1, -1, -1), torch.zeros(300), torch.arange(300))
    assert stats.kstest(many.flatten(), "uniform").pvalue > 0.001


def test_the_centre_map_is_a_gaussian_around_the_middle(small, targets, seeds):
    maps = Centre(small).explain(torch.zeros(3, 64, 32, 3, dtype=torch.uint8), targets, seeds)
    assert maps.shape == (3, 64, 32)
    for other in (maps.flip(1), maps.flip(2), maps[[1, 2, 0]]):
        torch.testing.assert_close(other, maps)
    assert (maps[0].diff(dim=0)[:31] > 0).all()
    assert (maps[0].diff(dim=1)[:, :15] > 0).all()
    profile = stats.norm(0.5, 0.25).pdf((np.arange(64) + 0.5) / 64)
    np.testing.assert_allclose(maps[0, :, 7] / maps[0, 31, 7], profile / profile[31], rtol=1e-5)
    profile = stats.norm(0.5, 0.25).pdf((np.arange(32) + 0.5) / 32)
    np.testing.assert_allclose(maps[0, 9] / maps[0, 9, 15], profile / profile[15], rtol=1e-5)


def test_edges_are_sobel_and_ignore_the_classifier(small, folded, images, targets, seeds):
    maps = Edges(small).explain(images, targets, seeds)
    grey = images.double().numpy().mean(axis=3)
    expected = [np.hypot(*(ndimage.sobel(one, axis, mode="nearest") / 4 for axis in (0, 1))) for one in grey]
    np.testing.assert_allclose(maps, expected, atol=1e-3)
    assert Edges(folded.run(0)).explain(images, targets, seeds).equal(maps)
    colours = torch.tensor([[9, 200, 31], [0, 0, 0], [255, 255, 255]], dtype=torch.uint8)
    flat = colours[:, None, None].expand(-1, SIDE, SIDE, -1)
    assert Edges(small).explain(flat, targets, seeds).abs().max() < 1e-3


def test_edges_of_a_slope_are_its_grey_levels_per_two_pixels(small):
    slope = (3 * torch.arange(20))[:, None, None].expand(1, 20, 20, 3).to(torch.uint8)
    for image in (slope, slope.transpose(1, 2)):
        edges = Edges(small).explain(image, torch.zeros(1), torch.zeros(1))
        torch.testing.assert_close(edges[0, 1:-1, 1:-1], torch.full((18, 18), 6.0))
