"""VGG-16 and ResNet-50 with random weights and their own layers after the map, on a few images in ImageNet's layout."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision import models

from bla.base.errors import BlaError
from bla.explainers.learned.l_cam_fm import LCamFm
from bla.networks.backbones import load_backbone
from bla.networks.folding import fold_batch_norm
from pipeline.artifacts.explained_images import load_classifier, load_explained
from pipeline.artifacts.images import load_images
from pipeline.artifacts.models import BACKBONES, load_state
from pipeline.run.settings import load_settings

pytestmark = pytest.mark.slow

WNIDS = ("n01440764", "n01443537", "n02085620")
SIDE = 64
MAPS = {"vgg16": (4, 4, 512), "resnet50": (2, 2, 2048)}
"""Rows, columns and channels of the map of 64 pixels."""


def network(name: str, classes: int) -> torch.nn.Module:
    """torchvision's network with random weights."""
    torch.manual_seed(0)
    model = models.get_model(name, weights=None, num_classes=classes)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


def save_images(folder):
    """Two training images and one for validation of each class, in the official layout."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 2), ("val", 1)):
        for label, wnid in enumerate(WNIDS):
            for number in range(count):
                path = folder / part / wnid / f"{wnid}_{number}.JPEG"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = rng.integers(0, 120, (70, 80, 3), dtype=np.uint8)
                pixels[..., label] += 100
                file = io.BytesIO()
                Image.fromarray(pixels).save(file, "JPEG")
                path.write_bytes(file.getvalue())


@pytest.fixture(params=MAPS)
def prepared(request, here, edit_params, end_of):
    """The entry's name and its whole network; images, weights and features are there."""
    name, model = request.param, network(request.param, len(WNIDS))
    dataset = f"imagenet_{name}"
    save_images(here / "data/raw/imagenet")
    save_file(model.state_dict(), here / f"data/raw/{name}.safetensors")
    edit_params(here, {"datasets": [dataset], f"dataset.{dataset}.images.image_size": SIDE})
    for stage in ("prepare", "backbone", "features"):
        assert end_of(stage, dataset) is None
    return dataset, name, model


def test_the_classifier_is_the_whole_network(prepared, end_of):
    dataset, name, model = prepared
    settings = load_settings()
    explained = load_explained(dataset, settings)
    images = torch.from_numpy(np.array(load_images(dataset, "test")))
    mean, divisor = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        expected = model((images.permute(0, 3, 1, 2) / 255 - mean) / divisor)
        features = explained.classifier.features(images)
        np.testing.assert_allclose(explained.classifier(images)[0], expected, atol=1e-4, rtol=1e-3)
    assert (*features.shape[2:], features.shape[1]) == MAPS[name]
    assert explained.classifier.runs == 1
    if name == "resnet50":  # average pooling and one layer
        assert torch.equal(explained.classifier.linear_head().weight[0], model.fc.weight)
    else:
        with pytest.raises(BlaError, match="no linear head"):
            explained.classifier.linear_head()

    assert end_of("fit", dataset, "l_cam_fm") is None  # trained through the network's own layers
    method = LCamFm(explained.classifier, LCamFm.Settings()).load(load_state(dataset, "l_cam_fm"))
    maps = method.explain(images, expected.argmax(dim=1), torch.zeros(len(images)))
    assert maps.shape == (len(WNIDS), *MAPS[name][:2])
    assert maps.isfinite().all()


def test_a_network_with_other_classes_than_the_images_is_refused(here, edit_params, end_of):
    save_images(here / "data/raw/imagenet")
    save_file(network("resnet50", 7).state_dict(), here / "data/raw/resnet50.safetensors")
    dataset = "imagenet_resnet50"
    edit_params(here, {"datasets": [dataset], f"dataset.{dataset}.images.image_size": SIDE})
    for stage in ("prepare", "backbone"):
        assert end_of(stage, dataset) is None
    settings = load_settings()
    extractor = fold_batch_norm(
        load_backbone(settings.dataset[dataset].backbone, BACKBONES / f"{dataset}.safetensors", SIDE)
    )
    with pytest.raises(BlaError, match="the network scores 7 classes, but the images have 3") as error:
        load_classifier(dataset, settings, extractor)
    assert str(error.value).startswith(f"params.yaml: dataset.{dataset}.backbone.tail: ")
