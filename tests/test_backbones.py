"""Frozen extractors and the training of the embedded one, on timm's test models with random weights."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from bla import pretraining
from bla.backbones import build_backbone, extract, load_backbone
from bla.datasets import cluttered_digits
from bla.errors import BlaError
from bla.specs import Backbone, ClutteredDigits, Pretraining
from pipeline import backbone as stage
from pipeline.settings import load_settings

CPU = torch.device("cpu")
RESNET = Backbone("test_resnet", "w", "half", 16)
STATISTICS = {
    "imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "keras_2021": ([0.485, 0.456, 0.406], np.sqrt([0.229, 0.224, 0.225])),
    "half": ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),
}
IMAGES = np.random.default_rng(0).integers(0, 256, (7, 64, 64, 3), dtype=np.uint8)


def weights_of(architecture, path, **options):
    """Random weights, running statistics of the batch norms included, as a .safetensors file."""
    torch.manual_seed(0)
    model = timm.create_model(architecture, **options)
    state = model.state_dict()
    save_file({k: v + torch.rand(v.shape) * 0.1 if v.ndim == 1 else v for k, v in state.items()}, path)
    return path


@pytest.fixture
def weights(tmp_path):
    return weights_of("test_resnet", tmp_path / "w.safetensors", num_classes=0)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (replace(RESNET, architecture="test_resnett"), r"^architecture: timm has no test_resnett \(did you mean test_"),
        (replace(RESNET, architecture="qqqqqqqq"), "^architecture: timm has no qqqqqqqq$"),
        (replace(RESNET, architecture="hf_hub:timm/test_resnet"), "^architecture: timm has no hf_hub:timm/test_resnet"),
        (Backbone("test_resnet.none", "w", "half"), r"^architecture: timm cannot build test_resnet.none \(.*tag"),
        (replace(RESNET, output_stride=7), "^output_stride: test_resnet cannot use 7; try null$"),
        (Backbone("test_mambaout", "w", "half", 16), r"^output_stride: test_mambaout cannot use 16 \(.*\); try null$"),
    ],
)
def test_what_timm_cannot_build_is_refused(spec, message):
    with pytest.raises(BlaError, match=message):
        build_backbone(spec, 64)


@pytest.mark.parametrize(("architecture", "stride"), [("test_efficientnet", 7), ("test_byobnet", 64)])
def test_an_output_stride_that_timm_rounds_is_refused(architecture, stride, tmp_path):
    path = weights_of(architecture, tmp_path / "w.safetensors", num_classes=0)
    with pytest.raises(BlaError, match=f"^output_stride: {architecture} cannot use {stride}: 160 pixels give "):
        load_backbone(Backbone(architecture, "w", "half", stride), path, 160)


@pytest.mark.parametrize(
    ("architecture", "stride", "size", "cells"),
    [
        ("test_resnet", 16, 112, 49),
        ("test_resnet", None, 112, 16),
        ("test_resnet", 8, 70, 81),
        ("test_efficientnet", 16, 64, 16),
        ("test_convnext", 8, 70, 64),
        ("test_mambaout", None, 64, 4),
    ],
)
def test_output_stride_is_pixels_per_cell(architecture, stride, size, cells, tmp_path):
    path = weights_of(architecture, tmp_path / "w.safetensors", num_classes=0)
    extractor = load_backbone(Backbone(architecture, "w", "half", stride), path, size)
    shape = extractor(torch.zeros(2, size, size, 3, dtype=torch.uint8)).shape
    assert shape == (2, cells, extractor.model.num_features)


def test_a_model_without_a_spatial_map_is_refused(tmp_path):
    path = weights_of("test_vit", tmp_path / "w.safetensors", num_classes=0)
    with pytest.raises(BlaError, match=r"features have shape \[1, 17, 64\], not .* needs a backbone with a spatial"):
        load_backbone(Backbone("test_vit", "w", "half"), path, 64)


def test_an_image_that_does_not_suit_the_model_is_refused(tmp_path):
    path = weights_of("test_coatnet", tmp_path / "w.safetensors", num_classes=0)
    with pytest.raises(BlaError, match=r"^test_coatnet cannot take images of 32 pixels \(.+\)$"):
        load_backbone(Backbone("test_coatnet", "w", "half"), path, 32)


def test_weights_of_another_architecture_are_refused(tmp_path):
    path = weights_of("test_efficientnet", tmp_path / "w.safetensors")
    with pytest.raises(BlaError, match=r"does not fit test_resnet: \d+ of \d+ tensors are .*, \.\.\.\); name the"):
        load_backbone(RESNET, path, 64)


def test_a_missing_or_misshapen_tensor_is_refused(weights):
    state = load_file(weights)
    name = next(iter(state))
    missing = {k: v for k, v in state.items() if k != name}
    for odd in (missing, missing | {name: torch.zeros(1)}, state | {"x": torch.zeros(1)}):
        save_file(odd, weights)
        with pytest.raises(BlaError, match="does not fit test_resnet: 1 of "):
            load_backbone(RESNET, weights, 64)


@pytest.mark.parametrize("content", [None, b"", b"no weights", 1000])
def test_a_file_that_is_no_safetensors_file_is_refused(content, weights):
    whole = weights.read_bytes()
    weights.unlink()
    if content is not None:
        weights.write_bytes(whole[:content] if isinstance(content, int) else content)
    with pytest.raises(BlaError, match=r"w\.safetensors: not a readable \.safetensors file"):
        load_backbone(RESNET, weights, 64)


@pytest.mark.parametrize("architecture", ["test_resnet", "test_efficientnet", "test_convnext"])
def test_a_classifier_in_the_file_is_left_out(architecture, tmp_path):
    path = weights_of(architecture, tmp_path / "w.safetensors", num_classes=5)
    state, extractor = load_file(path), load_backbone(Backbone(architecture, "w", "half"), path, 64)
    own = extractor.model.state_dict()
    assert len(own) == len(state) - 2
    assert all(torch.equal(value, state[name]) for name, value in own.items())


@pytest.mark.parametrize("normalisation", STATISTICS)
@pytest.mark.parametrize("architecture", ["test_resnet", "test_mambaout"])
def test_features_are_those_of_the_normalised_pixels(architecture, normalisation, tmp_path):
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
    found = load_backbone(Backbone(architecture, "w", normalisation), path, 64)(torch.from_numpy(IMAGES))
    torch.testing.assert_close(found, torch.stack(cells, dim=1), rtol=1e-4, atol=1e-4)


def test_the_extractor_is_frozen_and_in_evaluation_mode(weights):
    extractor = load_backbone(RESNET, weights, 64)
    assert not any(module.training for module in extractor.modules())
    assert not any(parameter.requires_grad for parameter in extractor.parameters())
    before = {name: value.clone() for name, value in extractor.state_dict().items()}
    list(extract(extractor, IMAGES, CPU, 4))
    assert all(torch.equal(value, before[name]) for name, value in extractor.state_dict().items())


def test_features_do_not_depend_on_the_batch_or_the_order(weights):
    extractor = load_backbone(RESNET, weights, 64)
    wanted = np.concatenate(list(extract(extractor, IMAGES, CPU, 7)))
    assert (wanted.shape, wanted.dtype) == ((7, 16, 96), np.float16)
    for size, order in ((1, range(7)), (3, range(7)), (4, [3, 1, 6, 0, 2, 5, 4])):
        chunks = list(extract(extractor, IMAGES[list(order)], CPU, size))
        assert [len(chunk) for chunk in chunks[:-1]] == [size] * (len(chunks) - 1)
        np.testing.assert_allclose(np.concatenate(chunks), wanted[list(order)], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_features_that_are_not_finite_are_refused(value, weights):
    state = load_file(weights)
    name = next(k for k in reversed(state) if k.endswith("weight") and state[k].ndim == 4)
    save_file(state | {name: torch.full_like(state[name], value)}, weights)
    with pytest.raises(BlaError, match=r"^the features of images 0 to 3 hold NaN or exceed half precision"):
        list(extract(load_backbone(RESNET, weights, 64), IMAGES, CPU, 4))


DIGITS = ClutteredDigits("cluttered_digits", (3, 8), 64, 32, 32, 16, 2, 8)
PLAN = Pretraining(epochs=2, batch_size=16, learning_rate=0.01, weight_decay=0.05)


@pytest.fixture(scope="module")
def digits():
    return cluttered_digits.generate(DIGITS, "train", 0)


def to_bytes(state):
    return {name: value.numpy().tobytes() for name, value in state.items()}


@pytest.mark.filterwarnings("error")
def test_pretraining_resumes_to_the_same_bytes(digits, tmp_path, monkeypatch):
    save = pretraining._save

    def save_and_keep(checkpoint, *rest):
        save(checkpoint, *rest)
        shutil.copy(checkpoint, tmp_path / f"after_{rest[-1]}")

    monkeypatch.setattr(pretraining, "_save", save_and_keep)
    undisturbed = pretraining.pretrain(RESNET, digits, PLAN, 0, CPU, tmp_path / "a" / "checkpoint")
    assert undisturbed.keys() == timm.create_model("test_resnet", num_classes=0).state_dict().keys()
    for epochs in (1, 2):
        torch.rand(1)  # what others draw does not matter
        resumed = pretraining.pretrain(RESNET, digits, PLAN, 0, CPU, tmp_path / f"after_{epochs}")
        assert to_bytes(resumed) == to_bytes(undisturbed)
    assert to_bytes(pretraining.pretrain(RESNET, digits, PLAN, 1, CPU, tmp_path / "b")) != to_bytes(undisturbed)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (replace(PLAN, learning_rate=1e30), "^the pretraining loss is not finite in epoch 1; lower pretraining.learn"),
        (replace(PLAN, batch_size=65), "^pretraining.batch_size: 65 is more than the 64 training images$"),
    ],
)
def test_pretraining_that_cannot_work_is_refused(plan, message, digits, tmp_path):
    with pytest.raises(BlaError, match=message):
        pretraining.pretrain(RESNET, digits, plan, 0, CPU, tmp_path / "checkpoint")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_checkpoint_is_named(digits, tmp_path):
    (tmp_path / "checkpoint").write_bytes(b"damaged")
    with pytest.raises(BlaError, match=r"checkpoint: damaged checkpoint \(.*\); delete it to train anew$"):
        pretraining.pretrain(RESNET, digits, PLAN, 0, CPU, tmp_path / "checkpoint")


@pytest.mark.parametrize("dataset", ["cluttered_digits", "cluttered_3_vs_8"])
def test_the_stage_pretrains_on_the_training_images_of_cluttered_digits(dataset, tmp_path, monkeypatch):
    class StopHereError(Exception):
        pass

    def generate(*asked):
        calls.append(asked)
        raise StopHereError

    settings, calls = load_settings(), []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cluttered_digits, "generate", generate)
    with pytest.raises(StopHereError):
        stage._pretrained(settings, dataset)
    assert calls == [(settings.dataset["cluttered_digits"].images, "train", settings.seed)]
