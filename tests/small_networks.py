"""Small classifiers and images that tests in several folders use."""

import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import leaky_relu

from bla.base.specs import Backbone
from bla.method.modules import Head
from bla.networks.backbones import build_backbone

SIDE, CLASSES = 64, 3


class Small(nn.Module):
    """A backbone with one convolution, features of both signs, and one constant channel."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("mean", torch.tensor([120.0, 110, 90]).view(3, 1, 1))
        self.register_buffer("divisor", torch.full((3, 1, 1), 60.0))
        self.convolution = nn.Conv2d(3, 6, 16, 16).requires_grad_(False)
        self.convolution.weight.copy_(torch.randn(6, 3, 16, 16, generator=generator) / 10)
        self.convolution.bias.copy_(torch.randn(6, generator=generator))
        self.convolution.weight[2] = 0
        self.convolution.bias[2] = 1.5

    def normalised(self, images):
        return (images.permute(0, 3, 1, 2).float() - self.mean) / self.divisor

    def of_normalised(self, pixels):
        return leaky_relu(self.convolution(pixels), 0.3)

    def feature_map(self, images):
        return self.of_normalised(self.normalised(images))


def random_head(runs: int, channels: int, spread: float = 0.5) -> Head:
    """Heads of three classes."""
    generator = torch.Generator().manual_seed(3)
    bias = torch.randn(runs, CLASSES, generator=generator)
    return Head(torch.randn(runs, CLASSES, channels, generator=generator) * spread, bias)


def random_backbone():
    """An untrained test_resnet with a 4x4 map and random batch norms, as after training."""
    torch.manual_seed(0)
    extractor = (
        build_backbone(
            Backbone(architecture="test_resnet", weights="none", normalisation="imagenet", output_stride=16), SIDE
        )
        .eval()
        .requires_grad_(False)
    )
    for module in extractor.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(0, 0.3)
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 1.5)
    return extractor


def weights_of(architecture, path, **options):
    """Write random weights, including running statistics of batch norms, to a .safetensors file; return its path."""
    torch.manual_seed(0)
    state = timm.create_model(architecture, **options).state_dict()
    save_file({k: v + torch.rand(v.shape) * 0.1 if v.ndim == 1 else v for k, v in state.items()}, path)
    return path


def learnable_images(images: int, cells: int, channels: int, classes: int):
    """Half-precision features in which a few cells show the class, and labels."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(images) % classes
    features = torch.rand(images, cells, channels, generator=generator)
    features[torch.arange(images), labels + 2, labels] += 3
    return features.half(), labels


def randomise(model, seed=0):
    """Random weights and running statistics of batch norms, as after training: none is 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in ((module.weight.data, 0.5, 1.5), (module.bias.data, -0.2, 0.2)):
                tensor.copy_(low + (high - low) * torch.rand(tensor.shape, generator=generator))
            module.running_mean.copy_(0.3 * torch.randn(module.running_mean.shape, generator=generator))
            module.running_var.copy_(0.5 + 1.5 * torch.rand(module.running_var.shape, generator=generator))
    return model


def built(spec, size=64):
    """The architecture of a specification with random weights, frozen."""
    torch.manual_seed(0)
    return randomise(build_backbone(spec, size)).eval().requires_grad_(False)
