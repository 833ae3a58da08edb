"""I-GOS and iGOS++: the objective by hand and by differences, masks that are known, and independence of the batch."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import nn
from torch.nn.functional import interpolate

from bla.base.errors import BlaError
from bla.explainers.mask_optimisation import (
    EDGE_SCALE,
    Objective,
    bilateral_variation,
    enlarged,
    optimise,
    total_variation,
)
from bla.explainers.optimised.i_gos import IGos
from bla.explainers.optimised.i_gos_pp import IGosPP
from bla.method.modules import Head
from bla.networks.classifier import Classifier

SIDE = 8
REGION = torch.zeros(SIDE, SIDE, dtype=torch.bool)
REGION[2:4, 3:6] = True
FEW = {"size": 5, "iterations": 4, "points": 3, "area": 0.01, "variation": 0.1}


class Brightness(nn.Module):
    """A backbone with one feature: the mean brightness of a region, in [0, 1]."""

    def __init__(self, region):
        super().__init__()
        self.region = region
        self.register_buffer("mean", torch.zeros(3, 1, 1))
        self.register_buffer("divisor", torch.ones(3, 1, 1))

    def feature_map(self, images):
        return images[:, self.region].float().mean(dim=(1, 2))[:, None, None, None].expand(-1, -1, 2, 2) / 255


def bright(slope, bias, region=REGION):
    """The probability of class 0 is the sigmoid of slope * brightness + bias."""
    return Classifier(Brightness(region), Head(torch.tensor([[[slope], [0.0]]]), torch.tensor([[bias, 0.0]]))).eval()


def explained(kind, classifier, images=1, **options):
    """Maps of white images on a black background, without noise and total variation."""
    settings = kind.Settings(size=SIDE, noise=0, variation=0, background="black", **options)
    white = torch.full((images, SIDE, SIDE, 3), 255, dtype=torch.uint8)
    return kind(classifier, settings).explain(white, torch.zeros(images, dtype=torch.int64), torch.arange(images))


@pytest.mark.parametrize("kind", [IGos, IGosPP])
def test_the_mask_of_a_classifier_that_sees_one_region_is_that_region(kind):
    """Outside nothing changes the score, so the area is smallest at M = 1; inside the score falls faster than the area rises."""
    maps = explained(kind, bright(4.0, -2.0), area=0.1)
    torch.testing.assert_close(maps[0], REGION.float())


def test_a_probability_that_is_flat_at_the_image_still_has_an_integrated_gradient():
    """A path with one point has the gradient at the image, which is too flat to leave M = 1."""
    saturated = bright(30.0, -15.0)
    pixels = torch.full((1, SIDE, SIDE, 3), 255.0)
    assert saturated.pixel_gradient(pixels, torch.tensor([0]))[1].sum() * 255 < 2e-5
    (found,) = explained(IGos, saturated, area=0.1)
    assert (found[REGION] > 0.5).all()
    assert (found[~REGION] == 0).all()
    assert (explained(IGos, saturated, area=0.1, points=1) == 0).all()


@pytest.mark.parametrize(("slope", "bias", "area"), [(4.0, -5.0, 0.3), (3.0, -4.0, 0.4), (5.0, -6.0, 0.3)])
def test_where_score_and_area_balance_the_mask_is_their_minimum(slope, bias, area):
    """All cells of the region have one value m. The sigmoid is convex there, so that the minimum is unique."""
    points, share = 15, REGION.float().mean().item()

    def loss(m):
        path = [1 / (1 + math.exp(-slope * m * p / points - bias)) for p in range(1, points + 1)]
        return np.mean(path) + area * share * (1 - m)

    best = minimize_scalar(loss, bounds=(0, 1), method="bounded", options={"xatol": 1e-10}).x
    assert 0.02 < best < 0.98, "the minimum lies at a bound"
    maps = explained(IGos, bright(slope, bias), area=area, iterations=200, first_step=100)
    np.testing.assert_allclose(1 - maps[0][REGION], best, atol=2e-3)
    assert (maps[0][~REGION] == 0).all()


def test_total_variation_by_hand():
    mask = torch.tensor([[[0.0, 1.0, 1.0], [0.5, 1.0, 0.0]]])
    down, across = (0.25 + 0 + 1) / 3, (1 + 0 + 0.25 + 1) / 4
    assert total_variation(mask, mask).item() == pytest.approx(down + across)
    assert total_variation(torch.full((1, 4, 4), 0.3), mask).item() == 0


def test_bilateral_variation_by_hand():
    """Where the image is flat the enlarged mask counts fully; over an edge of difference d it counts exp(-d^2 / 0.01)."""
    mask = torch.tensor([[[0.0, 1.0], [0.0, 1.0]]])
    flat, edge = torch.zeros(2, 1, 2, 2, 3)
    edge[:, :, 1, 0] = 0.1  # one channel of three
    assert bilateral_variation(mask, flat).item() == pytest.approx((1 + 1) / 2)
    assert bilateral_variation(mask, edge).item() == pytest.approx((1 + (2 + math.exp(-0.01 / EDGE_SCALE)) / 3) / 2)
    turned = bilateral_variation(mask.transpose(1, 2), edge.transpose(1, 2))
    assert turned.item() == pytest.approx(bilateral_variation(mask, edge).item())


def test_masks_are_enlarged_with_aligned_corners():
    mask = torch.rand(1, 1, 3, 3, dtype=torch.float64)
    large = enlarged(mask, (9, 5))[0, 0]
    torch.testing.assert_close(large[::4, ::2], mask[0, 0])
    assert large[2, 0].item() == pytest.approx((mask[0, 0, 0, 0] + mask[0, 0, 1, 0]).item() / 2)


def objective(kind, classifier, images, targets, **options):
    settings = kind.Settings(**FEW | options)
    return Objective(classifier, images, targets, torch.arange(len(images)), settings, kind.paths, kind.variation)


@torch.no_grad()
def test_the_objective_of_i_gos_pp_is_the_formula(small, images, targets):
    subject = objective(IGosPP, small, images, targets, area=0.7, variation=3, noise=0.1)
    rows, generator = torch.tensor([2, 0]), torch.Generator().manual_seed(0)
    masks = torch.rand(2, 2, 5, 5, generator=generator, dtype=torch.float64)
    noise = subject.noise(rows, 1)
    for row, mask, drawn, value in zip(rows, masks, noise, subject.value(masks, rows, noise), strict=True):
        image, behind = images[row].float(), subject.behind[row]
        first, second = interpolate(mask[None], (64, 64), mode="bilinear", align_corners=True)[0].float()

        def score(begin, end, share, drawn=drawn, row=row):
            pixels = [begin + p / 3 * share[..., None] * (end - begin) + drawn[p - 1] for p in (1, 2, 3)]
            return small(torch.stack(pixels))[0].softmax(dim=1)[:, targets[row]].mean().item()

        scores = score(behind, image, first) - score(image, behind, second)
        scores += score(behind, image, first * second) - score(image, behind, first * second)
        product = mask[:1] * mask[1:]
        rough = bilateral_variation(product, subject.normalised[row : row + 1]).item()
        assert value.item() == pytest.approx(scores / 2 + 0.7 * (1 - product).mean().item() + 3 * rough, abs=1e-5)


@pytest.mark.parametrize("kind", [IGos, IGosPP])
@pytest.mark.parametrize("background", ["blur", "black", "mean"])
def test_the_gradient_is_that_of_the_objective(kind, background, small, images, targets):
    subject = objective(kind, small, images, targets, background=background, noise=0.1)
    rows, generator = torch.tensor([1, 2]), torch.Generator().manual_seed(1)
    masks = torch.rand(2, kind.masks, 5, 5, generator=generator, dtype=torch.float64) * 0.8 + 0.1
    noise = subject.noise(rows, 0)
    value, gradient = subject.value_and_gradient(masks, rows, noise)
    torch.testing.assert_close(value, subject.value(masks, rows, noise), rtol=1e-5, atol=1e-6)
    direction, size = torch.randn(masks.shape, generator=generator, dtype=torch.float64), 0.005
    change = [subject.value(masks + sign * size * direction, rows, noise) for sign in (1, -1)]
    slope = (change[0] - change[1]) / (2 * size)
    torch.testing.assert_close((gradient * direction).sum(dim=(1, 2, 3)), slope, rtol=0.02, atol=1e-3)


def test_every_step_lowers_the_objective_of_its_image(small, images, targets):
    subject = objective(IGosPP, small, images, targets, noise=0)
    masks = torch.ones(3, 2, 5, 5, dtype=torch.float64)
    rows, before = torch.arange(3), None
    for iterations in (1, 2, 4):
        subject = objective(IGosPP, small, images, targets, noise=0, iterations=iterations)
        masks = optimise(subject, 2)
        value = subject.value(masks, rows, subject.noise(rows, 0))
        assert before is None or (value <= before).all()
        before = value
    assert (before < subject.value(torch.ones_like(masks), rows, subject.noise(rows, 0))).all()
    assert ((masks >= 0) & (masks <= 1)).all()


@pytest.mark.parametrize("kind", [IGos, IGosPP])
def test_maps_are_exactly_the_same_in_any_batch_and_order(kind, small, images, targets, seeds):
    method = kind(small, kind.Settings(**FEW))
    maps = method.explain(images, targets, seeds)
    order = torch.tensor([2, 0])
    assert method.explain(images[order], targets[order], seeds[order]).equal(maps[order])
    assert not method.explain(images, targets, seeds + 1).equal(maps)


def test_an_image_that_is_done_leaves_the_batch():
    """So a batch costs as many passes as its images one by one. A black image on black is done at once."""
    classifier = bright(4.0, -5.0)
    method = IGos(
        classifier, IGos.Settings(size=SIDE, noise=0, variation=0, background="black", area=0.3, iterations=90)
    )
    greys = torch.tensor([255, 0, 200])[:, None, None, None].expand(-1, SIDE, SIDE, 3).to(torch.uint8)

    def passes(*rows):
        before = classifier.forwards, classifier.backwards
        method.explain(greys[list(rows)], torch.zeros(len(rows), dtype=torch.int64), torch.arange(len(rows)))
        return classifier.forwards - before[0], classifier.backwards - before[1]

    alone = [passes(row) for row in range(3)]
    assert alone[1] == (15, 15)
    assert alone[0] != alone[2]
    assert all(backwards < 90 * 15 for _, backwards in alone)
    assert passes(0, 1, 2) == tuple(np.sum(alone, axis=0))


@pytest.mark.parametrize("kind", [IGos, IGosPP])
def test_the_number_of_gradients_is_that_of_the_published_code_as_it_runs(kind):
    """20 iterations of 15 points; the names of its command line say the opposite."""
    settings = kind.Settings()
    assert (settings.iterations, settings.points) == (20, 15)
    assert settings.iterations * settings.points * len(kind.paths) == {IGos: 300, IGosPP: 1200}[kind]


def test_a_long_step_that_the_penalty_rules_out_takes_no_pass(small, images, targets):
    """The bound is below the objective, also where deletions have the probability 0 and insertions 1."""
    subject = objective(IGosPP, small, images, targets)
    masks = torch.rand(3, 2, 5, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    rows = torch.arange(3)
    before = small.forwards
    bound = subject.lowest(masks, rows)
    assert small.forwards == before
    assert (bound < subject.value(masks, rows, subject.noise(rows, 0))).all()
    zero, one = torch.zeros(3 * 4 * 3), torch.ones(3 * 4 * 3)
    extreme = torch.where((torch.arange(36) // 3 % 4) % 2 == 0, zero, one)
    torch.testing.assert_close(subject._score(extreme) + subject._penalty(masks, rows), bound)


def test_noise_has_its_standard_deviation_in_normalised_pixels_and_belongs_to_image_and_iteration(
    small, images, targets
):
    subject = objective(IGos, small, images, targets, noise=0.2)
    noise = subject.noise(torch.tensor([0, 2]), 3)
    assert noise.std().item() / 60 == pytest.approx(0.2, rel=0.02)
    assert subject.noise(torch.tensor([2]), 3)[0].equal(noise[1])
    assert not subject.noise(torch.tensor([2]), 4)[0].equal(noise[1])


def test_a_mask_that_is_coarser_than_the_feature_map_is_refused(small, images, targets, seeds):
    with pytest.raises(BlaError, match=r"size: a mask of 3 x 3 is coarser.* 4 or more"):
        IGos(small, IGos.Settings(size=3)).explain(images, targets, seeds)


@pytest.mark.parametrize("kind", [IGos, IGosPP])
@pytest.mark.parametrize(("slope", "bias"), [(math.nan, 0.0), (math.inf, 0.0), (1.0, math.nan)])
def test_class_scores_that_are_not_finite_are_one_message(kind, slope, bias):
    with pytest.raises(BlaError, match=r"class scores or their gradients are not finite"):
        explained(kind, bright(slope, bias))


def test_a_gradient_that_is_not_finite_is_one_message():
    class Steep(Brightness):
        def feature_map(self, images):
            """The root of 0 is 0, and its slope infinite."""
            seen = super().feature_map(images)
            return seen + (seen - seen).sqrt()

    classifier = bright(4.0, -2.0)
    classifier.extractor = Steep(REGION)
    with pytest.raises(BlaError, match=r"class scores or their gradients are not finite"):
        explained(IGos, classifier)
