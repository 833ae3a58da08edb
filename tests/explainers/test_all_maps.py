"""All maps of a method, maps of all runs, and maps of retrained modules."""

from dataclasses import replace

import numpy as np
import torch
from small_networks import random_head

from bla.base.paper import VARIANTS
from bla.base.specs import Backbone, Schedule
from bla.explainers.all_maps import features_of, maps_of_all_runs, retrained_maps
from bla.explainers.interface import TrainingData
from bla.explainers.learned.attention import Attention
from bla.explainers.posthoc.cam import CAM
from bla.method.equations import threshold
from bla.method.modules import Head, Module, Trained
from bla.networks.backbones import build_backbone
from bla.networks.classifier import Classifier

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
