"""The cascade of increasingly random classifiers."""

import copy

import numpy as np
import pytest
import torch
from scipy import stats
from small_networks import SIDE, random_backbone, random_head
from torch import nn

from bla.base.specs import Backbone
from bla.experiments.faithfulness.experiment import mean_cascade, similarities
from bla.explainers.all_maps import Subjects, make_maps
from bla.explainers.posthoc.grad_cam import GradCAM
from bla.explainers.registry import explainer_class
from bla.method.modules import Head
from bla.metrics.randomisation import cascade, cascade_levels, folded_cascade
from bla.networks.backbones import build_backbone
from bla.networks.classifier import Classifier, OwnTail

CHANNELS = 96


@pytest.fixture(scope="module")
def classifier():
    """Two heads on a small random backbone with a 4x4 map."""
    return Classifier(random_backbone(), random_head(2, CHANNELS)).eval()


@pytest.fixture(scope="module")
def images():
    """Noise on 8x8 patches of random colours, so that cells differ."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randint(0, 200, (3, 8, 8, 3), generator=generator)
    fine = torch.randint(0, 56, (3, SIDE, SIDE, 3), generator=generator)
    return (coarse.repeat_interleave(8, dim=1).repeat_interleave(8, dim=2) + fine).to(torch.uint8)


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
        prefixes = ("tail.weight", "tail.bias") if level == "head" else (f"extractor.network.parts.0.{level}.",)
        changed = {name for name in after if not after[name].equal(before[name])}
        assert changed == {name for name in after if name.startswith(prefixes)}
        before = after
    assert not any(before[name].equal(original[name]) for name in original)


def test_the_cascade_does_not_change_the_original_and_its_levels_are_independent(classifier, images):
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
    """For each batch normalisation, by name: mean and variance of its input for these images, and its stored statistics."""
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


@pytest.mark.slow
def test_batch_norms_recompute_statistics_in_random_layers_and_keep_them_elsewhere(classifier):
    """Up to the difference between biased and unbiased variances of 960 or more values, accumulated over layers."""
    images = torch.randint(0, 256, (60, SIDE, SIDE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    old, levels = normalised(classifier.extractor, images), cascade(classifier, 12, images)
    random: tuple[str, ...] = ()
    for level, network in zip(cascade_levels(classifier), levels, strict=True):
        random += (level,)
        for name, (mean, variance, held_mean, held_variance) in normalised(network.extractor, images).items():
            if name.removeprefix("network.parts.0.").startswith(random):
                torch.testing.assert_close(held_mean, mean, rtol=0.01, atol=0.01 * variance.mean().sqrt().item())
                torch.testing.assert_close(held_variance, variance, rtol=0.01, atol=0)
            else:
                assert torch.stack([held_mean, held_variance]).equal(old[name][2:])
                assert not held_mean.equal(mean)


@pytest.mark.slow
def test_a_deep_random_network_keeps_the_scale_of_its_features():
    """With the old statistics, features of a random EfficientNet are more than 1,000 times larger."""
    torch.manual_seed(0)
    extractor = build_backbone(
        Backbone(architecture="tf_efficientnetv2_b0", weights="none", normalisation="imagenet"), 64
    )
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
    extractor = build_backbone(
        Backbone(architecture="test_convnext2", weights="none", normalisation="imagenet"), SIDE
    ).eval()
    given = Classifier(extractor, Head(torch.randn(1, 3, extractor.model.num_features), torch.zeros(1, 3))).eval()
    for random in cascade(given, 0, images):
        assert random(images).isfinite().all()


def test_random_parameters_keep_the_mean_and_standard_deviation(classifier, levels):
    """Means and standard deviations agree within 5 standard errors for each of the 47 tensors."""
    old, new = parameters(classifier.run(0)), parameters(levels[-1])
    assert len(old) == 47
    for name, values in old.items():
        count, spread = values.numel(), values.std(correction=0)
        assert abs(new[name].mean() - values.mean()) < 5 * spread / count**0.5
        assert abs(new[name].std(correction=0) / spread - 1) < 5 / (2 * count) ** 0.5
    large = new["extractor.network.parts.0.layer4.0.conv1.weight"].flatten()
    assert stats.kstest((large - large.mean()) / large.std(), "norm").pvalue > 0.001


def test_the_cascade_depends_on_its_seed_and_each_layer_draws_its_own_numbers(classifier, levels, images):
    again, other = (list(cascade(classifier.run(0), seed, images)) for seed in (12, 13))
    for mine, same, different in zip(levels, again, other, strict=True):
        assert all(value.equal(same.state_dict()[name]) for name, value in mine.state_dict().items())
        assert not mine.tail.weight.equal(different.tail.weight)
    last, different = parameters(levels[-1]), parameters(other[-1])
    assert not any(last[name].equal(different[name]) for name in last)
    names = ["tail.weight", *(f"extractor.network.parts.0.layer{number}.0.conv1.weight" for number in (1, 2, 3, 4))]
    drawn = np.corrcoef([last[name].flatten()[:280] for name in names])
    assert np.abs(drawn - np.eye(5)).max() < 5 / 280**0.5


def test_maps_change_along_the_cascade(classifier, levels, images):
    targets, seeds = torch.tensor([2, 0, 1]), torch.tensor([5, 6, 7])
    maps = GradCAM(classifier.run(0)).explain(images, targets, seeds)
    for random in levels:
        other = GradCAM(random).explain(images, targets, seeds)
        assert other.isfinite().all()
        assert not torch.allclose(other, maps)


def test_folded_networks_of_the_cascade_agree_with_unfolded_ones(classifier, images, levels):
    folded = folded_cascade(classifier.run(0), 12, images)
    assert len(folded) == len(levels)
    for mine, intact in zip(folded, levels, strict=True):
        norms = [sum(isinstance(part, nn.BatchNorm2d) for part in one.modules()) for one in (mine, intact)]
        assert norms[0] < norms[1] / 2
        assert not mine.training
        with torch.no_grad():
            torch.testing.assert_close(mine(images), intact(images), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("tail", ["pooled", "own"])
def test_the_ends_of_a_cascade_are_its_first_and_its_last_level(tail, classifier, images):
    given = classifier.run(0)
    if tail == "own":
        layers = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(given.tail.weight.shape[2], 3))
        given.extractor.network.tail = layers
        given = Classifier(given.extractor, OwnTail(given.extractor.network)).eval()
    first, *_, last = cascade(given, 12, images)
    ends = list(cascade(given, 12, images, ends=True))
    assert len(ends) == 2
    for end, level in zip(ends, (first, last), strict=True):
        assert all(value.equal(level.state_dict()[name]) for name, value in end.state_dict().items())


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:An input array is constant")  # of Grad-CAM
@pytest.mark.parametrize(("name", "shift"), [("cam", 0.0), ("cam", 0.4), ("grad_cam", 0.0)])
def test_the_value_of_random_heads_and_its_spread_are_those_of_200_heads_drawn_by_numpy(
    name, shift, classifier, images
):
    head, targets, kind = random_head(1, CHANNELS), torch.tensor([2, 0, 1]), explainer_class(name)
    model = Classifier(classifier.extractor, Head(head.weight + shift, head.bias)).eval()
    every = np.ones(3, bool)
    subjects = Subjects(images=images, noisy=images, targets=targets, slow=every, checked=every)
    heads = [next(cascade(model, seed, images)) for seed in range(60)]
    twice = [(head, head) for head in heads]
    made = make_maps(kind, model, lambda: twice[0], lambda: twice[1:], subjects, torch.arange(3))
    arrays = {f"{key}/{name}": getattr(made, key) for key in ("again", "noise", "random", "draws")}
    lime = np.random.default_rng(0).random((3, 16))
    arrays |= {key.replace(name, "lime"): values for key, values in arrays.items()}
    table, levels = similarities(arrays, {name: made.maps.reshape(3, -1), "lime": lime}, ["head", "all"], "zero", set())
    own = table.query("method == @name and metric == 'randomised_head'")["value"].to_numpy()
    row, _ = mean_cascade(levels.query("method == @name")).to_dict("records")

    features = model.features(images).flatten(2).double().numpy()  # [3, C, 16]
    weight, rng, values = model.tail.weight[0].double().numpy(), np.random.default_rng(1), []

    def maps(weight):
        of_images = [weight[k] @ f for k, f in zip(targets.tolist(), features, strict=True)]
        return np.maximum(of_images, 0) if name == "grad_cam" else np.array(of_images)

    for _ in range(200):
        drawn = maps(rng.normal(weight.mean(), weight.std(), weight.shape))
        rho = [np.abs(stats.spearmanr(*pair).statistic) for pair in zip(maps(weight), drawn, strict=True)]
        values.append(np.nanmean(rho))
    assert row["draws"] == 60
    assert row["mean"] == pytest.approx(own.mean()) or name == "grad_cam"  # has maps without an order
    assert row["deviation_draws"] == pytest.approx(np.std(values), rel=0.35)
    assert abs(row["mean"] - np.mean(values)) < 4 * np.std(values) * (1 / 60 + 1 / 200) ** 0.5
    assert np.std(values) > 0.03 or shift  # a single head tells little
