"""Explanation methods against captum, scipy, loops from the papers' formulas, and the battery that each of them passes."""

import copy
import itertools

import numpy as np
import pytest
import torch
from captum._utils.models.linear_model import SkLearnLinearRegression
from captum.attr import LayerGradCam, Lime
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats
from sklearn.linear_model import LinearRegression
from torch import nn
from torch.nn.functional import avg_pool2d, leaky_relu

from bla.base.errors import BlaError
from bla.base.paper import VARIANTS
from bla.base.specs import Backbone, Schedule
from bla.explainers.all_maps import retrained_maps
from bla.explainers.controls.centre import Centre
from bla.explainers.controls.constant import Constant
from bla.explainers.controls.edges import Edges
from bla.explainers.controls.random import Random
from bla.explainers.interface import Explainer, add_noise, cell_maps, check_explainer
from bla.explainers.learned.attention import Attention
from bla.explainers.posthoc.cam import CAM, cam
from bla.explainers.posthoc.grad_cam import GradCAM
from bla.explainers.posthoc.grad_cam_pp import GradCAMPP
from bla.explainers.posthoc.lime import LIME, draw_patterns, solver
from bla.explainers.posthoc.rise import RISE, random_masks
from bla.explainers.posthoc.score_cam import ScoreCAM
from bla.explainers.registry import explainer_class, explainer_names
from bla.method.modules import Head, Module
from bla.metrics.randomisation import cascade, cascade_levels
from bla.metrics.rank_correlation import spearman
from bla.networks.backbones import build_backbone, fold_batch_norm
from bla.networks.classifier import Classifier

GRID, SIDE, CLASSES, CHANNELS = 4, 64, 3, 96
OPTIONS = {"lime": {"patterns": 40}, "rise": {"masks": 20}}
MODULES = ["l2x_f", "bla", "bla_t"]
METHODS = [*(name for name in explainer_names() if name != "attention"), *(f"attention {name}" for name in MODULES)]
PASSES = {"cam": 1, "grad_cam": 1, "grad_cam_pp": 1, "attention": 1, "score_cam": CHANNELS + 1, "lime": 40, "rise": 20}
LOOKS = {"lime", "random"}
"""Methods that look at one image, uncounted, for the size of the feature map."""
BACKWARDS = {"grad_cam": 1, "grad_cam_pp": 1}
CONTROLS = {"centre", "constant", "edges", "random"}


class Coloured(nn.Module):
    """A backbone whose features are the mean colours of the patches."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(3, 1, 1))

    def feature_map(self, images):
        return avg_pool2d(images.permute(0, 3, 1, 2).float() / 255, SIDE // GRID)


class Small(nn.Module):
    """A backbone of one convolution, with features of both signs and a channel that is constant."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("mean", torch.tensor([120.0, 110, 90]).view(3, 1, 1))
        self.convolution = nn.Conv2d(3, 6, 16, 16).requires_grad_(False)
        self.convolution.weight.copy_(torch.randn(6, 3, 16, 16, generator=generator) / 10)
        self.convolution.bias.copy_(torch.randn(6, generator=generator))
        self.convolution.weight[2] = 0
        self.convolution.bias[2] = 1.5

    def normalised(self, images):
        return (images.permute(0, 3, 1, 2).float() - self.mean) / 60

    def of_normalised(self, pixels):
        return leaky_relu(self.convolution(pixels), 0.3)

    def feature_map(self, images):
        return self.of_normalised(self.normalised(images))


def random_head(runs: int, channels: int, spread: float = 0.5) -> Head:
    generator = torch.Generator().manual_seed(3)
    bias = torch.randn(runs, CLASSES, generator=generator)
    return Head(torch.randn(runs, CLASSES, channels, generator=generator) * spread, bias)


def backbone():
    torch.manual_seed(0)
    extractor = build_backbone(Backbone("test_resnet", "none", "imagenet", 16), SIDE).eval().requires_grad_(False)
    for module in extractor.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(0, 0.3)
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 1.5)
    return extractor


@pytest.fixture(scope="module")
def classifier():
    """Two heads on a small random backbone with a 4x4 map."""
    return Classifier(backbone(), random_head(2, CHANNELS)).eval()


@pytest.fixture(scope="module")
def folded(classifier):
    extractor = fold_batch_norm(classifier.extractor)
    norms = [sum(isinstance(m, nn.BatchNorm2d) for m in some.modules()) for some in (classifier.extractor, extractor)]
    assert norms[1] < norms[0] / 2
    return Classifier(extractor, random_head(2, CHANNELS)).eval()


@pytest.fixture(scope="module")
def small():
    return Classifier(Small(), random_head(1, 6)).eval()


@pytest.fixture(scope="module")
def images():
    """Noise on 8x8 patches of random colours, so that cells differ."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randint(0, 200, (3, 8, 8, 3), generator=generator)
    fine = torch.randint(0, 56, (3, SIDE, SIDE, 3), generator=generator)
    return (coarse.repeat_interleave(8, dim=1).repeat_interleave(8, dim=2) + fine).to(torch.uint8)


@pytest.fixture(scope="module")
def targets():
    return torch.tensor([2, 0, 1])


@pytest.fixture(scope="module")
def seeds():
    return torch.tensor([5, 6, 7])


def method(label, classifier):
    name, _, variant = label.partition(" ")
    if name == "attention":
        weight = torch.randn(1, CHANNELS, generator=torch.Generator().manual_seed(8)) * 2
        return Attention(classifier, VARIANTS[variant], Module(weight, torch.tensor([-40.4])))
    return explainer_class(name)(classifier, **OPTIONS.get(name, {}))


def probabilities(classifier, features):
    """Softmax of the head on average-pooled features `[C, h, w]`, in numpy."""
    pooled = features.double().numpy().mean(axis=(1, 2))
    logits = classifier.head_weight[0].double().numpy() @ pooled + classifier.head_bias[0].double().numpy()
    return np.exp(logits) / np.exp(logits).sum()


# The interface and its battery


@pytest.mark.parametrize("backbone", ["plain", "folded"])
@pytest.mark.parametrize("label", METHODS)
def test_every_method_passes_the_battery(label, backbone, classifier, folded, images, targets):
    check_explainer(method(label, (classifier if backbone == "plain" else folded).run(0)), images, targets)


class Faulty(CAM):
    """CAM, with a fault."""

    def __init__(self, classifier, fault):
        super().__init__(classifier)
        self.fault, self.calls = fault, 0

    def explain(self, images, targets, seeds):
        self.calls += 1
        return self.fault(self, super().explain(images, targets, seeds), images, targets, seeds)


def faulty(message):
    return lambda fault: pytest.param(fault, message, id=fault.__name__)


@faulty("when images come one by one")
def depends_on_the_batch(self, maps, *_):
    return maps - maps.mean(dim=0)


@faulty("when images come one by one")
def depends_on_the_place_in_the_batch(self, maps, *_):
    return maps * (1 + torch.arange(len(maps)))[:, None, None]


@faulty("in another order")
def depends_on_the_order(self, maps, images, targets, seeds):
    return maps * (1.01 if seeds[0] > seeds[-1] else 1)


@faulty("when asked again")
def depends_on_what_was_asked_before(self, maps, images, targets, seeds):
    return maps * (1.01 if self.calls > 5 else 1)


@faulty("maps differ by")
def draws_numbers_without_a_seed(self, maps, *_):
    generator = torch.Generator()
    generator.seed()
    return maps + torch.rand(maps.shape, generator=generator)


@faulty("the random state is not as it was")
def draws_numbers_from_the_global_state(self, maps, *_):
    return maps + 0 * torch.rand(1)


@faulty("the random state is not as it was")
def seeds_the_global_state(self, maps, *_):
    torch.manual_seed(99)
    return maps


@faulty("maps are not finite")
def gives_nan(self, maps, *_):
    return maps.masked_fill(maps == maps.max(), torch.nan)


@faulty("maps are not finite")
def gives_infinity(self, maps, *_):
    return maps.masked_fill(maps == maps.max(), torch.inf)


@faulty(r"maps have shape \[3, 16\], not \[B, h, w\]")
def gives_flat_maps(self, maps, *_):
    return maps.flatten(1)


@faulty("2 maps for 3 images")
def forgets_an_image(self, maps, *_):
    return maps[:2]


@faulty(r"maps are torch\.int32")
def gives_whole_numbers(self, maps, *_):
    return (100 * maps).int()


@faulty("the model is not as it was")
def leaves_training_mode(self, maps, *_):
    self.classifier.train()
    return maps


@faulty("the model is not as it was")
def leaves_training_mode_in_one_layer(self, maps, *_):
    self.classifier.extractor.model.layer3[0].bn1.train()
    return maps


@faulty("the model is not as it was")
def leaves_a_hook(self, maps, *_):
    self.classifier.extractor.model.layer4.register_forward_hook(lambda *_: None)
    return maps


@faulty("the model is not as it was")
def leaves_a_hook_before_a_layer(self, maps, *_):
    self.classifier.extractor.model.layer4.register_forward_pre_hook(lambda *_: None)
    return maps


@faulty("the model is not as it was")
def leaves_a_hook_on_gradients(self, maps, *_):
    self.classifier.extractor.model.layer4.register_full_backward_hook(lambda *_: None)
    return maps


@faulty("the model is not as it was")
def asks_for_gradients(self, maps, *_):
    self.classifier.extractor.requires_grad_(True)
    return maps


@faulty("the model is not as it was")
def leaves_gradients(self, maps, *_):
    self.classifier.head_weight.grad = torch.zeros_like(self.classifier.head_weight)
    return maps


@faulty("the model is not as it was")
def changes_a_weight(self, maps, *_):
    self.classifier.extractor.model.conv1[0].weight[0, 0, 0, 0] += 0.1
    return maps


@faulty("the model is not as it was")
def changes_running_statistics(self, maps, *_):
    self.classifier.extractor.model.bn1.running_mean[0] += 0.1
    return maps


@faulty("the images is not as it was")
def paints_on_the_images(self, maps, images, *_):
    images[0, 0, 0] = 255 - images[0, 0, 0]
    return maps


@faulty("the targets is not as it was")
def changes_the_targets(self, maps, images, targets, seeds):
    targets[0] = 1
    return maps


@faulty("maps of another class are the same")
def ignores_the_class(self, maps, images, *_):
    return self.classifier.features(images).mean(dim=1).detach()


@faulty("the maps carry a graph")
def gives_a_graph(self, maps, *_):
    return maps.requires_grad_()


@pytest.mark.parametrize(
    ("fault", "message"), [value for value in list(vars().values()) if isinstance(value, type(pytest.param()))]
)
def test_the_battery_finds(fault, message, classifier, images, targets):
    model = copy.deepcopy(classifier.run(0))
    with pytest.raises(AssertionError, match=message), torch.random.fork_rng(devices=[]):
        check_explainer(Faulty(model, fault), images.clone(), targets.clone())


def test_the_battery_passes_a_method_without_fault_and_finds_one_that_denies_its_class(classifier, images, targets):
    cam_itself = Faulty(classifier.run(0), lambda self, maps, *_: maps)
    check_explainer(cam_itself, images, targets)
    cam_itself.class_specific = False
    with pytest.raises(AssertionError, match="for another class"):
        check_explainer(cam_itself, images, targets)


def test_the_battery_needs_three_images(classifier, images, targets):
    with pytest.raises(AssertionError, match="three images"):
        check_explainer(CAM(classifier.run(0)), images[:2], targets[:2])


def test_a_method_takes_the_classifier_of_one_run(classifier):
    for name in explainer_names():
        if name not in ("lime", "attention"):
            with pytest.raises(AssertionError, match="one run"):
                explainer_class(name)(classifier)


def test_methods_are_found_by_name_and_others_are_an_error_that_names_them():
    assert {*PASSES, *CONTROLS} <= set(explainer_names())
    for name in explainer_names():
        found = explainer_class(name)
        assert issubclass(found, Explainer)
        assert found.__module__ == f"bla.explainers.{name}"
        assert found.title
    with pytest.raises(BlaError, match="no explanation method gradcam") as error:
        explainer_class("gradcam")
    assert all(name in str(error.value) for name in explainer_names())


@pytest.mark.parametrize("label", METHODS)
def test_a_method_needs_as_many_passes_as_its_card_says(label, classifier, images, targets, seeds, monkeypatch):
    name, run, seen, backwards = label.split()[0], classifier.run(0), [], []
    grad = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *args, **options: backwards.append(1) or grad(*args, **options))
    hook = run.extractor.model.bn1.register_forward_hook(lambda module, given, result: seen.append(len(result)))
    explainer = method(label, run)
    explainer.explain(images[:2], targets[:2], seeds[:2])
    hook.remove()
    passes = PASSES.get(name, 0)
    assert run.forwards == 2 * passes
    assert sum(seen) == run.forwards + (name in LOOKS)
    assert len(backwards) == explainer.backwards == BACKWARDS.get(name, 0)
    assert explainer.control == (name in CONTROLS) == (passes == 0)
    assert explainer.slow == (passes > 1)
    assert explainer.learned == (name == "attention")


@pytest.mark.parametrize("size", [1, 2, 16])
def test_cell_maps_are_means_over_the_cells_and_depend_on_no_batch(
    size, classifier, images, targets, seeds, monkeypatch
):
    run, batches = classifier.run(0), []

    class Seen(Edges):
        def explain(self, images, targets, seeds):
            batches.append(len(images))
            return super().explain(images, targets, seeds) + targets[:, None, None] + 10 * seeds[:, None, None]

    monkeypatch.setattr("bla.explainers.interface.batch_size_for", lambda device, side: size)
    found = cell_maps(Seen(run), images, targets, seeds, 2)
    assert max(batches) == min(size, 3)
    assert found.dtype == torch.float64
    whole = Seen(run).explain(images, targets, seeds).double().numpy()
    cells = [[tile[:32, :32], tile[:32, 32:], tile[32:, :32], tile[32:, 32:]] for tile in whole]
    np.testing.assert_allclose(found, [[cell.mean() for cell in row] for row in cells], rtol=1e-9)


def test_noise_has_the_deviation_asked_for_and_belongs_to_the_seed():
    grey = torch.full((3, SIDE, SIDE, 3), 128, dtype=torch.uint8)
    seeds = torch.tensor([4, 9, 4])
    noisy = add_noise(grey, 0.05, seeds)
    assert noisy.dtype == torch.uint8
    noise = noisy.double() - 128
    assert noise.std().item() == pytest.approx((12.75**2 + 1 / 12) ** 0.5, rel=0.03)
    assert abs(noise.mean()) < 5 * 12.75 / noise.numel() ** 0.5
    assert noisy[0].equal(noisy[2])
    assert not noisy[0].equal(noisy[1])
    assert add_noise(grey[:1], 0.05, seeds[1:2])[0].equal(noisy[1])
    assert add_noise(grey, 0, seeds).equal(grey)


def test_noise_stays_within_the_range_of_pixels():
    for value in (0, 255):
        noisy = add_noise(torch.full((1, 32, 32, 3), value, dtype=torch.uint8), 0.1, torch.tensor([0])).double()
        assert (noisy - value).abs().max() < 6 * 25.5
        assert (noisy == value).double().mean() == pytest.approx(0.5, abs=0.05)


# LIME


def test_patterns_show_patches_with_the_asked_probability():
    shown = draw_patterns(4000, 49, 0.3, seed=3).double().mean()
    assert abs(shown - 0.3) < 5 * (0.3 * 0.7 / (4000 * 49)) ** 0.5
    assert draw_patterns(5, 9, 0.5, 1).equal(draw_patterns(5, 9, 0.5, 1))
    assert not draw_patterns(5, 9, 0.5, 1).equal(draw_patterns(5, 9, 0.5, 2))


def test_the_solver_finds_the_coefficients_of_a_linear_function():
    patterns = draw_patterns(40, 6, 0.5, 0)
    weights = torch.tensor([[1.0, 0, -2, 0.5, 3, 0], [0, 0, 0, 0, 0, 1]], dtype=torch.double)
    values = patterns.double() @ weights.T + torch.tensor([0.7, -4.0])
    torch.testing.assert_close(values.T @ solver(patterns).T, weights, atol=1e-10, rtol=0)


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 9), st.integers(0, 2**31), st.floats(0.2, 0.8))
def test_the_solver_is_least_squares_with_an_intercept(cells, seed, presence):
    patterns = draw_patterns(80, cells, presence, seed)
    values = np.random.default_rng(seed).normal(size=80)
    expected = LinearRegression().fit(patterns.numpy(), values).coef_
    np.testing.assert_allclose(torch.from_numpy(values) @ solver(patterns).T, expected, atol=1e-8)


def test_patches_that_are_always_shown_get_no_coefficient():
    patterns = draw_patterns(30, 5, 0.5, 0)
    patterns[:, 2] = True
    coefficients = torch.rand(30, dtype=torch.double) @ solver(patterns).T
    assert coefficients.isfinite().all()
    assert abs(coefficients[2]) < 1e-12


@pytest.mark.parametrize("output", ["probability", "logit"])
def test_lime_is_captums_on_the_same_patterns(output, small, images, targets, seeds):
    found = LIME(small, 60, 0.6, output).explain(images, targets, seeds)
    cell = np.arange(SIDE) * GRID // SIDE
    features = torch.from_numpy(cell[:, None] * GRID + cell)[None, :, :, None].expand(1, SIDE, SIDE, 3)

    def forward(pixels):
        logits = small(pixels)[0]
        return logits.softmax(dim=1) if output == "probability" else logits

    for number, seed in enumerate(seeds.tolist()):

        def perturbed(_, seed=seed, **__):
            yield from draw_patterns(60, GRID * GRID, 0.6, seed).float().split(1)

        reference = Lime(
            forward,
            SkLearnLinearRegression(),
            similarity_func=lambda *_, **__: torch.ones(1),
            perturb_func=perturbed,
        )
        expected = reference.attribute(
            images[number : number + 1].float(),
            target=int(targets[number]),
            feature_mask=features,
            n_samples=60,
            return_input_shape=False,
        )
        torch.testing.assert_close(found[number].flatten().float(), expected[0], atol=1e-4, rtol=1e-4)
        assert expected.std() > 1e-3


def test_images_with_equal_seeds_share_their_patterns_and_are_as_one_image_alone(small, images, targets):
    lime = LIME(small, 50)
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
    """Standard errors of least squares from the residuals, of both fits together; 48 coefficients within 5 of them."""
    count, own = 800, [21, 22, 23]
    lime = LIME(small, count, output="logit")
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
def test_lime_of_all_runs_is_that_of_each_run(seeds, classifier, images):
    seeds, targets = torch.tensor(seeds), torch.tensor([[0, 1, 2], [2, 2, 1]])
    both = LIME(classifier, 30).explain_runs(images, targets, seeds)
    assert both.shape == (2, 3, GRID, GRID)
    for run in range(2):
        alone = LIME(classifier.run(run), 30).explain(images, targets[run], seeds)
        torch.testing.assert_close(both[run], alone, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(both[0], both[1])


def test_lime_recovers_a_classifier_that_is_linear_in_its_patches(images, targets, seeds):
    linear = Classifier(Coloured(), random_head(1, 3, 20)).eval()
    tiles = images.double().numpy().reshape(3, GRID, 16, GRID, 16, 3).mean(axis=(2, 4)) / 255
    expected = np.stack(
        [
            tile @ linear.head_weight[0, target].double().numpy() / GRID**2
            for tile, target in zip(tiles, targets, strict=True)
        ]
    )
    np.testing.assert_allclose(LIME(linear, 100, output="logit").explain(images, targets, seeds), expected, atol=1e-4)
    probability = LIME(linear, 100).explain(images, targets, seeds)
    assert (probability - torch.from_numpy(expected)).abs().max() > 1e-2
    assert probability.abs().max() < 1


def test_a_patch_is_shown_as_often_as_lime_is_told(small, images, targets, seeds, monkeypatch):
    shown = []
    features = small.features
    monkeypatch.setattr(small, "features", lambda pixels: shown.append((pixels > 0).float().mean()) or features(pixels))
    for presence in (0.2, 0.8):
        shown.clear()
        LIME(small, 200, presence).explain(images, targets, seeds)
        assert np.mean(shown) == pytest.approx(presence, abs=0.05)


# CAM, Grad-CAM, Grad-CAM++ and Score-CAM


def test_cam_averages_to_the_logit_without_its_bias(classifier, images):
    targets = torch.tensor([[2, 0, 1], [1, 1, 0]])
    with torch.no_grad():
        flat = cam(classifier.extractor(images), classifier.head_weight, targets)
        logits = classifier(images)
    for run, number in itertools.product(range(2), range(3)):
        target = targets[run, number]
        expected = logits[run, number, target] - classifier.head_bias[run, target]
        torch.testing.assert_close(flat[run, number].mean(), expected, atol=1e-4, rtol=1e-4)
    for run in range(2):
        maps = CAM(classifier.run(run)).explain(images, targets[run], torch.arange(3))
        torch.testing.assert_close(maps.flatten(1), flat[run], atol=1e-4, rtol=1e-4)


def test_cam_puts_each_cell_where_it_is(small, images, targets, seeds):
    maps = CAM(small).explain(images, targets, seeds)
    moved = CAM(small).explain(images.roll((16, 32), dims=(1, 2)), targets, seeds)
    torch.testing.assert_close(moved, maps.roll((1, 2), dims=(1, 2)), atol=1e-5, rtol=1e-4)
    features = small.features(images)
    for row, column in [(0, 0), (1, 3), (3, 2)]:
        expected = [features[i, :, row, column] @ small.head_weight[0, target] for i, target in enumerate(targets)]
        torch.testing.assert_close(maps[:, row, column], torch.stack(expected), atol=1e-5, rtol=1e-4)


class Tapped(nn.Module):
    """A classifier with a layer to tap between its features and its head."""

    def __init__(self, classifier):
        super().__init__()
        self.classifier, self.layer = classifier, nn.Identity()

    def forward(self, images):
        return self.classifier.logits(self.layer(self.classifier.features(images)))[0]


@pytest.mark.parametrize("kind", ["classifier", "small"])
def test_grad_cam_is_captums_and_the_positive_part_of_cam_over_the_number_of_cells(
    kind, request, images, targets, seeds
):
    run = request.getfixturevalue(kind).run(0)
    found = GradCAM(run).explain(images, targets, seeds)
    tapped = Tapped(run)
    expected = LayerGradCam(tapped, tapped.layer).attribute(
        images.float().requires_grad_(), targets, relu_attributions=True
    )
    torch.testing.assert_close(found, expected[:, 0].detach(), atol=1e-5, rtol=1e-4)
    positive = CAM(run).explain(images, targets, seeds).clamp(min=0) / GRID**2
    torch.testing.assert_close(found, positive, atol=1e-5, rtol=1e-4)
    assert (found > 0).any()
    assert (found == 0).any()


@pytest.mark.parametrize("reading", ["sum of A g^3", "sum of A, times g^3"])
@pytest.mark.parametrize("kind", ["classifier", "small"])
def test_grad_cam_pp_is_its_formula_cell_by_cell(reading, kind, request, images, targets, seeds):
    run = request.getfixturevalue(kind).run(0)
    found = GradCAMPP(run).explain(images, targets, seeds)
    with torch.no_grad():
        features = run.features(images).double().numpy()
    cells = list(itertools.product(range(GRID), range(GRID)))
    for number, target in enumerate(targets.tolist()):
        total = np.zeros((GRID, GRID))
        for channel, activation in enumerate(features[number]):
            # average pooling: each cell has the same gradient, a 16th of the head's weight
            g = np.full((GRID, GRID), run.head_weight[0, target, channel].item() / 16)
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
    weight = small.head_weight.detach().clone()
    weight[:, :, 1] = 0
    found = GradCAMPP(Classifier(small.extractor, Head(weight, small.head_bias))).explain(images, targets, seeds)
    assert found.isfinite().all()
    assert (found > 0).any()
    weight[:] = 0
    assert (
        not GradCAMPP(Classifier(small.extractor, Head(weight, small.head_bias))).explain(images, targets, seeds).any()
    )


def test_score_cam_is_its_formula_channel_by_channel_without_the_constant_one(small, images, targets, seeds):
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
def test_rise_masks_are_random_grids_upsampled_and_cut(grid):
    seeds = torch.tensor([3, 8])
    masks = random_masks(seeds, 12, grid, 0.4, SIDE, torch.device("cpu"))
    for number, seed in enumerate(seeds.tolist()):
        found = masks(torch.full((12,), number), torch.arange(12))
        np.testing.assert_allclose(found, list(rise_masks_by_hand(seed, 12, grid, 0.4, SIDE)), atol=1e-5)
    picked = masks(torch.tensor([1, 0]), torch.tensor([7, 2]))
    assert picked[0].equal(masks(torch.tensor([1]), torch.tensor([7]))[0])
    assert picked[1].equal(masks(torch.tensor([0]), torch.tensor([2]))[0])


@pytest.mark.parametrize("presence", [0.1, 0.5])
def test_rise_masks_lie_in_the_unit_interval_and_show_as_much_as_asked(presence):
    shown = random_masks(torch.tensor([0]), 400, 5, presence, 33, torch.device("cpu"))(
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
    found = RISE(small, count, presence, 4).explain(images, targets, seeds)
    extractor = small.extractor
    for number, (target, seed) in enumerate(zip(targets.tolist(), seeds.tolist(), strict=True)):
        pixels, total = extractor.normalised(images[number : number + 1]), np.zeros((SIDE, SIDE))
        for mask in rise_masks_by_hand(seed, count, 4, presence, SIDE):
            (seen,) = extractor.of_normalised(pixels * torch.from_numpy(mask).float())
            total += probabilities(small, seen)[target] * mask
        np.testing.assert_allclose(found[number], total / (count * presence), atol=1e-4)


# Explanation modules


@pytest.mark.parametrize("variant", MODULES)
def test_attention_is_the_softmax_of_the_modules_logits(variant, classifier, images, targets, seeds):
    explainer = method(f"attention {variant}", classifier.run(0))
    found = explainer.explain(images, targets, seeds)
    with torch.no_grad():
        features = classifier.extractor.feature_map(images).double().numpy()
    scores = np.einsum("bchw,c->bhw", features, explainer.module.weight[0].double().numpy()) - 40.4
    assert (scores > 0).any()
    assert (scores < 0).any()
    logits = scores if variant == "l2x_f" else np.minimum(scores, 0)
    odds = np.exp(0.1 * logits)
    np.testing.assert_allclose(found, odds / odds.sum(axis=(1, 2), keepdims=True), rtol=1e-4)
    np.testing.assert_allclose(found.sum(dim=(1, 2)), 1, rtol=1e-9)


# Controls


def test_the_constant_map_is_constant(small, images, targets, seeds):
    assert Constant(small).explain(images, targets, seeds).unique().tolist() == [1]


def test_the_random_map_knows_its_seed_and_the_size_of_the_feature_map_alone(classifier, folded, images, targets):
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


def test_edges_are_sobels_and_know_no_classifier(small, folded, images, targets, seeds):
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


# Random cascade


def parameters(classifier):
    return {name: value.detach().clone() for name, value in classifier.named_parameters()}


@pytest.fixture(scope="module")
def levels(classifier, images):
    return list(cascade(classifier.run(0), 12, images))


def test_the_cascade_starts_with_the_head_and_goes_down_to_the_first_layer(classifier):
    wanted = ["head", "layer4.0", "layer3.0", "layer2.0", "layer1.0", "bn1", "conv1.6"]
    assert cascade_levels(classifier) == [*wanted, "conv1.4", "conv1.3", "conv1.1", "conv1.0"]


def test_each_level_of_the_cascade_changes_one_more_layer_and_the_last_all_parameters(classifier, levels):
    names, before = cascade_levels(classifier), parameters(classifier.run(0))
    original = before
    assert len(levels) == len(names)
    for level, random in zip(names, levels, strict=True):
        after = parameters(random)
        prefixes = ("head_weight", "head_bias") if level == "head" else (f"extractor.model.{level}.",)
        changed = {name for name in after if not after[name].equal(before[name])}
        assert changed == {name for name in after if name.startswith(prefixes)}
        before = after
    assert not any(before[name].equal(original[name]) for name in original)


def test_the_cascade_leaves_the_original_and_what_is_done_to_one_level_does_not_reach_the_next(classifier, images):
    original = copy.deepcopy(classifier.run(0))
    given = copy.deepcopy(original)
    for expected, random in zip(cascade(given, 1, images), cascade(given, 1, images), strict=True):
        assert not any(module.training for module in random.modules())
        for name, value in random.state_dict().items():
            assert value.equal(expected.state_dict()[name])
        with torch.no_grad():
            for value in random.state_dict().values():
                value.fill_(7)
    for name, value in given.state_dict().items():
        assert value.equal(original.state_dict()[name])


def normalised(network, images):
    """Each batch normalisation by name: the mean and variance of its input for these images, and those it holds."""
    found, handles = {}, []
    for name, norm in network.named_modules():
        if isinstance(norm, nn.BatchNorm2d):

            def look(norm, inputs, name=name):
                values = inputs[0].transpose(0, 1).flatten(1)
                found[name] = torch.stack([values.mean(1), values.var(1), norm.running_mean, norm.running_var])

            handles.append(norm.register_forward_pre_hook(look))
    with torch.no_grad():
        network.feature_map(images)
    for handle in handles:
        handle.remove()
    return found


def test_batch_norm_of_random_layers_takes_its_statistics_from_the_images_and_that_of_others_keeps_them(classifier):
    """Up to the difference of biased and unbiased variances of 960 values or more, layer upon layer."""
    images = torch.randint(0, 256, (60, SIDE, SIDE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    old, levels = normalised(classifier.extractor, images), cascade(classifier, 12, images)
    random: tuple[str, ...] = ()
    for level, network in zip(cascade_levels(classifier), levels, strict=True):
        random += (level,)
        for name, (mean, variance, held_mean, held_variance) in normalised(network.extractor, images).items():
            if name.removeprefix("model.").startswith(random):
                torch.testing.assert_close(held_mean, mean, rtol=0.01, atol=0.01 * variance.mean().sqrt().item())
                torch.testing.assert_close(held_variance, variance, rtol=0.01, atol=0)
            else:
                assert torch.stack([held_mean, held_variance]).equal(old[name][2:])
                assert not held_mean.equal(mean)


def test_a_deep_random_network_keeps_the_size_of_its_features():
    """Without statistics of its own those of a random EfficientNet are larger by more than a factor of 1,000."""
    torch.manual_seed(0)
    extractor = build_backbone(Backbone("tf_efficientnetv2_b0", "none", "imagenet"), 64)
    images = torch.randint(0, 256, (16, 64, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        for norm in (part for part in extractor.modules() if isinstance(part, nn.BatchNorm2d)):
            norm.weight.normal_(1, 0.5)
            norm.momentum = None
        extractor.feature_map(images)  # in training mode: its own statistics
        extractor.eval()
        before = extractor.feature_map(images).std()
        *_, last = cascade(Classifier(extractor, Head(torch.randn(1, 3, 1280), torch.zeros(1, 3))), 0, images)
        after = last.features(images).std()
    assert 0.2 < after / before < 5


def test_a_network_without_batch_norm_needs_no_statistics(images):
    extractor = build_backbone(Backbone("test_convnext2", "none", "imagenet"), SIDE).eval()
    given = Classifier(extractor, Head(torch.randn(1, 3, extractor.model.num_features), torch.zeros(1, 3))).eval()
    for random in cascade(given, 0, images):
        assert random(images).isfinite().all()


def test_random_parameters_have_the_mean_and_spread_of_the_old_ones(classifier, levels):
    """Means within 5 standard errors and spreads within 5 of theirs, for each of the 47 tensors."""
    old, new = parameters(classifier.run(0)), parameters(levels[-1])
    assert len(old) == 47
    for name, values in old.items():
        count, spread = values.numel(), values.std(correction=0)
        assert abs(new[name].mean() - values.mean()) < 5 * spread / count**0.5
        assert abs(new[name].std(correction=0) / spread - 1) < 5 / (2 * count) ** 0.5
    large = new["extractor.model.layer4.0.conv1.weight"].flatten()
    assert stats.kstest((large - large.mean()) / large.std(), "norm").pvalue > 0.001


def test_the_cascade_belongs_to_its_seed_and_each_layer_draws_its_own_numbers(classifier, levels, images):
    again, other = (list(cascade(classifier.run(0), seed, images)) for seed in (12, 13))
    for mine, same, different in zip(levels, again, other, strict=True):
        assert all(value.equal(same.state_dict()[name]) for name, value in mine.state_dict().items())
        assert not mine.head_weight.equal(different.head_weight)
    last, different = parameters(levels[-1]), parameters(other[-1])
    assert not any(last[name].equal(different[name]) for name in last)
    names = ["head_weight", *(f"extractor.model.layer{number}.0.conv1.weight" for number in (1, 2, 3, 4))]
    drawn = np.corrcoef([last[name].flatten()[:280] for name in names])
    assert np.abs(drawn - np.eye(5)).max() < 5 / 280**0.5


def test_maps_change_along_the_cascade(classifier, levels, images, targets, seeds):
    maps = GradCAM(classifier.run(0)).explain(images, targets, seeds)
    for random in levels:
        other = GradCAM(random).explain(images, targets, seeds)
        assert other.isfinite().all()
        assert not torch.allclose(other, maps)


# Rank correlation


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


@torch.no_grad()
def test_a_module_is_trained_anew_as_well_on_features_too_large_for_half_precision():
    torch.manual_seed(0)
    extractor = build_backbone(Backbone("test_resnet", "none", "imagenet", 16), SIDE).eval().requires_grad_(False)
    normal = Classifier(extractor, Head(torch.randn(1, CLASSES, CHANNELS), torch.zeros(1, CLASSES))).eval()
    large = copy.copy(normal)
    large.features = lambda images: 1e6 * normal.features(images)
    images = torch.randint(0, 256, (40, SIDE, SIDE, 3), dtype=torch.uint8)
    features = normal.features(images).flatten(2).transpose(1, 2)[None]
    variant, labels, schedule = VARIANTS["l2x_f"], torch.arange(40) % 3, Schedule(8, 3, 0.05, 0.2, 1e-7)
    with torch.enable_grad():
        found = retrained_maps(variant, [normal, large], [features, 1e6 * features], labels, schedule, 0, images[:4])
    assert found[0].std() > 0
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4)
