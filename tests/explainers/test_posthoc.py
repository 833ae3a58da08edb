"""CAM, Grad-CAM, Grad-CAM++, Score-CAM, LIME and RISE against loops from the papers' formulas."""

import itertools

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn
from torch.nn.functional import avg_pool2d

from bla.explainers.posthoc.cam import CAM, cam
from bla.explainers.posthoc.grad_cam import GradCAM
from bla.explainers.posthoc.grad_cam_pp import GradCAMPP
from bla.explainers.posthoc.lime import LIME, draw_patterns, solver
from bla.explainers.posthoc.rise import RISE, random_masks
from bla.explainers.posthoc.score_cam import ScoreCAM
from bla.method.modules import Head
from bla.networks.classifier import Classifier

GRID, SIDE = 4, 64


class Coloured(nn.Module):
    """A backbone whose features are the mean colours of the patches."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(3, 1, 1))

    def feature_map(self, images):
        return avg_pool2d(images.permute(0, 3, 1, 2).float() / 255, SIDE // GRID)


def probabilities(classifier, features):
    """Softmax of the head on average-pooled features `[C, h, w]`, in numpy."""
    pooled = features.double().numpy().mean(axis=(1, 2))
    logits = classifier.tail.weight[0].double().numpy() @ pooled + classifier.tail.bias[0].double().numpy()
    return np.exp(logits) / np.exp(logits).sum()


# LIME


def test_patterns_show_patches_with_the_given_probability():
    shown = draw_patterns(4000, 49, 0.3, seed=3).double().mean()
    assert abs(shown - 0.3) < 5 * (0.3 * 0.7 / (4000 * 49)) ** 0.5
    assert draw_patterns(5, 9, 0.5, 1).equal(draw_patterns(5, 9, 0.5, 1))
    assert not draw_patterns(5, 9, 0.5, 1).equal(draw_patterns(5, 9, 0.5, 2))


def test_the_solver_recovers_the_coefficients_of_a_linear_function():
    patterns = draw_patterns(40, 6, 0.5, 0)
    weights = torch.tensor([[1.0, 0, -2, 0.5, 3, 0], [0, 0, 0, 0, 0, 1]], dtype=torch.double)
    values = patterns.double() @ weights.T + torch.tensor([0.7, -4.0])
    torch.testing.assert_close(values.T @ solver(patterns).T, weights, atol=1e-10, rtol=0)


def test_patches_that_are_always_shown_get_no_coefficient():
    patterns = draw_patterns(30, 5, 0.5, 0)
    patterns[:, 2] = True
    coefficients = torch.rand(30, dtype=torch.double) @ solver(patterns).T
    assert coefficients.isfinite().all()
    assert abs(coefficients[2]) < 1e-12


def test_images_with_equal_seeds_share_patterns_and_give_the_same_maps_as_alone(small, images, targets):
    lime = LIME(small, LIME.Settings(patterns=50))
    shared = lime.explain(images, targets, torch.full((3,), 4))
    mixed = lime.explain(images, targets, torch.tensor([4, 8, 4]))
    for number in range(3):
        one = slice(number, number + 1)
        alone = lime.explain(images[one], targets[one], torch.tensor([4]))
        torch.testing.assert_close(shared[one], alone, atol=1e-6, rtol=1e-5)
        if number != 1:
            torch.testing.assert_close(mixed[one], alone, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(mixed[1], shared[1])
    again = lime.explain(images[:1].repeat(2, 1, 1, 1), targets[:1].repeat(2), torch.tensor([4, 4]))
    assert torch.allclose(again[0], again[1])


def test_shared_patterns_and_those_of_each_image_agree_within_their_standard_errors(small, images, targets):
    """All 48 coefficients agree within 5 standard errors, estimated from the residuals of both fits."""
    count, own = 800, [21, 22, 23]
    lime = LIME(small, LIME.Settings(patterns=count, output="logit"))
    shared, each = (lime.explain(images, targets, torch.tensor(seeds)) for seeds in ([20] * 3, own))
    for number in range(3):
        errors = []
        for seed in (20, own[number]):
            patterns = draw_patterns(count, GRID * GRID, 0.5, seed)
            cells = patterns.view(-1, GRID, GRID).repeat_interleave(16, dim=1).repeat_interleave(16, dim=2)
            values = small(images[number] * cells[..., None])[0, :, targets[number]].double().numpy()
            design = np.column_stack([np.ones(count), patterns])
            solution, rest, *_ = np.linalg.lstsq(design, values, rcond=None)
            errors.append(rest[0] / (count - 17) * np.diag(np.linalg.inv(design.T @ design))[1:])
        error = np.sqrt(errors[0] + errors[1])
        difference = (shared[number] - each[number]).flatten().numpy()
        assert (np.abs(difference) < 5 * error).all()
        assert (np.abs(difference) > 0.1 * error).any()
        assert (np.abs(solution[1:]) > 10 * error).any()


@pytest.mark.parametrize("seeds", [[3, 3, 3], [3, 4, 3]])
def test_lime_of_all_runs_is_the_same_as_run_by_run(seeds, classifier, images):
    seeds, targets = torch.tensor(seeds), torch.tensor([[0, 1, 2], [2, 2, 1]])
    both = LIME(classifier, LIME.Settings(patterns=30)).explain_runs(images, targets, seeds)
    assert both.shape == (2, 3, GRID, GRID)
    for run in range(2):
        alone = LIME(classifier.run(run), LIME.Settings(patterns=30)).explain(images, targets[run], seeds)
        torch.testing.assert_close(both[run], alone, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(both[0], both[1])


def test_lime_recovers_a_classifier_that_is_linear_in_its_patches(random_head, images, targets, seeds):
    linear = Classifier(Coloured(), random_head(1, 3, 20)).eval()
    tiles = images.double().numpy().reshape(3, GRID, 16, GRID, 16, 3).mean(axis=(2, 4)) / 255
    expected = np.stack(
        [
            tile @ linear.tail.weight[0, target].double().numpy() / GRID**2
            for tile, target in zip(tiles, targets, strict=True)
        ]
    )
    np.testing.assert_allclose(
        LIME(linear, LIME.Settings(patterns=100, output="logit")).explain(images, targets, seeds), expected, atol=1e-4
    )
    probability = LIME(linear, LIME.Settings(patterns=100)).explain(images, targets, seeds)
    assert (probability - torch.from_numpy(expected)).abs().max() > 1e-2
    assert probability.abs().max() < 1


def test_a_patch_is_shown_with_probability_presence(small, images, targets, seeds, monkeypatch):
    shown = []
    whole = small.extractor.feature_map

    def seen(pixels):
        shown.extend((pixels > 0).float().mean(dim=(1, 2, 3)).tolist())
        return whole(pixels)

    monkeypatch.setattr(small.extractor, "feature_map", seen)
    for presence in (0.2, 0.8):
        shown.clear()
        LIME(small, LIME.Settings(patterns=200, presence=presence)).explain(images, targets, seeds)
        assert np.mean(shown) == pytest.approx(presence, abs=0.05)


# CAM, Grad-CAM, Grad-CAM++ and Score-CAM


def test_the_mean_of_cam_is_the_logit_without_bias(classifier, images):
    targets = torch.tensor([[2, 0, 1], [1, 1, 0]])
    with torch.no_grad():
        flat = cam(classifier.extractor(images), classifier.tail.weight, targets)
        logits = classifier(images)
    for run, number in itertools.product(range(2), range(3)):
        target = targets[run, number]
        expected = logits[run, number, target] - classifier.tail.bias[run, target]
        torch.testing.assert_close(flat[run, number].mean(), expected, atol=1e-4, rtol=1e-4)
    for run in range(2):
        maps = CAM(classifier.run(run)).explain(images, targets[run], torch.arange(3))
        torch.testing.assert_close(maps.flatten(1), flat[run], atol=1e-4, rtol=1e-4)


def test_cam_keeps_the_position_of_each_cell(small, images, targets, seeds):
    maps = CAM(small).explain(images, targets, seeds)
    moved = CAM(small).explain(images.roll((16, 32), dims=(1, 2)), targets, seeds)
    torch.testing.assert_close(moved, maps.roll((1, 2), dims=(1, 2)), atol=1e-5, rtol=1e-4)
    features = small.features(images)
    for row, column in [(0, 0), (1, 3), (3, 2)]:
        expected = [features[i, :, row, column] @ small.tail.weight[0, target] for i, target in enumerate(targets)]
        torch.testing.assert_close(maps[:, row, column], torch.stack(expected), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["classifier", "small"])
def test_grad_cam_is_the_positive_part_of_cam_over_the_number_of_cells(kind, request, images, targets, seeds):
    run = request.getfixturevalue(kind).run(0)
    found = GradCAM(run).explain(images, targets, seeds)
    positive = CAM(run).explain(images, targets, seeds).clamp(min=0) / GRID**2
    torch.testing.assert_close(found, positive, atol=1e-5, rtol=1e-4)
    assert (found > 0).any()
    assert (found == 0).any()


@pytest.mark.parametrize("reading", ["sum of A g^3", "sum of A, times g^3"])
@pytest.mark.parametrize("kind", ["classifier", "small"])
def test_grad_cam_pp_agrees_with_its_formula_cell_by_cell(reading, kind, request, images, targets, seeds):
    run = request.getfixturevalue(kind).run(0)
    found = GradCAMPP(run).explain(images, targets, seeds)
    with torch.no_grad():
        features = run.features(images).double().numpy()
    cells = list(itertools.product(range(GRID), range(GRID)))
    for number, target in enumerate(targets.tolist()):
        total = np.zeros((GRID, GRID))
        for channel, activation in enumerate(features[number]):
            # average pooling: each cell has the same gradient, a 16th of the head's weight
            g = np.full((GRID, GRID), run.tail.weight[0, target, channel].item() / 16)
            weight = 0.0
            for cell in cells:
                sums = (
                    sum(activation[other] * g[other] ** 3 for other in cells)
                    if reading == "sum of A g^3"
                    else activation.sum() * g[cell] ** 3
                )
                weight += g[cell] ** 2 / (2 * g[cell] ** 2 + sums) * max(g[cell], 0)
            total += weight * activation
        np.testing.assert_allclose(found[number], np.maximum(total, 0), rtol=2e-3, atol=1e-5)
    assert (found > 0).any()


def test_a_channel_without_gradient_has_no_weight_in_grad_cam_pp(small, images, targets, seeds):
    weight = small.tail.weight.detach().clone()
    weight[:, :, 1] = 0
    found = GradCAMPP(Classifier(small.extractor, Head(weight, small.tail.bias))).explain(images, targets, seeds)
    assert found.isfinite().all()
    assert (found > 0).any()
    weight[:] = 0
    assert (
        not GradCAMPP(Classifier(small.extractor, Head(weight, small.tail.bias))).explain(images, targets, seeds).any()
    )


def test_score_cam_agrees_with_its_formula_without_the_constant_channel(small, images, targets, seeds):
    found = ScoreCAM(small).explain(images, targets, seeds)
    extractor = small.extractor
    for number, target in enumerate(targets.tolist()):
        (features,) = extractor.feature_map(images[number : number + 1])
        pixels = extractor.normalised(images[number : number + 1])
        total, left_out = np.zeros((GRID, GRID)), []
        for channel, activation in enumerate(features.double().numpy()):
            low, high = activation.min(), activation.max()
            if low == high:
                left_out.append(channel)
                continue
            scaled = (activation - low) / (high - low)
            mask = ndimage.zoom(scaled, SIDE // GRID, order=1, mode="nearest", grid_mode=True)
            (seen,) = extractor.of_normalised(pixels * torch.from_numpy(mask).float())
            total += probabilities(small, seen)[target] * activation
        assert left_out == [2]
        np.testing.assert_allclose(found[number], np.maximum(total, 0), atol=1e-4)
    assert (found > 0).any()
    assert (found == 0).any()


# RISE


def rise_masks_by_hand(seed, count, grid, presence, side):
    generator, cell = torch.Generator().manual_seed(seed), int(np.ceil(side / grid))
    cells = (torch.rand(count, grid, grid, generator=generator) < presence).double().numpy()
    offsets = torch.randint(0, cell, (count, 2), generator=generator).tolist()
    for small, (down, right) in zip(cells, offsets, strict=True):
        large = ndimage.zoom(small, (grid + 1) * cell / grid, order=1, mode="nearest", grid_mode=True)
        assert large.shape == ((grid + 1) * cell,) * 2
        yield large[down : down + side, right : right + side]


@pytest.mark.parametrize("grid", [4, 7])
def test_rise_masks_are_random_grids_upsampled_and_cropped(grid):
    seeds = torch.tensor([3, 8])
    masks = random_masks(seeds, 12, grid, 0.4, (SIDE, SIDE), torch.device("cpu"))
    for number, seed in enumerate(seeds.tolist()):
        found = masks(torch.full((12,), number), torch.arange(12))
        np.testing.assert_allclose(found, list(rise_masks_by_hand(seed, 12, grid, 0.4, SIDE)), atol=1e-5)
    picked = masks(torch.tensor([1, 0]), torch.tensor([7, 2]))
    assert picked[0].equal(masks(torch.tensor([1]), torch.tensor([7]))[0])
    assert picked[1].equal(masks(torch.tensor([0]), torch.tensor([2]))[0])


@pytest.mark.parametrize("presence", [0.1, 0.5])
def test_rise_masks_are_between_0_and_1_with_mean_presence(presence):
    shown = random_masks(torch.tensor([0]), 400, 5, presence, (33, 33), torch.device("cpu"))(
        torch.zeros(400, dtype=torch.int64), torch.arange(400)
    )
    assert shown.shape == (400, 33, 33)
    assert shown.min() >= 0
    assert shown.max() <= 1 + 1e-6
    means = shown.mean(dim=(1, 2))
    assert abs(means.mean() - presence) < 5 * means.std() / 20
    assert (shown.mean(dim=0) - presence).abs().max() < 5 * (presence * (1 - presence) / 400) ** 0.5


def test_rise_is_the_mean_of_its_masks_weighted_by_the_probability(small, images, targets, seeds):
    count, presence = 70, 0.3
    found = RISE(small, RISE.Settings(masks=count, presence=presence, grid=4)).explain(images, targets, seeds)
    extractor = small.extractor
    for number, (target, seed) in enumerate(zip(targets.tolist(), seeds.tolist(), strict=True)):
        pixels, total = extractor.normalised(images[number : number + 1]), np.zeros((SIDE, SIDE))
        for mask in rise_masks_by_hand(seed, count, 4, presence, SIDE):
            (seen,) = extractor.of_normalised(pixels * torch.from_numpy(mask).float())
            total += probabilities(small, seen)[target] * mask
        np.testing.assert_allclose(found[number], total / (count * presence), atol=1e-4)


@pytest.mark.parametrize("output", ["probability", "logit"])
@pytest.mark.parametrize("value", [1.0, 0.3, 1e-6])
def test_lime_of_an_output_that_differs_by_rounding_alone_is_zero(output, value, images, targets, seeds):
    class Saturated(nn.Module):
        mean = torch.zeros(3)

        def feature_map(self, images):
            return images.float().permute(0, 3, 1, 2)[:, :, ::16, ::16]

    class Tail(nn.Module):
        def forward(self, features):
            rounding = features.mean(dim=(2, 3)) / 255 * 1e-7 * value
            return (value + rounding)[None]

    model = Classifier(Saturated(), Tail(), "sigmoid").eval()
    model.register_parameter("place", nn.Parameter(torch.zeros(1)))
    maps = LIME(model, LIME.Settings(patterns=200, output=output)).explain(images, targets, seeds)
    assert (maps == 0).all()
