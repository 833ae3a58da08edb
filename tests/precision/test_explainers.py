"""LIME and Grad-CAM against captum, LIME's least squares against scikit-learn."""

import numpy as np
import pytest
import torch
from captum._utils.models.linear_model import SkLearnLinearRegression
from captum.attr import LayerGradCam, Lime
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression
from small_networks import SIDE, Small, random_head
from torch import nn

from bla.base.specs import Backbone
from bla.explainers.posthoc.grad_cam import GradCAM
from bla.explainers.posthoc.lime import LIME, draw_patterns, solver
from bla.networks.backbones import build_backbone
from bla.networks.classifier import Classifier

GRID = 4


@pytest.fixture(scope="module")
def classifier():
    """A head on a small random backbone with a 4x4 map."""
    torch.manual_seed(0)
    extractor = (
        build_backbone(
            Backbone(architecture="test_resnet", weights="none", normalisation="imagenet", output_stride=16), SIDE
        )
        .eval()
        .requires_grad_(False)
    )
    return Classifier(extractor, random_head(1, extractor.model.num_features)).eval()


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


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 9), st.integers(0, 2**31), st.floats(0.2, 0.8))
def test_the_solver_is_least_squares_with_an_intercept(cells, seed, presence):
    patterns = draw_patterns(80, cells, presence, seed)
    values = np.random.default_rng(seed).normal(size=80)
    expected = LinearRegression().fit(patterns.numpy(), values).coef_
    np.testing.assert_allclose(torch.from_numpy(values) @ solver(patterns).T, expected, atol=1e-8)


@pytest.mark.parametrize("output", ["probability", "logit"])
def test_lime_agrees_with_captum_on_the_same_patterns(output, small, images, targets, seeds):
    found = LIME(small, LIME.Settings(patterns=60, presence=0.6, output=output)).explain(images, targets, seeds)
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


class Tapped(nn.Module):
    """A classifier with a layer between features and head, for captum's hooks."""

    def __init__(self, classifier):
        super().__init__()
        self.classifier, self.layer = classifier, nn.Identity()

    def forward(self, images):
        return self.classifier.logits(self.layer(self.classifier.features(images)))[0]


@pytest.mark.parametrize("kind", ["classifier", "small"])
def test_grad_cam_agrees_with_captum(kind, request, images, targets, seeds):
    run = request.getfixturevalue(kind)
    tapped = Tapped(run)
    expected = LayerGradCam(tapped, tapped.layer).attribute(
        images.float().requires_grad_(), targets, relu_attributions=True
    )
    found = GradCAM(run).explain(images, targets, seeds)
    torch.testing.assert_close(found, expected[:, 0].detach(), atol=1e-5, rtol=1e-4)
    assert (found > 0).any()
    assert (found == 0).any()
