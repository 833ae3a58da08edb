"""Features and stochastic depth against timm's own."""

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file
from small_networks import randomise, weights_of
from timm.layers.drop import DropPath

from bla.base.specs import Backbone
from bla.networks.backbones import ResidualDrop, build_backbone, load_backbone

STATISTICS = {
    "imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "keras_2021": ([0.485, 0.456, 0.406], np.sqrt([0.229, 0.224, 0.225])),
    "half": ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),
}
IMAGES = np.random.default_rng(0).integers(0, 256, (7, 64, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize("normalisation", STATISTICS)
@pytest.mark.parametrize("architecture", ["test_resnet", "test_mambaout"])
def test_features_agree_with_timm_on_normalised_pixels(architecture, normalisation, tmp_path):
    path = weights_of(architecture, tmp_path / "w.safetensors", num_classes=0)
    model = timm.create_model(architecture, num_classes=0).eval()
    model.load_state_dict(load_file(path))
    mean, divisor = STATISTICS[normalisation]
    pixels = torch.from_numpy((IMAGES / 255 - mean) / divisor).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        wanted = model.forward_features(pixels)
    if wanted.shape[-1] == model.num_features:  # channels last
        wanted = wanted.permute(0, 3, 1, 2)
    cells = [wanted[:, :, row, column] for row in range(2) for column in range(2)]
    found = load_backbone(Backbone(architecture=architecture, weights="w", normalisation=normalisation), path, 64)(
        torch.from_numpy(IMAGES)
    )
    torch.testing.assert_close(found, torch.stack(cells, dim=1), rtol=1e-4, atol=1e-4)


def timms_own_noise(architecture, pixels):
    """timm's features with only its stochastic depth in training mode, its weights, and the factors that it drew."""
    torch.manual_seed(0)
    model = randomise(timm.create_model(architecture, num_classes=0, drop_path_rate=0.2)).eval()
    factors = {}

    def record(name):
        def hook(module, inputs, output):
            branch = inputs[0].flatten(1).double()
            factors[name] = ((output.flatten(1) * branch).sum(1) / (branch * branch).sum(1)).float()

        return hook

    for name, module in model.named_modules():
        if isinstance(module, DropPath):
            module.train()
            module.register_forward_hook(record(name))
    with torch.no_grad():
        return model.forward_features(pixels), model.state_dict(), factors


@pytest.mark.parametrize(("architecture", "branches"), [("tf_efficientnet_b0", 9), ("test_resnet", 3)])
def test_noisy_features_agree_with_timms_drop_path_in_training_mode(architecture, branches):
    images = np.random.default_rng(1).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 255 * 2 - 1
    wanted, state, drawn = timms_own_noise(architecture, pixels)
    extractor = build_backbone(
        Backbone(
            architecture=architecture,
            weights="w",
            normalisation="half",
            output_stride=None,
            stochastic_depth=0.2,
            draws=5,
        ),
        64,
    ).eval()
    extractor.model.load_state_dict(state)
    assert len(drawn) == branches
    places = {name: module for name, module in extractor.model.named_modules() if isinstance(module, ResidualDrop)}
    factors = torch.full((len(images), len(extractor.drops)), torch.nan)  # a branch that timm never drops takes none
    for name, factor in drawn.items():
        rate = places[name].drop
        assert (
            torch.isclose(factor, torch.tensor(0.0), atol=1e-6)
            .logical_or(factor.isclose(torch.tensor(1 / (1 - rate))))
            .all()
        )
        factors[:, extractor.drops.index(places[name])] = factor
    assert (factors == 0).any()
    with torch.no_grad():
        clean, found = (extractor(torch.from_numpy(images), f) for f in (None, factors))
    wanted = wanted.flatten(2).transpose(1, 2)
    assert (found - wanted).norm() < 1e-5 * wanted.norm()
    assert (clean - wanted).norm() > 1e-2 * wanted.norm()
