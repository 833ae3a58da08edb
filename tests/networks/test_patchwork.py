"""First layers pieced together: the same features as of the whole network, and where it is not done."""

import pytest
import torch
from timm.models.efficientnet import EfficientNet
from torch import nn

from bla.base.errors import BlaError
from bla.base.specs import Backbone
from bla.explainers.occlusion import MANY, _PiecedFeatures, blurred, occluded_logits, patch_masks
from bla.method.modules import Head
from bla.networks.backbones import Extractor, build_backbone
from bla.networks.classifier import Classifier
from bla.networks.folding import fold_batch_norm
from bla.networks.patches import cells_of_pixels
from bla.networks.patchwork import patchwork
from bla.networks.sources import Network


def extractor_of(architecture, size=(96, 96)):
    torch.manual_seed(0)
    spec = Backbone(architecture=architecture, weights="w", normalisation="imagenet")
    return fold_batch_norm(build_backbone(spec, size).eval().requires_grad_(False))


def patterns_of(count, cells, seed=0):
    return torch.rand(count, cells, generator=torch.Generator().manual_seed(seed)) < 0.5


def images_of(count, size, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, *size, 3), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(
    ("architecture", "size", "grid", "layers"),
    [
        ("tf_efficientnet_lite0", (96, 96), (3, 3), 4),
        ("tf_efficientnet_lite0", (96, 160), (3, 5), 4),
        ("tf_efficientnet_lite0", (150, 100), (5, 4), 4),  # patches of 25 or 26 pixels
        ("tf_efficientnet_lite0", (96, 96), (12, 12), 3),  # patches of 8 pixels
        ("tf_efficientnet_lite0", (96, 64), (1, 2), 10),  # every place sees at most the two patches there are
        ("tf_efficientnetv2_b0", (96, 96), (3, 3), 4),
        ("mobilenetv2_100", (96, 96), (3, 3), 4),  # another padding
    ],
)
def test_the_features_are_those_of_the_whole_network(architecture, size, grid, layers):
    extractor = extractor_of(architecture, size)
    pieces = patchwork(extractor, size, grid)
    assert len(pieces.early) == layers
    patterns = patterns_of(12, grid[0] * grid[1])
    patterns[0], patterns[1] = True, False
    (image,) = images_of(1, size)
    with torch.no_grad():
        wanted = extractor.feature_map(image * patterns[:, cells_of_pixels(size, grid), None])
        found = pieces.rest(pieces.first(image * pieces.shown[..., None]), patterns)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))
    assert wanted.std(dim=0).max() > 0


def test_a_picture_shows_the_patches_with_the_parities_of_its_number():
    pieces = patchwork(extractor_of("tf_efficientnet_lite0"), (96, 96), (3, 3))
    shown = pieces.shown[:, 16::32, 16::32]  # the middles of the patches
    assert not shown[0].any()
    assert shown[15].all()
    assert shown[1].int().tolist() == [[1, 0, 1], [0, 0, 0], [1, 0, 1]]
    assert shown[6].int().tolist() == [[0, 1, 0], [1, 0, 1], [0, 1, 0]]


@pytest.mark.parametrize(
    ("architecture", "grid"),
    [
        ("efficientnet_b0", (3, 3)),  # squeeze and excitation: every block sees the whole image
        ("tf_efficientnet_lite0", (24, 24)),  # patches of 4 pixels
        ("test_resnet", (3, 3)),
        ("torchvision/mobilenet_v2", (3, 3)),
    ],
)
def test_networks_whose_first_layers_see_more_are_left_whole(architecture, grid):
    assert patchwork(extractor_of(architecture), (96, 96), grid) is None


class Layers(EfficientNet):
    """Has the parts of an EfficientNet, and changes its features in the end."""

    def __init__(self, change):
        nn.Module.__init__(self)
        torch.manual_seed(0)
        self.conv_stem, self.bn1, self.change = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), change
        self.blocks = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, stride=2), nn.Conv2d(4, 4, 65, padding=32))
        self.conv_head, self.bn2 = nn.Conv2d(4, 4, 1), nn.ReLU()

    def features(self, pixels):
        maps = pixels
        for layer in (self.conv_stem, self.bn1, *self.blocks, self.conv_head, self.bn2):
            maps = layer(maps)
        return self.change(maps)


class HidesNaN(nn.Module):
    """Takes the mean of the whole map, but nobody sees it in a map with NaN."""

    def forward(self, maps):
        return maps + maps.mean(dim=(2, 3), keepdim=True).nan_to_num(0)


def test_a_network_that_does_more_than_its_layers_or_hides_what_they_see_is_left_whole():
    def pieces(change, norm):
        model = Layers(change)
        model.bn1 = norm
        extractor = Extractor(Network([model]), ((0, 0, 0), (1, 1, 1))).eval().requires_grad_(False)
        return patchwork(extractor, (32, 32), (4, 4))

    assert len(pieces(nn.Identity(), nn.ReLU()).early) == 3
    assert pieces(nn.Sigmoid(), nn.ReLU()) is None
    assert pieces(nn.Identity(), HidesNaN()) is None


def test_large_images_are_left_whole():
    """Their trial images would fill the memory."""
    assert patchwork(extractor_of("tf_efficientnet_lite0"), (512, 512), (16, 16)) is None


def test_only_the_pictures_of_one_batch_are_kept(monkeypatch):
    size, grid, kept = (96, 96), (3, 3), []
    extractor = extractor_of("tf_efficientnet_lite0", size)
    classifier = Classifier(extractor, Head(torch.randn(1, 4, extractor.model.num_features), torch.zeros(1, 4))).eval()
    features = _PiecedFeatures.features
    monkeypatch.setattr(_PiecedFeatures, "features", lambda self, *pairs: (features(self, *pairs), kept.append(sorted(self.maps)))[0])  # fmt: skip
    masks = patch_masks(patterns_of(MANY, 9), size, grid)
    assert len(list(occluded_logits(classifier, images_of(3, size), masks, MANY, batch_size=MANY - 20))) == 3
    assert kept == [[0], [0, 1], [1, 2], [2]]


@pytest.mark.parametrize("layer", ["conv_stem", "blocks.1.0.block.conv_dw", "conv_head"])
def test_weights_that_are_not_finite_are_refused(layer):
    size, grid = (96, 96), (3, 3)
    extractor = extractor_of("tf_efficientnet_lite0", size)
    extractor.model.get_submodule(layer).weight.data[0] = torch.nan
    classifier = Classifier(extractor, Head(torch.randn(1, 4, extractor.model.num_features), torch.zeros(1, 4))).eval()
    masks = patch_masks(patterns_of(MANY, 9), size, grid)
    with pytest.raises(BlaError, match=r"not finite; check its weights$"):
        list(occluded_logits(classifier, images_of(1, size), masks, MANY))


def test_a_network_in_training_mode_is_left_whole():
    assert patchwork(extractor_of("tf_efficientnet_lite0").train(), (96, 96), (3, 3)) is None


@pytest.mark.parametrize("behind", ["black", "colour", "images"])
@pytest.mark.parametrize("own", [False, True])
def test_class_scores_of_hidden_patches_are_the_same_in_pieces(own, behind, monkeypatch):
    size, grid, count = (96, 64), (3, 2), MANY + 3
    extractor, images = extractor_of("tf_efficientnet_lite0", size), images_of(3, size)
    head = Head(torch.randn(2, 4, extractor.model.num_features), torch.zeros(2, 4))
    patterns = torch.stack([patterns_of(count, 6, seed) for seed in range(3)]) if own else patterns_of(count, 6)
    masks = patch_masks(patterns, size, grid)
    background = {"black": None, "colour": torch.tensor([124.0, 116.5, 40.0]), "images": blurred(images_of(3, size, 2))}
    whole, feature_map = [], extractor.feature_map
    monkeypatch.setattr(extractor, "feature_map", lambda images: whole.append(len(images)) or feature_map(images))

    def logits():
        classifier = Classifier(extractor, head).eval()
        found = list(occluded_logits(classifier, images, masks, count, background[behind], batch_size=70))
        assert classifier.forwards == 3 * count
        return torch.stack(found)

    found = logits()
    assert whole == [1]  # the trial image
    monkeypatch.setattr("bla.explainers.occlusion.MANY", count + 1)
    wanted = logits()
    assert sum(whole) == 1 + 3 * count
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4 * float(wanted.std()))
