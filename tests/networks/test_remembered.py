"""A backbone that remembers its maps: the same maps and gradients, and each image goes through the network once."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from bla.base.specs import Backbone
from bla.method.modules import Head
from bla.networks import remembered
from bla.networks.backbones import build_backbone
from bla.networks.classifier import Classifier
from bla.networks.remembered import with_remembered_features

SIDE, IMAGES, CLASSES = 64, 5, 3


class Counted(nn.Module):
    """A backbone with the sizes of the batches that it has computed."""

    def __init__(self, extractor):
        super().__init__()
        self.extractor, self.mean, self.batches = extractor, extractor.mean, []

    def feature_map(self, images):
        self.batches.append(len(images))
        return self.extractor.feature_map(images)


@pytest.fixture
def classifier():
    torch.manual_seed(0)
    spec = Backbone(architecture="test_resnet", weights="none", normalisation="imagenet", output_stride=16)
    extractor = build_backbone(spec, SIDE).eval().requires_grad_(False)
    channels = extractor.model.num_features
    return Classifier(Counted(extractor), Head(torch.randn(2, CLASSES, channels), torch.randn(2, CLASSES))).eval()


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (IMAGES, SIDE, SIDE, 3), dtype=torch.uint8, generator=generator)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [1, 2])
@torch.no_grad()
def test_maps_are_exactly_those_of_the_backbone_and_each_image_is_computed_once(count, classifier, images, threads):
    threads(count)
    expected, batches = classifier.features(images), classifier.extractor.batches
    model = with_remembered_features(classifier)
    batches.clear()
    for of_run in (model, model.run(1), model.run(0)):  # runs share the memory
        features = of_run.features(images)
        assert features.equal(expected)
        assert features.stride() == expected.stride()
    assert sum(batches) == IMAGES
    assert model.run(1)(images).equal(classifier.run(1)(images))


@torch.no_grad()
def test_only_new_images_of_a_batch_are_computed_together_and_equal_ones_once(classifier, images, threads):
    threads(1)
    expected, model = classifier.features(images), with_remembered_features(classifier)
    classifier.extractor.batches.clear()
    model.features(images[[1, 3]])
    rows = [3, 0, 1, 2, 0, 4]
    torch.testing.assert_close(model.features(images[rows]), expected[rows], atol=1e-6, rtol=1e-6)
    assert classifier.extractor.batches == [2, 3]


@torch.no_grad()
def test_a_map_that_is_changed_in_place_does_not_change_the_next_one(classifier, images):
    model = with_remembered_features(classifier)
    expected = model.features(images).clone()
    model.features(images).zero_()
    assert model.features(images).equal(expected)


@torch.no_grad()
def test_images_that_differ_in_one_pixel_in_shape_or_in_type_have_their_own_maps(classifier, images):
    model, one = with_remembered_features(classifier), images[:1]
    changed = one.clone()
    changed[0, 30, 30, 0] ^= 128
    others = [one, changed, one.view(1, SIDE // 2, 2 * SIDE, 3), one.float() / 2]
    for other in others:
        assert model.features(other).equal(classifier.features(other))
    assert not model.features(one).equal(model.features(changed))


def test_gradients_of_pixels_features_and_weights_are_those_without_memory(classifier, images):
    targets = torch.tensor([0, 2, 1, 1, 0])
    with torch.inference_mode():
        one = classifier.run(1)
        model = with_remembered_features(one)
        model.features(images)  # maps of inference mode could not be used with gradients
    for given in (images, images.float()):
        model.features(given)
        for found, expected in (
            (model.feature_gradient(given, targets), one.feature_gradient(given, targets)),
            (model.pixel_gradient(given.float(), targets), one.pixel_gradient(given.float(), targets)),
        ):
            for value, before in zip(found, expected, strict=True):
                torch.testing.assert_close(value, before, atol=1e-6, rtol=1e-6)
                assert value.abs().sum() > 0
    leaf = images.float().requires_grad_()
    assert model.features(leaf).requires_grad
    weight = next(model.extractor.parameters()).requires_grad_()
    model.features(images).sum().backward()
    assert weight.grad.abs().sum() > 0


@torch.no_grad()
def test_threads_at_once_get_the_maps_of_their_images(classifier, images, threads):
    threads(1)
    expected, model = classifier.features(images), with_remembered_features(classifier)
    orders = [torch.randperm(IMAGES, generator=torch.Generator().manual_seed(seed))[:3] for seed in range(40)]

    def work(rows):
        with torch.no_grad():
            return model.features(images[rows])

    with ThreadPoolExecutor(8) as pool:
        for rows, features in zip(orders, pool.map(work, orders), strict=True):
            torch.testing.assert_close(features, expected[rows], atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_a_full_memory_keeps_its_maps_and_still_gives_all(classifier, images, monkeypatch, threads):
    threads(1)
    monkeypatch.setattr(remembered, "MOST", 2)
    expected, model = classifier.features(images), with_remembered_features(classifier)
    for rows in ([0, 1], [2, 3, 4], [0, 1], [2, 3, 4]):
        torch.testing.assert_close(model.features(images[rows]), expected[rows], atol=1e-6, rtol=1e-6)
    assert classifier.extractor.batches[1:] == [2, 3, 3]
    assert len(model.extractor.maps) == 2


@torch.no_grad()
def test_new_images_fill_up_a_batch_of_a_gpu(classifier, images, monkeypatch, threads):
    threads(1)
    expected, model = classifier.features(images), with_remembered_features(classifier)
    monkeypatch.setattr("bla.networks.classifier.padded_size", lambda images, device: 2 ** (images - 1).bit_length())
    classifier.extractor.batches.clear()
    for rows in ([0, 1, 2], [0, 1, 2, 3, 4]):
        torch.testing.assert_close(model.features(images[rows]), expected[rows], atol=1e-6, rtol=1e-6)
    assert classifier.extractor.batches == [4, 2]


@torch.no_grad()
def test_it_has_what_the_backbone_has_and_takes_no_images(classifier, images):
    model = with_remembered_features(classifier)
    assert model.extractor.mean is classifier.extractor.mean
    assert model.extractor.batches is classifier.extractor.batches
    with pytest.raises(AttributeError, match="divisors"):
        _ = model.extractor.divisors
    assert model.features(images[:0]).shape == (0, *model.features(images).shape[1:])
