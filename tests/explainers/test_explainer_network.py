"""The Explainer: terms of its objective, computed by hand, its training, and its masks."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from small_networks import SIDE, Small, random_head
from torch import nn
from torch.nn.functional import conv2d, cross_entropy, pad

from bla.base.errors import BlaError
from bla.base.specs import Schedule
from bla.explainers.all_maps import features_of, retrained_maps
from bla.explainers.contract import check_explainer, check_learned
from bla.explainers.explanandum import (
    ExplainerSettings,
    area_bounds,
    class_loss,
    entropy_term,
    multi_hot,
    objective,
    show,
    target_and_other,
    total_variation,
)
from bla.explainers.interface import CONSTANTS, TrainingData
from bla.explainers.learned.explainer_network import ExplainerNetwork
from bla.explainers.mask_networks import build_network, empty_network
from bla.method.modules import Head
from bla.networks.classifier import Classifier

CPU = torch.device("cpu")
SCHEDULE = Schedule(batch_size=2, epochs=2, learning_rate=0.01, dropout=0.2, adam_epsilon=1e-7)
SEVERAL = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1]]).bool()
"""Labels of three images: two classes, none, all."""


def data_of(classifier, images, labels):
    features = features_of(classifier, images).half()
    return TrainingData(features, (4, 4), images.numpy(), labels, SCHEDULE, CPU)


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


# -- the terms


def test_area_bounds_of_a_constant_half_mask():
    mask = torch.full((224, 224), 0.5)
    assert area_bounds(mask, 0.05, 0.3).item() == pytest.approx(0.3750000, abs=1e-6)
    upper_only = area_bounds(mask, 1e-9, 0.3)
    assert upper_only.item() == pytest.approx(0.3500080, abs=1e-6)
    assert area_bounds(mask, 0.05, 0.3).item() - upper_only.item() == pytest.approx(0.0249920, abs=1e-6)


@pytest.mark.parametrize("share", [0.05, 0.0501, 0.17, 0.2999])
def test_a_mask_of_zeros_and_ones_within_the_bounds_costs_nothing(share):
    mask = torch.zeros(224 * 224)
    mask[torch.randperm(224 * 224, generator=torch.Generator().manual_seed(0))[: round(share * 224**2)]] = 1
    assert area_bounds(mask.view(224, 224), 0.05, 0.3).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("area", "missed"), [(0, 0.05), (40, 0.01), (60, 0), (400, 0.1), (1000, 0.7)])
def test_area_bounds_are_the_missing_or_surplus_pixels(area, missed):
    mask = torch.zeros(1000)
    mask[:area] = 1
    assert area_bounds(mask.view(25, 40), 0.05, 0.3).item() == pytest.approx(missed, abs=1e-6)


def test_area_bounds_are_those_of_the_sorted_pixels():
    masks = random(2, 3, 7, 9)
    values = np.sort(masks.flatten(2).numpy(), axis=2)[..., ::-1]
    low, high = (np.arange(63) < math.floor(share * 63) for share in (0.2, 0.6))
    expected = np.maximum(low - values, 0).mean(axis=2) + np.maximum(values - high, 0).mean(axis=2)
    np.testing.assert_allclose(area_bounds(masks, 0.2, 0.6), expected, rtol=1e-5)


@pytest.mark.parametrize(("classes", "value"), [(20, -0.1497866), (91, -0.0495699), (1000, -0.0069078)])
def test_the_entropy_term_of_uniform_scores(classes, value):
    assert entropy_term(torch.full((2, classes), 3.7)).tolist() == pytest.approx([value, value], abs=1e-6)


def test_the_entropy_term_of_certain_scores_is_zero_and_has_a_gradient():
    logits = torch.tensor([[1000.0, 0, -1000]], requires_grad=True)
    value = entropy_term(logits)
    assert value.item() == 0
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert gradient.isfinite().all()


def test_total_variation_is_that_of_filters_with_reflected_edges():
    masks = random(4, 5, 6)
    padded = pad(masks[:, None], (1, 1, 1, 1), mode="reflect")
    right, below = torch.zeros(2, 1, 1, 3, 3)
    right[..., 1, 1], right[..., 1, 2], below[..., 1, 1], below[..., 2, 1] = -1, 1, -1, 1
    expected = (conv2d(padded, right).abs() + conv2d(padded, below).abs()).mean(dim=(1, 2, 3))
    torch.testing.assert_close(total_variation(masks), expected)
    assert total_variation(torch.full((1, 5, 6), 0.3)).item() == 0
    half = torch.zeros(1, 4, 4)
    half[:, :, 2:] = 1  # a step in each row
    assert total_variation(half).item() == pytest.approx(4 / 16)


def test_masks_are_the_largest_of_the_classes_that_are_present_and_of_the_others():
    logits = torch.randn(3, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    target, other = target_and_other(logits, SEVERAL)
    torch.testing.assert_close(target[0], torch.maximum(logits[0, 0], logits[0, 2]).sigmoid())
    torch.testing.assert_close(other[0], logits[0, 1].sigmoid())
    assert not target[1].any()  # no class is present
    torch.testing.assert_close(other[1], logits[1].amax(dim=0).sigmoid())
    assert not other[2].any()  # all are


def test_hidden_pixels_get_the_mean_colour_and_normalised_pixels_are_multiplied():
    images, masks, mean = random(2, 3, 4, 3) * 255, random(2, 3, 4, seed=1), torch.tensor([120.0, 110, 90])
    torch.testing.assert_close((show(images, masks, mean) - mean) / 60, (images - mean) / 60 * masks[..., None], rtol=1e-4, atol=1e-5)  # fmt: skip
    assert show(images, torch.zeros(2, 3, 4), mean).flatten(0, 2).unique(dim=0).tolist() == [mean.tolist()]
    assert show(images, torch.ones(2, 3, 4), mean).equal(images)


def test_the_class_loss_is_a_mean_over_classes_for_sigmoid_scores():
    logits = torch.tensor([[2.0, -1, 0.5]])
    odds = [np.log1p(np.exp(-2)), np.log1p(np.exp(-1)), np.log1p(np.exp(0.5))]  # classes 0, then not 1, not 2
    assert class_loss("sigmoid", logits, torch.tensor([[True, False, False]])).item() == pytest.approx(np.mean(odds))
    assert class_loss("sigmoid", logits, torch.tensor([0])).item() == pytest.approx(np.mean(odds))
    expected = np.log(np.exp([2, -1, 0.5]).sum()) - 2
    assert class_loss("softmax", logits, torch.tensor([0])).item() == pytest.approx(expected)


@pytest.mark.parametrize(("scores", "labels"), [("softmax", torch.tensor([2, 0, 1])), ("sigmoid", SEVERAL)])
def test_the_objective_is_the_sum_of_its_terms(scores, labels):
    settings = ExplainerSettings(entropy=0.7, variation=0.2, area_bounds=0.6, target_area=0.4, other_area=0.9)
    images, mean = random(3, 8, 8, 3) * 255, torch.tensor([120.0, 110, 90])
    logits = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    weight, seen = torch.randn(3, 3, generator=torch.Generator().manual_seed(1)) / 50, []

    def classify(shown):
        seen.append(shown)
        return shown.mean(dim=(1, 2)) @ weight

    found = objective(settings, scores, classify, mean, images, labels, logits).item()
    (given,) = seen
    present, expected = multi_hot(labels, 3), 0.0
    for i in range(3):
        masks = logits[i].sigmoid()
        m = masks[present[i]].amax(dim=0) if present[i].any() else torch.zeros(8, 8)
        n = masks[~present[i]].amax(dim=0) if not present[i].all() else torch.zeros(8, 8)
        torch.testing.assert_close(given[i], show(images[i : i + 1], m[None], mean)[0])
        torch.testing.assert_close(given[3 + i], show(images[i : i + 1], 1 - m[None], mean)[0])
        shown, hidden = given[i].mean(dim=(0, 1)) @ weight, given[3 + i].mean(dim=(0, 1)) @ weight
        if scores == "softmax":
            loss = cross_entropy(shown, labels[i])
        else:
            loss = -torch.where(present[i], shown.sigmoid(), 1 - shown.sigmoid()).log().mean()
        p = hidden.softmax(dim=0)
        loss += 0.7 * (p * p.log()).mean() + 0.4 * m.mean() + 0.9 * n.mean()
        loss += 0.2 * (total_variation(m[None]) + total_variation(n[None]))[0]
        loss += 0.6 * sum(area_bounds(masks[k], 0.05, 0.3) for k in range(3) if present[i, k])
        expected += loss.item() / 3
    assert found == pytest.approx(expected, rel=1e-4)


def test_an_image_without_a_class_has_a_finite_gradient():
    logits = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    images, mean = random(3, 8, 8, 3) * 255, torch.zeros(3)
    value = objective(ExplainerSettings(), "sigmoid", lambda x: x.mean(dim=(1, 2)), mean, images, SEVERAL, logits)
    (gradient,) = torch.autograd.grad(value, logits)
    assert gradient.isfinite().all()
    assert gradient[1].any()  # its masks should shrink


# -- settings and networks


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"smallest_area": 0.4}, "smallest_area: 0.4 is more than largest_area, 0.3; lower it"),
        ({"network": "deeplab_v3", "batch_size": 2}, "batch_size: 2 is too small for batch normalisation"),
        ({"network": "unet"}, "Input should be 'small' or 'deeplab_v3'"),
        ({"entropy": -1}, "greater than or equal to 0"),
        ({"entropie": 1}, "Unexpected keyword argument"),
    ],
)
def test_wrong_settings_are_refused(wrong, message):
    with pytest.raises(ValidationError, match=message.replace(".", r"\.")):
        TypeAdapter(ExplainerSettings).validate_python(wrong)


@pytest.mark.parametrize("side", [32, 50, 64])
def test_the_small_network_gives_a_logit_for_each_class_and_pixel(side):
    network = build_network("small", 5, 0)
    assert network(torch.randn(2, 3, side, side + 8)).shape == (2, 5, side, side + 8)
    assert sum(value.numel() for value in network.parameters()) < 200_000


@pytest.mark.slow
def test_deeplab_is_trained_and_used_like_the_small_network(images):
    classifier = Classifier(Small(), random_head(2, 6)).eval()
    method = ExplainerNetwork(classifier, ExplainerSettings(network="deeplab_v3", runs=1, epochs=1, batch_size=3))
    data = data_of(classifier, images, torch.tensor([2, 0, 1]))
    state = method.fit(data, [5])
    counts = state["network.backbone.bn1.num_batches_tracked"]
    assert counts.tolist() == [1]  # one batch: statistics are saved with the weights
    maps = method.load(state).explain(images, torch.tensor([0, 1, 2]), torch.arange(3))
    assert maps.shape == (3, SIDE, SIDE)
    alone = method.explain(images[1:2], torch.tensor([1]), torch.arange(1))
    torch.testing.assert_close(alone[0], maps[1], rtol=1e-4, atol=1e-5)  # evaluation mode


def test_an_empty_network_computes_with_the_weights_that_it_is_given():
    network, pixels = build_network("small", 4, 7).eval(), torch.randn(1, 3, 32, 32)
    empty = empty_network("small", network.state_dict())
    torch.testing.assert_close(torch.func.functional_call(empty, network.state_dict(), (pixels,)), network(pixels))


# -- training


class Stochastic(nn.Module):
    """A tail whose scores are random in training mode: dropout, as in VGG-16."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(6, 3))
        self.requires_grad_(False)

    def forward(self, features):
        return self.layers(features.float())[None]


@pytest.mark.parametrize("scores", ["softmax", "sigmoid"])
def test_it_keeps_the_promises_of_learned_methods(scores, images, targets):
    classifier = Classifier(Small(), random_head(2, 6), scores).eval()
    labels = torch.tensor([0, 1, 2]) if scores == "softmax" else SEVERAL
    method = ExplainerNetwork(classifier, ExplainerSettings(epochs=2, batch_size=2))
    check_learned(method, data_of(classifier, images, labels), [5, 6])
    assert method.state["losses"].shape == (2, 2)
    check_explainer(method.run(1), images, targets)
    both = method.explain_runs(images, torch.stack([targets, targets]), torch.arange(3))
    assert both.shape == (2, 3, SIDE, SIDE)
    assert ((both >= 0) & (both <= 1)).all()


def test_the_frozen_classifier_stays_in_evaluation_mode(images):
    classifier = Classifier(Small(), Stochastic()).eval()
    method = ExplainerNetwork(classifier, ExplainerSettings(epochs=3, batch_size=3, runs=1))
    data = data_of(classifier, images, torch.tensor([2, 0, 1]))
    states = []
    for seed in range(2):  # dropout would draw from the global state
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            states.append(method.fit(data, [1]))
    for name, value in states[0].items():
        assert value.equal(states[1][name]), name
    assert not any(module.training for module in classifier.modules())


class Colours(nn.Module):
    """A backbone that passes on colours, averaged over 8 x 8 pixels."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.full((3, 1, 1), 100.0))
        self.scale = nn.Parameter(torch.tensor(20.0), requires_grad=False)

    def feature_map(self, images):
        pixels = (images.permute(0, 3, 1, 2).float() - self.mean) / self.scale
        return nn.functional.avg_pool2d(pixels, 8)


def test_it_learns_to_show_where_the_class_is_and_beats_constant_masks():
    """A bright square in one corner; its colour is the class, and the classifier sees colours only."""
    generator, count = torch.Generator().manual_seed(0), 48
    images = torch.randint(90, 110, (count, 32, 32, 3), generator=generator, dtype=torch.uint8)
    labels, corners = torch.arange(count) % 3, torch.randint(0, 4, (count,), generator=generator)
    truth = torch.zeros(count, 32, 32, dtype=torch.bool)
    for i in range(count):
        top, left = 16 * int(corners[i] // 2), 16 * int(corners[i] % 2)
        truth[i, top : top + 14, left : left + 14] = True
        images[i, top : top + 14, left : left + 14, labels[i]] = 250
    head = Head(8 * torch.eye(3)[None], torch.zeros(1, 3))
    classifier = Classifier(Colours(), head).eval()
    data = TrainingData(features_of(classifier, images), (4, 4), images.numpy(), labels, SCHEDULE, CPU)
    method = ExplainerNetwork(classifier, ExplainerSettings(runs=1, epochs=20, batch_size=8, learning_rate=0.005))
    method.load(method.fit(data, [3]))
    assert method.state["losses"][0, -1] < method.state["losses"][0, 0]
    value, constant = method.objective(data, [3])[0]
    assert value < constant
    masks = method.explain(images, labels, torch.arange(count))
    inside = (masks * truth).sum() / masks.sum()
    assert inside > 3 * truth.float().mean()


def test_it_uses_at_most_so_many_images_and_runs(images):
    classifier = Classifier(Small(), random_head(3, 6)).eval()
    assert ExplainerNetwork(classifier, ExplainerSettings(runs=2)).fitted_runs == 2
    assert ExplainerNetwork(classifier, ExplainerSettings(runs=9)).fitted_runs == 3
    many = torch.randint(0, 256, (10, SIDE, SIDE, 3), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    data = data_of(classifier, many, torch.arange(10) % 3)
    settings = ExplainerSettings(images=4, epochs=1, batch_size=2, runs=1)
    few = replace(data, images=data.images[[0, 2, 5, 7]], labels=data.labels[[0, 2, 5, 7]])
    state, of_few = (ExplainerNetwork(classifier, settings).fit(each, [5]) for each in (data, few))
    assert set(state) - set(of_few) == {"short_training"}
    for name, value in of_few.items():
        assert value.equal(state[name]), name
    assert ExplainerNetwork.title_of(state) == "Explainer (short training)"
    assert ExplainerNetwork.title_of(of_few) == "Explainer"
    short = ExplainerNetwork(classifier.run(0), settings)
    assert short.load(state).explain(images, torch.zeros(3, dtype=torch.int64), torch.zeros(3)).shape == (3, SIDE, SIDE)


def test_each_run_learns_from_its_own_classifier(images):
    classifier = Classifier(Small(), random_head(2, 6)).eval()
    data, settings = data_of(classifier, images, torch.tensor([2, 0, 1])), ExplainerSettings(epochs=2, batch_size=3)
    both = ExplainerNetwork(classifier, settings).fit(data, [5, 5])
    assert not both["last.weight"][0].equal(both["last.weight"][1])
    alone = ExplainerNetwork(classifier.run(1), settings).fit(data, [5])
    for name, value in alone.items():
        torch.testing.assert_close(both[name][1], value[0])


def test_a_loss_that_is_not_finite_is_refused(images):
    head = random_head(1, 6)
    classifier = Classifier(Small(), type(head)(head.weight * torch.nan, head.bias)).eval()
    data = data_of(classifier, images, torch.tensor([2, 0, 1]))
    with pytest.raises(BlaError, match="the training loss is not finite in epoch 1; lower learning_rate"):
        ExplainerNetwork(classifier, ExplainerSettings(epochs=1)).fit(data, [0])


def test_it_can_be_fitted_to_a_random_classifier_with_scaled_features(classifier, images, targets):
    one = classifier.run(0)
    data = data_of(one, images, torch.tensor([2, 0, 1]))
    maps = retrained_maps(lambda model: ExplainerNetwork(model, ExplainerSettings(epochs=1)), [one, one], [data, data], 1, images, targets, torch.arange(3))  # fmt: skip
    assert maps.shape == (2, 3, 16)
    np.testing.assert_array_equal(maps[0], maps[1])


# -- trained or not


@pytest.mark.parametrize("scores", ["softmax", "sigmoid"])
def test_the_best_constant_mask_is_the_best_of_the_eleven_values(scores, images):
    classifier = Classifier(Small(), random_head(1, 6), scores).eval()
    labels = torch.tensor([2, 0, 1]) if scores == "softmax" else SEVERAL
    settings = ExplainerSettings(batch_size=2, entropy=3)
    method = ExplainerNetwork(classifier, settings)
    state = {name: value[None].clone() for name, value in build_network("small", 3, 0).state_dict().items()}
    state["last.weight"].zero_()
    state["last.bias"].fill_(torch.tensor(0.25).logit())
    method.load(state | {"losses": torch.zeros(1, 1)})
    present, values, mean = multi_hot(labels, 3), [], classifier.extractor.mean.flatten()
    for c in CONSTANTS:
        m, n = (torch.where(which.any(dim=1), c, 0.0)[:, None, None, None] for which in (present, ~present))
        shown, hidden = (classifier((images - mean) * share + mean)[0] for share in (m, 1 - m))
        loss = class_loss(scores, shown, labels) + 3 * entropy_term(hidden) + 0.1 * m.flatten() + 0.3 * n.flatten()
        missed = area_bounds(torch.full((SIDE, SIDE), c), 0.05, 0.3)
        values.append((loss.mean() + missed * present.sum() / 3).item())
    value, constant = method.objective(data_of(classifier, images, labels), [0])[0].tolist()
    assert constant == pytest.approx(min(values), rel=1e-4, abs=1e-6)
    assert value == pytest.approx(values[5], rel=1e-4, abs=1e-6)  # 0.25 is the sixth constant
