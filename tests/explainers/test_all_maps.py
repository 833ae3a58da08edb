"""All maps of a method, maps of all runs, and maps of retrained modules."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from small_networks import random_head
from torch import nn

from bla.base.paper import VARIANTS
from bla.base.specs import Backbone, Schedule
from bla.explainers.all_maps import (
    Subjects,
    features_of,
    make_maps,
    maps_of_all_runs,
    maps_of_classes,
    retrained_maps,
)
from bla.explainers.controls.random import Random
from bla.explainers.interface import LearnedExplainer, TrainingData
from bla.explainers.learned.attention import Attention
from bla.explainers.posthoc.cam import CAM
from bla.explainers.registry import explainer_class
from bla.method.equations import threshold
from bla.method.modules import Head, Module, Trained
from bla.networks.backbones import build_backbone
from bla.networks.classifier import Classifier
from bla.networks.patches import cell_means

SIDE, CLASSES, CHANNELS = 64, 3, 96


@torch.no_grad()
def test_retraining_works_on_features_too_large_for_half_precision():
    torch.manual_seed(0)
    extractor = (
        build_backbone(
            Backbone(architecture="test_resnet", weights="none", normalisation="imagenet", output_stride=16), SIDE
        )
        .eval()
        .requires_grad_(False)
    )
    normal = Classifier(extractor, Head(torch.randn(1, CLASSES, CHANNELS), torch.zeros(1, CLASSES))).eval()
    large = normal.with_scaled_features(1e6)
    images = torch.randint(0, 256, (40, SIDE, SIDE, 3), dtype=torch.uint8)
    features = normal.features(images).flatten(2).transpose(1, 2)[None]
    labels, schedule = (
        torch.arange(40) % 3,
        Schedule(batch_size=8, epochs=3, learning_rate=0.05, dropout=0.2, adam_epsilon=1e-7),
    )
    frozen = replace(VARIANTS["l2x_f"], head="frozen")
    data = [
        TrainingData(own, (4, 4), None, labels, schedule, torch.device("cpu")) for own in (features, 1e6 * features)
    ]
    ignored = torch.zeros(4, dtype=torch.int64)
    with torch.enable_grad():
        found = retrained_maps(
            lambda model: Attention(model, frozen), [normal, large], data, 0, images[:4], ignored, ignored
        )
    assert found[0].std() > 0
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4)


@torch.no_grad()
def test_maps_of_all_runs_are_the_same_as_run_by_run(classifier, images, seeds):
    targets = torch.tensor([[2, 0, 1], [1, 1, 0]])
    generator = torch.Generator().manual_seed(8)
    modules = Module(torch.randn(2, CHANNELS, generator=generator), torch.tensor([-3.0, -9.0]))
    variants = {key: VARIANTS[key] for key in ("bla", "bla_t", "l2x_f")}
    given = {key: (variant, modules) for key, variant in variants.items()}
    maps = maps_of_all_runs(features_of(classifier, images)[0], classifier.tail.weight, targets, given)
    assert set(maps) == {"cam", "grad_cam", *variants, "bla_t_after_threshold"}
    for run in range(2):
        alone = classifier.run(run)
        of_cam = CAM(alone).explain(images, targets[run], seeds).flatten(1).numpy()
        np.testing.assert_allclose(maps["cam"][run], of_cam, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(maps["grad_cam"][run], np.maximum(maps["cam"][run], 0))
        for key, variant in variants.items():
            trained = Trained(random_head(1, CHANNELS), modules.run(run), torch.zeros(1, 1))
            own = Attention(alone, variant).load(trained.state()).explain(images, targets[run], seeds).flatten(1)
            np.testing.assert_allclose(maps[key][run], own, rtol=1e-5)
        cut = threshold(torch.from_numpy(maps["bla_t"][run]), 0.98, "subtract")
        np.testing.assert_allclose(maps["bla_t_after_threshold"][run], cut)


@torch.no_grad()
@pytest.mark.parametrize("name", ["rise", "lime", "random", "i_gos", "i_gos_pp"])  # all methods with random numbers
def test_a_second_explanation_draws_new_random_numbers(name, classifier, images, targets, seeds):
    """With the same masks, the maps of a classifier whose output hardly depends on the image would agree by chance."""
    kind = explainer_class(name)
    masks = {"size": 4, "iterations": 2, "points": 3, "area": 0.001, "variation": 0.01}
    chosen = {"rise": {"masks": 60}, "lime": {"patterns": 100}, "random": {}}.get(name, masks)
    every = np.ones(len(images), bool)
    subjects = Subjects(images=images, noisy=images, targets=targets, slow=every, checked=every)

    def given(model):
        return kind(model, kind.Settings(**chosen))

    model = classifier.run(0)
    made = make_maps(given, model, lambda: [model, model], lambda: [[model, model]], subjects, seeds)
    first = cell_means(torch.from_numpy(made.maps), (4, 4)).flatten(1).numpy()
    # images, classifiers and noise are the same everywhere, so that only random numbers can differ
    others = [made.again, made.noise, *made.random, *([] if kind.slow else made.draws[0])]
    for place, one in enumerate([first, *others]):
        for other in others[place:]:
            assert not np.allclose(one, other)
    again = make_maps(given, model, lambda: [model, model], lambda: [[model, model]], subjects, seeds)
    for field in ("maps", "again", "noise", "random", "draws"):
        np.testing.assert_array_equal(getattr(made, field), getattr(again, field))


class Dice(Random, LearnedExplainer):
    """A learned method whose maps are random numbers."""

    def fit(self, data, seeds, progress=lambda runs: None):
        return {"nothing": torch.zeros(1)}


@torch.no_grad()
def test_maps_of_retrained_methods_and_of_two_classes_draw_new_random_numbers(classifier, images, targets, seeds):
    one = classifier.run(0)
    schedule = Schedule(batch_size=2, epochs=1, learning_rate=0.1, dropout=0, adam_epsilon=1e-7)
    data = TrainingData(features_of(one, images), (4, 4), None, targets, schedule, torch.device("cpu"))

    def both():
        refitted = retrained_maps(Dice, [one, one], [data, data], 0, images, targets, seeds)
        return np.concatenate([refitted, maps_of_classes(Random(one), images, targets.expand(2, -1), seeds).flatten(2)])

    made = [Random(one).explain(images, targets, seeds).flatten(1).numpy(), *both()]
    for place, maps in enumerate(made):
        for other in made[place + 1 :]:
            assert not np.isclose(maps, other).all(axis=1).any()
    np.testing.assert_array_equal(made[1:], both())


@torch.no_grad()
def test_maps_of_classes_are_those_of_each_class(classifier, images, targets, seeds):
    one, both = classifier.run(0), torch.stack([targets, (targets + 1) % CLASSES])
    expected = torch.stack([CAM(one).explain(images, of_class, seeds) for of_class in both])
    assert maps_of_classes(CAM(one), images, both, seeds).equal(expected)


class Lottery(nn.Module):
    """A backbone of 4x4 cells whose feature is unrelated to what is seen: the last digits of a sum over the pixels."""

    mean = torch.zeros(3)

    def feature_map(self, images):
        pixels = images.double().flatten(1)
        drawn = (pixels @ torch.linspace(1, 2, pixels.shape[1], dtype=torch.float64).sin()) * 997 % 1
        return drawn.float()[:, None, None, None].expand(-1, CLASSES, 4, 4)


class Shares(nn.Module):
    def forward(self, features):
        return features.mean(dim=(2, 3))[None]


@torch.no_grad()
@pytest.mark.parametrize("name", ["rise", "lime", "random"])
def test_maps_of_a_classifier_that_sees_nothing_agree_by_chance_alone(name):
    """Correlations of unrelated maps are 0 on average, their variance is 1 / (cells - 1); with equal masks all are 1.

    Cells of RISE's masks vary together, so its correlations may vary more.
    """
    count, generator = 60, torch.Generator().manual_seed(2)
    images = torch.randint(0, 256, (count, 16, 16, 3), dtype=torch.uint8, generator=generator)
    model = Classifier(Lottery(), Shares(), "sigmoid").eval()
    model.register_parameter("place", nn.Parameter(torch.zeros(1)))
    kind, every = explainer_class(name), np.ones(count, bool)
    chosen = kind.Settings(**{"rise": {"masks": 40, "grid": 4}, "lime": {"patterns": 60}}.get(name, {}))
    subjects = Subjects(images=images, noisy=images, targets=torch.arange(count) % CLASSES, slow=every, checked=every)
    made = make_maps(lambda m: kind(m, chosen), model, lambda: [model, model], list, subjects, torch.arange(count))
    first = cell_means(torch.from_numpy(made.maps), (4, 4)).flatten(1).numpy()
    for other in (made.again, made.noise, *made.random):
        rho = np.array([stats.spearmanr(*pair).statistic for pair in zip(first, other, strict=True)])
        assert abs(rho.mean()) < 4 * rho.std() / count**0.5
        assert rho.std() == pytest.approx(15**-0.5, rel=0.4) or name == "rise"
        assert rho.max() < 0.95


@torch.no_grad()
def test_all_methods_explain_the_same_noisy_images_and_only_seeded_methods_explain_an_image_again(
    classifier, images, targets, seeds
):
    seen = []

    class Recorder(CAM):
        def explain(self, images, targets, seeds):
            seen.append(images.clone())
            return super().explain(images, targets, seeds)

    every = np.ones(len(images), bool)
    noisy = images.flip(0)
    subjects = Subjects(images=images, noisy=noisy, targets=targets, slow=every, checked=every)
    made = [make_maps(Recorder, classifier.run(0), list, list, subjects, other) for other in (seeds, seeds + 1)]
    assert [image.equal(other) for image, other in zip(seen, [images, noisy] * 2, strict=True)] == [True] * 4
    assert all(np.isnan(maps.again).all() for maps in made)
    np.testing.assert_array_equal(made[0].noise, made[1].noise)
