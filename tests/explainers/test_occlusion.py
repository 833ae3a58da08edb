"""Occluded images: patches, masks, backgrounds and batches, against numpy loops, scipy and images masked by hand."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from bla.base.specs import Backbone
from bla.explainers.occlusion import blurred, occluded_logits, patch_masks, smooth_masks, target_scores
from bla.explainers.posthoc.lime import draw_patterns
from bla.method.modules import Head
from bla.networks.backbones import build_backbone
from bla.networks.classifier import Classifier
from bla.networks.patches import occlude

GRID, SIDE, RUNS, IMAGES, CLASSES = 4, 64, 2, 3, 3
COLOUR = torch.tensor([124.0, 116.5, 40.0])


@pytest.fixture(scope="module")
def classifier():
    """Two heads on a small random backbone with a 4x4 map."""
    torch.manual_seed(0)
    extractor = (
        build_backbone(
            Backbone(architecture="test_resnet", weights="none", normalisation="imagenet", output_stride=16), SIDE
        )
        .eval()
        .requires_grad_(False)
    )
    for module in extractor.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(0, 0.3)
    channels = extractor.model.num_features
    return Classifier(extractor, Head(torch.randn(RUNS, CLASSES, channels), torch.randn(RUNS, CLASSES))).eval()


@pytest.fixture(scope="module")
def images():
    return random_images(1)


@pytest.fixture(scope="module")
def patterns():
    return draw_patterns(6, GRID * GRID, 0.5, 0)


def random_images(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (IMAGES, SIDE, SIDE, 3), dtype=torch.uint8, generator=generator)


def logits_of(classifier, images, patterns, **options):
    masks = patch_masks(patterns, (SIDE, SIDE), (GRID, GRID))
    return torch.stack(list(occluded_logits(classifier, images, masks, patterns.shape[-2], **options)))  # [N, R, P, K]


def shown_by_hand(pattern: torch.Tensor, side: int = SIDE, grid: int = GRID) -> np.ndarray:
    assert side % grid == 0
    return np.kron(pattern.numpy().reshape(grid, grid), np.ones((side // grid, side // grid)))


def logits_by_hand(classifier, images, shown, background):
    """Logits `[N, R, P, K]` of float64 images, masked pixel by pixel, one image per batch."""
    rows = []
    for number, image in enumerate(images.double().numpy()):
        behind = np.zeros(3) if background is None else np.asarray(background, dtype=float)
        behind = behind[number] if behind.ndim == 4 else behind
        seen = [image * mask[..., None] + behind * (1 - mask[..., None]) for mask in shown[number]]
        with torch.no_grad():
            rows.append(torch.cat([classifier(torch.from_numpy(one)[None].float()) for one in seen], dim=1))
    return torch.stack(rows)


def same(found, expected):
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)


def test_patch_masks_show_the_patches_of_the_pattern(patterns):
    numbers = torch.tensor([5, 0, 0, 3])
    shown = patch_masks(patterns, (SIDE, SIDE), (GRID, GRID))(torch.tensor([0, 1, 2, 0]), numbers)
    assert shown.dtype == torch.bool
    np.testing.assert_array_equal(shown, [shown_by_hand(patterns[number]) for number in numbers])


def test_every_image_can_have_its_own_patch_masks():
    own = torch.stack([draw_patterns(4, 9, 0.5, seed) for seed in range(3)])
    shown = patch_masks(own, (12, 12), (3, 3))(torch.tensor([2, 0, 1]), torch.tensor([1, 3, 1]))
    np.testing.assert_array_equal(shown, [shown_by_hand(own[i, p], 12, 3) for i, p in [(2, 1), (0, 3), (1, 1)]])


def test_patch_masks_fit_any_image_size():
    pattern = torch.tensor([[True, False, False, False, True, False, True, True, False]])
    (shown,) = patch_masks(pattern, (4, 7), (3, 3))(torch.tensor([0]), torch.tensor([0]))
    rows = ["XXX....", "XXX....", "...XX..", "XXXXX.."]
    assert shown.tolist() == [[mark == "X" for mark in row] for row in rows]


def test_patch_masks_hide_the_pixels_that_occlude_paints(images, patterns):
    shown = patch_masks(patterns, (SIDE, SIDE), (GRID, GRID))(torch.zeros(3, dtype=torch.int64), torch.arange(3))
    assert (images * shown[..., None]).equal(occlude(images, patterns[:3], (GRID, GRID)))


def test_blur_keeps_images_of_one_colour():
    colours = torch.tensor([[3, 140, 255], [0, 90, 17]], dtype=torch.uint8)
    smooth = blurred(colours[:, None, None].expand(-1, 56, 56, -1))
    assert smooth.dtype == torch.float32
    torch.testing.assert_close(smooth, colours[:, None, None].float().expand(-1, 56, 56, -1), atol=1e-3, rtol=0)


@pytest.mark.parametrize(("side", "window"), [(224, 51), (112, 25), (64, 15), (28, 7)])
def test_blur_spreads_a_point_over_an_odd_window_proportional_to_the_image(side, window):
    image = torch.zeros(1, side, side, 3, dtype=torch.uint8)
    middle, reach = side // 2, window // 2
    image[0, middle, middle, 1] = 255
    smooth = blurred(image)
    assert not smooth[..., [0, 2]].any()
    for line in (smooth[0, middle, :, 1], smooth[0, :, middle, 1]):
        assert line.nonzero()[:, 0].tolist() == list(range(middle - reach, middle + reach + 1))
        away = torch.arange(side) - middle
        expected = torch.exp(-(away**2) / (2 * (50 * side / 224) ** 2)) * (away.abs() <= reach)
        torch.testing.assert_close(line / line[middle], expected, atol=1e-5, rtol=0)
    assert smooth.sum().item() == pytest.approx(255, rel=1e-4)


def test_the_window_of_each_side_is_proportional_to_it():
    """Scipy's Gaussian along each side, with the window as in the square image of that side; mirrored at the borders."""
    image = torch.rand(1, 224, 20, 3, dtype=torch.float64) * 255
    expected = image[0].numpy()
    for axis, (side, window) in enumerate(((224, 51), (20, 5))):
        offsets = np.arange(window) - window // 2
        weights = np.exp(-(offsets**2) / (2 * (50 * side / 224) ** 2))
        expected = ndimage.convolve1d(expected, weights / weights.sum(), axis=axis, mode="mirror")
    np.testing.assert_allclose(blurred(image)[0], expected, atol=1e-3)
    np.testing.assert_allclose(blurred(image.transpose(1, 2))[0].transpose(0, 1), expected, atol=1e-3)


@pytest.mark.parametrize("kind", ["bool", "float"])
@pytest.mark.parametrize("behind", ["black", "colour", "images"])
def test_logits_agree_with_images_masked_by_hand(kind, behind, classifier, images):
    own = torch.stack([draw_patterns(4, GRID * GRID, 0.5, seed) for seed in range(IMAGES)])
    if kind == "bool":
        masks = patch_masks(own, (SIDE, SIDE), (GRID, GRID))
        shown = [[shown_by_hand(pattern) for pattern in rows] for rows in own]
    else:
        maps = torch.rand(IMAGES, 4, GRID, GRID, generator=torch.Generator().manual_seed(4))
        masks, zoom = smooth_masks(maps, (SIDE, SIDE)), SIDE // GRID
        shown = [
            [ndimage.zoom(one, zoom, order=1, mode="nearest", grid_mode=True) for one in rows] for rows in maps.numpy()
        ]
    background = {"black": None, "colour": COLOUR, "images": blurred(random_images(2))}[behind]
    found = torch.stack(list(occluded_logits(classifier, images, masks, 4, background, batch_size=5)))
    expected = logits_by_hand(classifier, images, shown, background)
    same(found, expected)
    assert expected.std(dim=2).min() > 0.01  # masks matter


@pytest.mark.parametrize("size", [1, 4, 7, 100])
def test_logits_do_not_depend_on_the_batch_size(size, classifier, images, patterns):
    same(logits_of(classifier, images, patterns, batch_size=size), logits_of(classifier, images, patterns))


def test_images_come_in_order_even_if_a_batch_starts_several(classifier, images, patterns):
    whole = logits_of(classifier, images, patterns)
    for count in (1, 2, 5):
        masks = patch_masks(patterns[:count], (SIDE, SIDE), (GRID, GRID))
        found = list(occluded_logits(classifier, images, masks, count, batch_size=7))
        assert [one.shape for one in found] == [(RUNS, count, CLASSES)] * IMAGES
        same(torch.stack(found), whole[:, :, :count])


def test_an_image_is_yielded_as_soon_as_it_is_complete(classifier, images, patterns):
    alone = classifier.run(0)
    logits = occluded_logits(alone, images, patch_masks(patterns, (SIDE, SIDE), (GRID, GRID)), 6, batch_size=4)
    assert [alone.forwards for _ in logits] == [8, 12, 18]


def test_the_order_of_images_does_not_matter(classifier, images):
    own = torch.stack([draw_patterns(4, GRID * GRID, 0.5, seed) for seed in range(IMAGES)])
    found, order = logits_of(classifier, images, own, batch_size=5), [2, 0, 1]
    same(logits_of(classifier, images[order], own[order], batch_size=5), found[order])
    for number in range(IMAGES):
        one = slice(number, number + 1)
        same(logits_of(classifier, images[one], own[number]), found[one])


def test_all_heads_in_one_pass_give_the_same_as_each_run_alone(classifier, images, patterns):
    before = classifier.forwards
    found = logits_of(classifier, images, patterns)
    assert classifier.forwards - before == IMAGES * len(patterns)
    for run in range(RUNS):
        alone = classifier.run(run)
        same(found[:, run : run + 1], logits_of(alone, images, patterns))
        assert alone.forwards == IMAGES * len(patterns)
    assert not torch.allclose(found[:, 0], found[:, 1])


def test_no_graph_is_built_and_the_caller_keeps_gradients_enabled(images, patterns):
    extractor = build_backbone(
        Backbone(architecture="test_resnet", weights="none", normalisation="imagenet", output_stride=16), SIDE
    ).eval()
    assert next(extractor.parameters()).requires_grad
    learning = Classifier(extractor, Head(torch.randn(1, 2, 96), torch.zeros(1, 2)))
    for logits in occluded_logits(learning, images, patch_masks(patterns, (SIDE, SIDE), (GRID, GRID)), len(patterns)):
        assert not logits.requires_grad
        assert torch.is_grad_enabled()


def test_out_of_memory_halves_the_batch_and_changes_no_result(classifier, images, patterns, monkeypatch):
    whole, features, sizes = logits_of(classifier, images, patterns), classifier.features_by, []

    def tight(work, batch):
        sizes.append(len(batch))
        if len(batch) > 3:
            raise torch.OutOfMemoryError("no memory")
        return features(work, batch)

    monkeypatch.setattr(classifier, "features_by", tight)
    same(logits_of(classifier, images, patterns, batch_size=14), whole)
    assert sizes == [14, 7, 3, 3, 3, 3, 3, 3]


def test_too_little_memory_for_one_image_is_an_error(classifier, images, patterns, monkeypatch):
    sizes = []

    def full(work, batch):
        sizes.append(len(batch))
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(classifier, "features_by", full)
    with pytest.raises(torch.OutOfMemoryError, match="no memory"):
        logits_of(classifier, images, patterns, batch_size=5)
    assert sizes == [5, 2, 1]


def test_scores_are_the_probability_or_logit_of_the_target_for_each_run(classifier):
    logits = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([3, 1])
    for run, target in enumerate(targets.tolist()):
        for row in range(5):
            odds = np.exp(logits[run, row].double().numpy())
            assert target_scores(classifier, logits, targets)[run, row].item() == pytest.approx(
                odds[target] / odds.sum(), rel=1e-5
            )
            assert target_scores(classifier, logits, targets, probabilities=False)[run, row] == logits[run, row, target]
