"""LIME on the grid, CAM and rank correlation: hand-computed oracles, least squares by numpy, scipy, and invariances."""

import numpy as np
import pytest
import torch
from scipy import stats

from bla.backbones import build_backbone
from bla.classifier import Classifier
from bla.explainers.cam import cam
from bla.explainers.lime import draw_patterns, fit
from bla.metrics.rank_correlation import spearman
from bla.occlusion import occluded_scores
from bla.patches import occlude, patch_of_pixel
from bla.specs import Backbone
from bla.training import initial_head

GRID, SIDE, CLASSES = 4, 64, 3


@pytest.fixture(scope="module")
def classifier():
    """Two heads on a small random backbone with a 4x4 map."""
    torch.manual_seed(0)
    extractor = build_backbone(Backbone("test_resnet", "none", "imagenet", 16), SIDE).eval()
    return Classifier(extractor, initial_head([0, 1], extractor.model.num_features, CLASSES)).eval()


@pytest.fixture(scope="module")
def images():
    return torch.randint(0, 256, (3, SIDE, SIDE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def targets(classifier, images):
    with torch.no_grad():
        return classifier(images).argmax(dim=2)


def scores(*args, **options):
    return torch.stack(list(occluded_scores(*args, grid=GRID, **options)), dim=1)  # [R, N, P]


@pytest.mark.parametrize("side", [28, 112, 224])
def test_a_patch_is_a_seventh_of_the_side(side):
    assert torch.bincount(patch_of_pixel(side, 7)).tolist() == [side // 7] * 7


def test_pixels_belong_to_the_nearest_patches_where_the_grid_does_not_divide_the_side():
    assert patch_of_pixel(10, 4).tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 3, 3]


def test_absent_patches_are_black_and_the_others_as_they_were():
    image = torch.arange(1, 49, dtype=torch.uint8).view(1, 4, 4, 3)
    hidden = occlude(image, torch.tensor([[True, False, False, True]]), 2)
    assert hidden[0, :2, :2].equal(image[0, :2, :2])
    assert hidden[0, 2:, 2:].equal(image[0, 2:, 2:])
    assert not hidden[0, :2, 2:].any()
    assert not hidden[0, 2:, :2].any()


def test_patterns_show_patches_with_the_asked_probability():
    shown = draw_patterns(4000, 49, 0.3, seed=3).double().mean()
    assert abs(shown - 0.3) < 5 * (0.3 * 0.7 / (4000 * 49)) ** 0.5
    assert draw_patterns(5, 9, 0.5, 1).equal(draw_patterns(5, 9, 0.5, 1))
    assert not draw_patterns(5, 9, 0.5, 1).equal(draw_patterns(5, 9, 0.5, 2))


def test_fit_finds_the_coefficients_of_a_linear_function():
    patterns = draw_patterns(40, 6, 0.5, 0)
    weights = torch.tensor([[1.0, 0, -2, 0.5, 3, 0], [0, 0, 0, 0, 0, 1]], dtype=torch.double)
    values = patterns.double() @ weights.T + torch.tensor([0.7, -4.0])
    torch.testing.assert_close(fit(patterns, values.T), weights, atol=1e-10, rtol=0)


def test_fit_is_least_squares_with_an_intercept():
    patterns, values = draw_patterns(200, 16, 0.5, 5), torch.rand(3, 200, generator=torch.Generator().manual_seed(2))
    design = np.column_stack([np.ones(200), patterns.numpy()])
    expected = np.linalg.lstsq(design, values.double().numpy().T, rcond=None)[0][1:].T
    np.testing.assert_allclose(fit(patterns, values), expected, atol=1e-10)


def test_a_score_is_the_probability_of_the_target_on_the_image_with_its_patches_painted(classifier, images, targets):
    patterns = draw_patterns(5, GRID * GRID, 0.5, 0)
    found = scores(classifier, images, patterns, targets)
    for run in range(2):
        for number in range(3):
            for row in range(5):
                masked = occlude(images[number : number + 1], patterns[row : row + 1], GRID)
                with torch.no_grad():
                    expected = classifier(masked).softmax(dim=2)[run, 0, targets[run, number]]
                assert found[run, number, row] == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize("size", [1, 4, 7, 100])
def test_scores_depend_on_no_batch_size(size, classifier, images, targets):
    patterns = draw_patterns(6, GRID * GRID, 0.5, 0)
    whole = scores(classifier, images, patterns, targets, batch_size=1000)
    torch.testing.assert_close(scores(classifier, images, patterns, targets, batch_size=size), whole, atol=1e-5, rtol=0)


def test_every_image_may_have_patterns_of_its_own(classifier, images, targets):
    own = torch.stack([draw_patterns(4, GRID * GRID, 0.5, seed) for seed in range(3)])
    found = scores(classifier, images, own, targets)
    for number in range(3):
        one = slice(number, number + 1)
        alone = scores(classifier, images[one], own[number], targets[:, one])
        torch.testing.assert_close(found[:, one], alone, atol=1e-5, rtol=0)


def test_memory_that_does_not_suffice_halves_the_batch_and_changes_nothing(classifier, images, targets, monkeypatch):
    patterns = draw_patterns(6, GRID * GRID, 0.5, 0)
    whole, features, sizes = scores(classifier, images, patterns, targets), classifier.features, []

    def tight(batch):
        sizes.append(len(batch))
        if len(batch) > 3:
            raise torch.OutOfMemoryError("no memory")
        return features(batch)

    monkeypatch.setattr(classifier, "features", tight)
    torch.testing.assert_close(scores(classifier, images, patterns, targets, batch_size=14), whole, atol=1e-5, rtol=0)
    assert sizes[:3] == [14, 7, 3]
    monkeypatch.setattr(classifier, "features", lambda batch: tight(batch.repeat(4, 1, 1, 1)))
    with pytest.raises(torch.OutOfMemoryError):
        scores(classifier, images, patterns, targets, batch_size=2)


def test_cam_sums_to_the_logit_without_its_bias(classifier, images, targets):
    with torch.no_grad():
        features = classifier.extractor(images)
        maps = cam(features, classifier.head_weight, targets)
        logits = classifier(images).gather(2, targets[..., None])[..., 0]
    bias = classifier.head_bias.gather(1, targets)
    torch.testing.assert_close(maps.mean(dim=2), logits - bias, atol=1e-5, rtol=1e-4)


def test_the_positive_part_of_cam_is_grad_cam_times_the_number_of_cells(classifier, images, targets):
    for run in range(2):
        with torch.no_grad():
            features = classifier.features(images)
        features.requires_grad_(True)
        wanted = classifier.logits(features)[run].gather(1, targets[run][:, None]).sum()
        (gradient,) = torch.autograd.grad(wanted, features)
        weights = gradient.mean(dim=(2, 3), keepdim=True)
        grad_cam = (weights * features).sum(dim=1).relu().flatten(1).detach()
        own = cam(features.detach().flatten(2).transpose(1, 2), classifier.head_weight, targets)[run].relu()
        torch.testing.assert_close(grad_cam * GRID * GRID, own, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_rank_correlation_is_scipys_ties_included(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 6, (4, 3, 20)).astype(float), rng.normal(size=(4, 3, 20))
    expected = [
        [stats.spearmanr(a, b).statistic for a, b in zip(*rows, strict=True)] for rows in zip(x, y, strict=True)
    ]
    np.testing.assert_allclose(spearman(x, y), expected)


def test_a_constant_map_has_no_rank_correlation():
    assert np.isnan(spearman(np.ones((1, 9)), np.arange(9.0)[None])).all()
    assert spearman(np.arange(9.0)[None], np.exp(np.arange(9.0))[None]).item() == pytest.approx(1)
    assert spearman(np.arange(9.0)[None], -np.arange(9.0)[None]).item() == pytest.approx(-1)
