"""Section 4.1's digits of 28x28 pixels, drawn or downloaded as set in `small_cnn`."""

import torch
from torch import Tensor

from bla.base.specs import Mnist
from bla.datasets import SplitName, mnist, moved_digits
from bla.networks.small_cnn import SIDE
from pipeline.run.environment import data_path
from pipeline.run.settings import Settings

TEST_SHARE = 0.2


def digits_name(settings: Settings) -> str:
    """The name of the digits in tables, such as mnist_3_vs_8."""
    return f"{settings.small_cnn.data}_{'_vs_'.join(map(str, settings.small_cnn.classes))}"


def load_digits(settings: Settings, split: SplitName, device: torch.device) -> tuple[Tensor, Tensor]:
    """Images `[N, 28, 28]` in [0, 1], and labels 0 and 1."""
    spec = settings.small_cnn
    if spec.data == "mnist":
        data = mnist.load(Mnist(kind="mnist", classes=spec.classes, image_size=SIDE), data_path("mnist"), split)
        images, labels = data.images[..., 0], data.labels
    else:
        test = round(TEST_SHARE * spec.images)
        count = test if split == "test" else spec.images - test
        images, labels = moved_digits.generate(spec.classes, count, split, settings.seed)
    return torch.from_numpy(images).to(device).float() / 255, torch.from_numpy(labels).to(device)
