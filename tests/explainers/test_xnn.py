"""XNN: the terms of its objective by hand, the number of x-features, and a logit that is made of two features."""

import math
from itertools import pairwise

import pytest
import torch
from small_networks import CLASSES

from bla.base.errors import BlaError
from bla.base.specs import Schedule
from bla.explainers.all_maps import features_of
from bla.explainers.contract import check_explainer, check_learned
from bla.explainers.interface import TrainingData
from bla.explainers.learned.xnn import XNN, pooled_and_logits
from bla.explainers.mask_optimisation import MaskSettings
from bla.explainers.x_features import (
    XNNSettings,
    chosen,
    encode,
    fit_class,
    grad_cams,
    log_penalty,
    pull_away,
    r_squared,
)
from bla.networks.classifier import Classifier, NoBackbone


def test_the_log_penalty_of_an_error_of_a_tenth_is_ln_2_in_any_batch():
    for images in (1, 7):
        assert log_penalty(torch.full((images, 30), 0.1)).item() == pytest.approx(math.log(2), rel=1e-6)
    assert log_penalty(torch.tensor([[0.1, 0], [-0.1, 0.2]])).item() == pytest.approx((math.log(2) + math.log(3)) / 2)


@pytest.mark.parametrize(
    ("vectors", "value"),
    [
        ([[1, 2, 3]] * 4, 1),
        ([[2, 0, 0], [0, 3, 0], [0, 0, 0.1]], 0),
        ([[1, 0], [-2, 0]], 1),  # the cosine is squared
        ([[1, 0], [1, 1]], 0.5),
        ([[1, 0], [0, 1], [1, 1]], 1 / 3),  # 0, 1/2 and 1/2
    ],
)
def test_pull_away_is_the_mean_squared_cosine_of_pairs(vectors, value):
    assert pull_away(torch.tensor(vectors).float()).item() == pytest.approx(value, abs=1e-6)


def test_dead_vectors_do_not_count_and_send_no_gradient():
    """With 1e-8 added before normalising, two dead ones are parallel: 1, and not 0."""
    live = torch.tensor([[2.0, 0, 0], [1, 1, 0]])
    with_dead = torch.cat([live, torch.zeros(2, 3)]).requires_grad_()
    value = pull_away(with_dead)
    assert value.item() == pytest.approx(pull_away(live).item()) == pytest.approx(0.5)
    (gradient,) = torch.autograd.grad(value, with_dead)
    assert gradient.isfinite().all()
    assert (gradient[2:] == 0).all()
    assert pull_away(torch.zeros(4, 3)) == 0
    assert pull_away(torch.tensor([[1.0, 0], [0, 0]])) == 0


@pytest.mark.parametrize("shape", [(1, 5), (5, 1)])
def test_a_batch_of_one_image_divides_by_nothing(shape):
    vectors = torch.arange(1.0, 6).view(shape).requires_grad_()
    value = pull_away(vectors)
    assert value.item() == pytest.approx(0 if shape[0] == 1 else 1)
    assert torch.autograd.grad(value, vectors)[0].isfinite().all()


def test_r_squared_is_0_for_the_mean_and_1_for_the_logits():
    logits = torch.tensor([1.0, 2, 6])
    assert r_squared(logits, logits) == 1
    assert r_squared(torch.full((3,), 3.0), logits).item() == pytest.approx(0)
    assert r_squared(torch.tensor([1.0, 2, 3]), logits).item() == pytest.approx(1 - 9 / 14)


def test_as_few_x_features_as_the_prediction_needs():
    generator = torch.Generator().manual_seed(0)
    contributions = torch.rand(500, 5, generator=generator) * torch.tensor([0.01, 3, 0, 0.02, 2])
    logits = contributions.sum(dim=1) + 4
    assert chosen(contributions, logits, torch.tensor(4.0)).tolist() == [1, 4]
    assert chosen(contributions[:, :1], logits, torch.tensor(0.0)).tolist() == [0]
    dead = torch.zeros(500, 3)
    assert len(chosen(dead, logits, logits.mean())) == 1


def random_layers(*widths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(b, a, generator=generator) / a**0.5, torch.randn(b, generator=generator) / 5) for a, b in pairwise(widths)]  # fmt: skip


def test_grad_cam_of_an_x_feature_equals_autograd():
    layers, generator = random_layers(12, 9, 8, 4), torch.Generator().manual_seed(1)
    maps = torch.rand(3, 12, 2, 5, generator=generator).requires_grad_()
    x, cams = grad_cams(layers, maps)
    values = encode(layers, maps.mean(dim=(2, 3)))[-1]
    torch.testing.assert_close(x, values)
    assert (values == 0).any()
    for number in range(4):
        (gradient,) = torch.autograd.grad(values[:, number].sum(), maps, retain_graph=True)
        expected = (gradient.mean(dim=(2, 3), keepdim=True) * maps).sum(dim=1).relu()
        torch.testing.assert_close(cams[:, number], expected)
    assert (cams[values == 0] == 0).all()


def test_grad_cam_of_no_image_is_none():
    x, cams = grad_cams(random_layers(12, 9, 8, 4), torch.zeros(0, 12, 2, 5))
    assert (x.shape, cams.shape) == ((0, 4), (0, 4, 2, 5))


SHORT = XNNSettings(batch_size=20, epochs=60, learning_rate=0.01, weight_decay=0)


def made_of_two(images=400, channels=12):
    """Features of which two, never active together, make the logit; all others are noise."""
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(images, channels, generator=generator)
    first = torch.rand(images, generator=generator) < 0.5
    features[:, 3] *= first
    features[:, 7] *= ~first
    return features[None], (4 * features[:, 3] - 3 * features[:, 7] - 1)[None]


def test_a_logit_that_two_features_make_is_found_with_two_x_features():
    features, logits = made_of_two()
    state = fit_class(features[:, :300], logits[:, :300], SHORT, 3, 0)
    layers = [(state[f"encoder.{i}.weight"], state[f"encoder.{i}.bias"]) for i in range(3)]
    contributions = encode(layers, features[0, 300:])[-1] * state["head.weight"]
    assert r_squared(contributions.sum(dim=1) + state["head.bias"], logits[0, 300:]) > 0.95
    assert state["r_squared"] > 0.95
    assert state["converged"] == 1
    used = contributions[:, state["head.weight"] != 0]
    assert 2 <= used.shape[1] < 5
    # One feature may be shared by several x-features, but its sign tells them from those of the other feature.
    for feature, part in ((3, used.clamp(min=0)), (7, used.clamp(max=0))):
        assert torch.corrcoef(torch.stack([part.sum(dim=1), features[0, 300:, feature]]))[0, 1].abs() > 0.95
    assert pull_away(used.T) < 0.1


def test_training_survives_a_last_batch_of_one_image_and_constant_features_and_logits():
    features, logits = made_of_two(images=26)  # 21 to train on: 20 and 1
    features[..., 0] = 0.7
    for between in ("x_features", "images"):
        settings = XNNSettings(batch_size=20, epochs=3, pull_away_between=between)
        assert all(value.isfinite().all() for value in fit_class(features, logits, settings, 0, 0).values())
        constant = fit_class(features, torch.full_like(logits, 2.5), settings, 0, 0)
        assert all(value.isfinite().all() for value in constant.values())


def test_too_few_images_and_values_that_are_not_finite_are_one_message(monkeypatch):
    features, logits = made_of_two(images=9)
    with pytest.raises(BlaError, match="9 training images are too few"):
        fit_class(features, logits, SHORT, 0, 0)
    features, logits = made_of_two(images=40)
    with pytest.raises(BlaError, match="not finite, so XNN cannot be fitted"):
        fit_class(features, logits * torch.inf, SHORT, 0, 0)
    for value in (torch.nan, torch.inf):
        damaged = features.clone()
        damaged[-1, [4, 31], 0] = value
        with pytest.raises(BlaError, match="features of 2 of 40 training images are NaN or infinite: numbers 4, 31,"):
            fit_class(damaged, logits, SHORT, 0, 0)
    monkeypatch.setattr("bla.explainers.x_features.log_penalty", lambda errors: errors.sum() * torch.nan)
    with pytest.raises(BlaError, match=r"not finite in epoch \d+; lower learning_rate"):
        fit_class(features, logits, SHORT, 0, 0)


@pytest.fixture(scope="module")
def data(classifier):
    generator = torch.Generator().manual_seed(4)
    pixels = torch.randint(0, 256, (30, 64, 64, 3), generator=generator).to(torch.uint8)
    schedule = Schedule(batch_size=2, epochs=1, learning_rate=0.1, dropout=0, adam_epsilon=1e-7)
    features = features_of(classifier, pixels).half()
    return TrainingData(features, (4, 4), None, torch.arange(30) % CLASSES, schedule, torch.device("cpu"))


def test_it_keeps_the_promises_of_learned_methods(classifier, data, images, targets):
    method = XNN(classifier, XNNSettings(epochs=2))
    check_learned(method, data, [5, 6])
    assert method.state["head.weight"].shape == (2, CLASSES, 5)
    check_explainer(method.run(1), images, targets)


def test_a_run_does_not_depend_on_other_runs_or_threads(classifier, data):
    both = XNN(classifier, XNNSettings(epochs=2)).fit(data, [5, 6])
    settings = XNNSettings(epochs=2, runs=1)
    method, done = XNN(classifier, settings), []
    assert method.fitted_runs == 1
    alone = method.fit(data, [5], done.append)
    assert done == [1]
    for name, value in alone.items():
        torch.testing.assert_close(value[0], both[name][0], msg=name)


def test_maps_and_contributions_do_not_depend_on_the_batch(classifier, data, images):
    method = XNN(classifier, XNNSettings(epochs=2))
    method.load(method.fit(data, [5, 6]))
    means, logits = pooled_and_logits(classifier, data.features[0], data.grid, data.device)
    whole = method.contributions(means, 1)
    assert whole.shape == (30, CLASSES, 5)
    parts = [method.contributions(part, 1) for part in means.split(7)]
    torch.testing.assert_close(torch.cat(parts), whole)
    expected = torch.einsum("nc,rkc->rnk", means, classifier.tail.weight) + classifier.tail.bias[:, None]
    torch.testing.assert_close(logits, expected)


def test_the_map_is_that_of_the_active_x_feature_with_the_largest_contribution(classifier, data, images):
    method = XNN(classifier, XNNSettings(epochs=2))
    method.load(method.fit(data, [5, 6]))
    method.state["head.weight"][0, 1] = torch.tensor([-3.0, 2, 0, 1, -1])
    targets = torch.tensor([[1, 1, 1]])
    found = method.explain_runs(images, targets, torch.zeros(3))[0]
    maps = classifier.extractor.feature_map(images)
    x, cams = grad_cams(method.encoder(0, 1), maps)
    for image in range(3):
        contributions = {k: x[image, k] * w for k, w in enumerate([-3.0, 2, 0, 1, -1]) if w and x[image, k] > 0}
        expected = cams[image, max(contributions, key=contributions.get)] if contributions else 0 * cams[image, 0]
        torch.testing.assert_close(found[image], expected, rtol=1e-3, atol=1e-6)


def test_no_active_x_feature_gives_a_map_of_zeros(classifier, data, images):
    method = XNN(classifier, XNNSettings(epochs=2))
    method.load(method.fit(data, [5, 6]))
    method.state["encoder.2.bias"][0, 2] = -1e6
    assert (method.explain(images, torch.full((3,), 2), torch.zeros(3)) == 0).all()


def test_its_objective_is_the_error_beside_that_of_constant_logits(random_head):
    features, logits = made_of_two()
    head = random_head(2, 12)
    classifier = Classifier(NoBackbone(), head)
    data = TrainingData(features[:, :, None], (1, 1), None, torch.zeros(400), None, torch.device("cpu"))
    method = XNN(classifier, XNNSettings(epochs=1))
    method.load(method.fit(data, [1, 2]))
    found = method.objective(data, [1, 2])
    for run in range(2):
        means, logits = pooled_and_logits(classifier, features[0, :, None], (1, 1), data.device)
        predicted = method.contributions(means, run).sum(dim=2) + method.state["head.bias"][run]
        assert found[run, 0].item() == pytest.approx((predicted - logits[run]).square().mean().item(), rel=1e-4)
        spread = (logits[run] - logits[run].mean(dim=0)).square().mean()
        assert found[run, 1].item() == pytest.approx(spread.item(), rel=1e-4)


class Brightness(torch.nn.Module):
    """A backbone whose feature map is the red channel in cells of 8 x 8 pixels."""

    def __init__(self):
        super().__init__()
        self.mean, self.divisor = torch.nn.Parameter(torch.zeros(3)), torch.nn.Parameter(torch.full((3,), 255.0))

    def feature_map(self, images):
        return torch.nn.functional.avg_pool2d(images[..., 0].float()[:, None] / 255, 8)


def test_i_gos_of_an_x_feature_finds_the_pixels_that_it_needs_and_nothing_where_it_is_inactive():
    state = {
        "encoder.0.weight": torch.ones(1, 1, 2, 1) * torch.tensor([[1.0], [-1.0]]),
        "encoder.0.bias": torch.zeros(1, 1, 2),
        "head.weight": torch.ones(1, 1, 2),
    }
    method = XNN(Classifier(Brightness(), torch.nn.Identity())).load(state)
    images = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    images[:, 8:16, 8:16] = 255
    masks = MaskSettings(size=4, background="black", iterations=10, points=5, noise=0, area=0.1, variation=0)
    (of_positive,) = method.i_gos_maps(0, 0, 0, images, masks)
    assert of_positive[1, 1] > 0.9
    assert of_positive[3].max() < 0.1
    assert of_positive[:, 3].max() < 0.1
    (of_negative,) = method.i_gos_maps(0, 0, 1, images, masks)
    assert of_negative.eq(0).all()


@pytest.mark.parametrize("value", [0.0, 1e-42, 1e-38, 1e-31])
def test_i_gos_of_an_x_feature_that_is_almost_0_on_the_whole_image_is_0(value):
    state = {
        "encoder.0.weight": torch.full((1, 1, 1, 1), value * 16),
        "encoder.0.bias": torch.zeros(1, 1, 1),
        "head.weight": torch.ones(1, 1, 1),
    }
    method = XNN(Classifier(Brightness(), torch.nn.Identity())).load(state)
    images = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    images[:, 8:16, 8:16] = 255
    masks = MaskSettings(size=4, background="black", iterations=2, points=2, noise=0)
    assert method.i_gos_maps(0, 0, 0, images, masks).eq(0).all()
