"""A wrapped classifier equals model(transform(image)); every step that differs is named."""

import copy
import itertools
import threading

import numpy as np
import pytest
import timm
import torch
from own_classifier.conftest import LABELS, TRANSFORM, Net, NormalisedNet, trained
from PIL import Image
from torch import nn
from torchvision import models, transforms
from torchvision.transforms import v2

import bla
from bla.base.errors import BlaError
from bla.own_classifier.transform import IMAGENET, prepare
from bla.own_classifier.wrap import class_names


def photo(height=130, width=190):
    return Image.fromarray(np.random.default_rng(7).integers(0, 256, (height, width, 3), dtype=np.uint8))


def assert_equal_to_model(own, model, transform):
    with torch.no_grad():
        expected = model(transform(photo())[None].float())
        result = own.classifier(own.preparation.pixels(photo())[None])[0]
    assert (result - expected).abs().max() <= 1e-4 * max(1, expected.abs().max())


def with_statistics(model):
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


CROP = bla.Transform(size=64, resize=72)
NOT_SQUARE = bla.Transform(size=(64, 96), resize=(80, 100), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
MODELS = {
    "efficientnet": lambda: timm.create_model("test_efficientnet", num_classes=3),
    "timm convnext": lambda: timm.create_model("test_convnext", num_classes=3),
    "resnet18": lambda: models.resnet18(num_classes=3),
    "mobilenet": lambda: models.mobilenet_v3_small(num_classes=3),
    "own": Net,
    "own with another head": NormalisedNet,
}
LARGE = {
    "convnext": lambda: models.convnext_tiny(num_classes=3),
    "vgg": lambda: models.vgg11_bn(num_classes=3),
    "densenet": lambda: models.densenet121(num_classes=3),
}


CASES = [(name, transform) for name in MODELS for transform in (CROP, NOT_SQUARE)]
CASES += [pytest.param("vgg", CROP, marks=pytest.mark.slow)]
CASES += [pytest.param(name, NOT_SQUARE, marks=pytest.mark.slow) for name in ("convnext", "densenet")]


@pytest.mark.parametrize(("name", "transform"), CASES)
def test_logits_are_those_of_the_model(name, transform):
    model = with_statistics((MODELS | LARGE)[name]())
    own = bla.wrap(model, transform, LABELS, scores="sigmoid" if name == "own" else "softmax")
    assert_equal_to_model(own, model, transform)
    side = transform.size if isinstance(transform.size, tuple) else (transform.size, transform.size)
    assert own.preparation.size == side
    assert own.grid[0] / own.grid[1] == side[0] / side[1]


class AroundTimm(nn.Module):
    """A user's module with a timm model inside; it is split by torch.fx."""

    def __init__(self, name):
        super().__init__()
        self.body = timm.create_model(name, num_classes=0, global_pool="")
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(self.body.num_features, 3)

    def forward(self, x):
        return self.head(self.pool(self.body(x)).flatten(1))


def into_blocks(model, x):
    """The feature map of a timm model, by code that looks into each block."""
    x = model.bn1(model.conv_stem(x))
    for stage in model.blocks:
        for block in stage:
            assert isinstance(block.conv_dw, nn.Conv2d)
            x = block(x)
    return model.bn2(model.conv_head(x))


@pytest.mark.parametrize("name", ["mobilenetv2_050", "efficientnet_lite0"])
def test_timm_blocks_in_a_users_module_or_code(name):
    around = with_statistics(AroundTimm(name))
    assert_equal_to_model(bla.wrap(around, CROP, LABELS), around, CROP)
    model = with_statistics(timm.create_model(name, num_classes=3))
    own = bla.wrap(model, CROP, LABELS, features=into_blocks, tail=lambda model, maps: model.forward_head(maps))
    assert_equal_to_model(own, model, CROP)


@pytest.mark.parametrize(
    "transform",
    [
        transforms.Compose([transforms.Resize(70), transforms.CenterCrop((48, 80)), transforms.ToTensor()]),
        transforms.Compose([transforms.Resize((48, 80)), transforms.Grayscale(3), transforms.ToTensor(), transforms.Normalize(*IMAGENET)]),
        transforms.Compose([transforms.ToTensor(), transforms.Lambda(lambda x: x * 255 - 120), transforms.Resize((48, 80))]),
        v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Resize((48, 80)), v2.Normalize(*IMAGENET)]),
        transforms.Compose([transforms.Resize((32, 80)), transforms.Pad((0, 8)), transforms.ToTensor()]),
    ],
    ids=["plain", "grey", "pixels to 255, resized in float", "v2, resized in float", "padded"],
)  # fmt: skip
def test_transforms_of_all_kinds(transform):
    model = trained()
    assert_equal_to_model(bla.wrap(model, transform, LABELS), model, transform)


def test_a_preset_equals_its_transform():
    preset = models.ResNet18_Weights.DEFAULT.transforms()
    assert torch.equal(bla.Transform(size=224, resize=256)(photo(300, 400)), preset(photo(300, 400)))
    preparation = prepare(preset)
    assert preparation.mean == pytest.approx(IMAGENET[0])
    assert preparation.std == pytest.approx(IMAGENET[1])
    assert preparation.pixels(photo(300, 400)).dtype == torch.uint8


def test_the_model_is_not_changed():
    model = trained()
    before, modules = copy.deepcopy(model.state_dict()), [type(module) for module in model.modules()]
    own = bla.wrap(model, TRANSFORM, LABELS)
    own.classifier(own.preparation.pixels(photo())[None])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [type(module) for module in model.modules()] == modules
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("around", [torch.compile, nn.DataParallel])
def test_what_is_around_a_model_is_left_out(own, around):
    wrapped = bla.wrap(around(trained()).eval(), TRANSFORM, LABELS)
    assert wrapped.fingerprint == own.fingerprint
    assert wrapped.classifier.linear_head().weight.shape == (1, 3, 8)


def test_batch_norm_is_folded(own):
    assert not any(isinstance(module, nn.BatchNorm2d) for module in own.classifier.extractor.modules())


class Untraceable(Net):
    def forward(self, pixels):
        if pixels.sum() > 1e9:
            raise ValueError
        return super().forward(pixels)


def test_a_model_that_cannot_be_traced_needs_a_function():
    model = trained(Untraceable)
    with pytest.raises(BlaError, match=r"Untraceable cannot be traced.*features="):
        bla.wrap(model, TRANSFORM, LABELS)
    own = bla.wrap(model, TRANSFORM, LABELS, features=lambda model, pixels: model.body(pixels))
    assert_equal_to_model(own, model, TRANSFORM)
    assert own.classifier.linear_head().weight.shape == (1, 3, 8)


def test_a_module_with_features_and_tail():
    class Parts(Untraceable):
        def features(self, pixels):
            return self.body(pixels)

        def tail(self, features):
            return self.head(self.pool(features).flatten(1))

    model = trained(Parts)
    assert_equal_to_model(bla.wrap(model, TRANSFORM, LABELS), model, TRANSFORM)


@pytest.mark.parametrize("name", ["test_vit", "vit_b_16"])
def test_a_vision_transformer_has_no_map(name):
    model = (
        timm.create_model(name, img_size=64) if name == "test_vit" else models.VisionTransformer(64, 16, 2, 2, 32, 64)
    )
    with pytest.raises(BlaError, match="spatial feature map"):
        bla.wrap(model.eval(), bla.Transform(size=64))


class Softmaxed(Net):
    def forward(self, pixels):
        return super().forward(pixels).softmax(dim=1)


class Failing(Net):
    def forward(self, pixels):
        return super().forward(pixels.nothing)


def with_lock():
    model = trained()
    model.lock = threading.Lock()
    return model


def standardised(image):
    x = transforms.functional.to_tensor(image.resize((80, 48)))
    return (x - x.mean()) / (x.std() + 1e-6)


def random_flip():
    """A transform that flips every seventh image."""
    turn = itertools.count()
    return lambda image: TRANSFORM(image).flip(2) if next(turn) % 7 == 6 else TRANSFORM(image)


RANDOM = transforms.Compose([transforms.RandomResizedCrop((48, 80)), transforms.ToTensor()])
SHORTER_SIDE = transforms.Compose([transforms.Resize(64), transforms.ToTensor()])
WRONG = {
    "training mode": (lambda: trained().train(), TRANSFORM, {}, "training mode"),
    "half precision": (lambda: trained().half(), TRANSFORM, {}, r"float16; call model.float\(\)"),
    "random": (trained, RANDOM, {}, "^transform: two calls"),
    "random flip": (trained, random_flip(), {}, "^transform: two calls"),
    "standardised": (trained, standardised, {}, "^normalise"),
    "not linear": (trained, lambda image: TRANSFORM(image).exp(), {}, "^normalise"),
    "BGR": (trained, lambda image: TRANSFORM(image).flip(0), {}, "^colours"),
    "size": (trained, SHORTER_SIDE, {}, "^resize"),
    "no tensor": (trained, lambda image: image, {}, "^transform: it must return a tensor"),
    "a batch": (trained, lambda image: TRANSFORM(image)[None], {}, "^transform: it must return"),
    "failing": (trained, lambda image: 1 / 0, {}, "^transform: it fails.*ZeroDivisionError"),
    "probabilities": (lambda: trained(Softmaxed), TRANSFORM, {}, "^head.*softmax"),
    "input size": (lambda: models.VisionTransformer(32, 16, 1, 1, 8, 8).eval(), TRANSFORM, {}, "^input size"),
    "labels": (trained, TRANSFORM, {"labels": ["cat", "dog"]}, "^labels: 2 labels.*3 classes"),
    "letters": (trained, TRANSFORM, {"labels": "abc"}, "^labels: must be a list of class names.*, not str"),
    "numbers to labels": (trained, TRANSFORM, {"labels": {0: "cat", 1: "dog", 2: "owl"}}, "^labels: must be a list.*not dict"),
    "labels to numbers": (trained, TRANSFORM, {"labels": {"cat": 0, "dog": 1, "owl": 2}}, "^labels: must be a list.*not dict"),
    "scores": (trained, TRANSFORM, {"scores": "Sigmoid"}, "^scores: must be softmax or sigmoid, not Sigmoid"),
    "loss": (trained, TRANSFORM, {"scores": "bce"}, "^scores: must be softmax or sigmoid, not bce"),
    "a name": (lambda: "resnet18", TRANSFORM, {}, "^the model must be a torch module, not str"),
    "weights": (lambda: trained().state_dict(), TRANSFORM, {}, "^the model must be a torch module, not OrderedDict"),
    "failing model": (lambda: trained(Failing), TRANSFORM, {}, "^input size.*AttributeError"),
    "with a lock": (with_lock, TRANSFORM, {}, "cannot be copied.*lock"),
    "failing features": (trained, TRANSFORM, {"features": lambda model, x: model.boddy(x)}, "^feature map: features= fails"),
    "no function": (trained, TRANSFORM, {"features": "body"}, "^feature map: features= fails.*TypeError"),
    "failing tail": (trained, TRANSFORM, {"features": lambda m, x: m.body(x), "tail": lambda m, f: m.head(f)}, "^feature map: tail= fails"),
    "another map": (trained, TRANSFORM, {"features": lambda model, pixels: model.body(pixels).relu()}, "^feature map"),
    "no map": (trained, TRANSFORM, {"features": lambda model, pixels: model.body(pixels).mean(dim=3)}, "shape"),
    "no tail": (lambda: trained(NormalisedNet), TRANSFORM, {"features": lambda m, x: m.body(x)}, "^feature map"),
    "other channels": (trained, TRANSFORM, {"features": lambda model, pixels: pixels}, "^tail"),
    "one cell, traced": (trained, bla.Transform(size=16), {}, "^feature map: Net for inputs of 16 x 16: it has no feature map"),
    "one cell": (trained, bla.Transform(size=16), {"features": lambda model, pixels: model.body(pixels)}, "one cell"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_step_that_differs_is_named(name):
    make, transform, options, message = WRONG[name]
    with pytest.raises(BlaError, match=message):
        bla.wrap(make(), transform, **options)


def test_labels_that_occur_twice_get_the_number_of_their_class():
    assert class_names(["crane", "cat", "crane"], 3) == ("crane (0)", "cat", "crane (2)")
    assert class_names(range(2), 2) == ("0", "1")
    with pytest.raises(BlaError, match="labels: 3 labels for a classifier of 2 classes"):
        class_names(["a", "b", "b"], 2)
