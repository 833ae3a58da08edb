"""A dataset whose classifier is the user's own: BL is that classifier, and every stage runs with its one value."""

import json

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from scipy import stats

CLASSES = ["bird", "cat", "dog"]
NETWORK = {"architecture": "test_resnet", "weights": "mine.pth", "normalisation": "imagenet", "output_stride": 16}
TRAINING = {"batch_size": 8, "epochs": 2, "learning_rate": 0.01, "dropout": 0.2, "adam_epsilon": 1e-7}
ENTRY = {"images": {"kind": "image_folder", "path": "photos", "image_size": 32}, "backbone": NETWORK, "training": TRAINING, "classifier": "own"}  # fmt: skip
RUNS = 6
CHANGES = {
    "datasets": ["photos"],
    "variants": ["bla_ph", "bla_t"],
    "runs": RUNS,
    "faithfulness.run": 1,
    "reports": ["table1"],
    "dataset.photos": ENTRY,
} | {
    f"{experiment}.datasets": ["photos"]
    for experiment in ("unstated_choices", "temperature_threshold", "abandoned_modules", "two_network_l2x", "planted_bias")
}  # fmt: skip


def save_photos(folder, save_png):
    """Noisy photographs, of 32 pixels so that nothing resizes them, whose colour shows the class."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 8)):
        for channel, name in enumerate(CLASSES):
            for number in range(count):
                pixels = rng.integers(0, 200, (32, 32, 3))
                pixels[..., channel] += 12
                save_png(folder / split / name / f"{number}.png", pixels.astype(np.uint8))


def pixels_of(folder, split):
    """Normalised pixels `[N, 3, H, W]` and labels, read without the pipeline."""
    paths = [(path, label) for label, name in enumerate(CLASSES) for path in sorted((folder / split / name).iterdir())]
    images = torch.tensor(np.stack([np.array(Image.open(path)) for path, _ in paths])).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(of).view(3, 1, 1) for of in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return (images - mean) / std, torch.tensor([label for _, label in paths])


@torch.no_grad()
def own_model(folder):
    """A random network whose head is fitted to the training photographs by least squares."""
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=3, output_stride=16).eval()
    for name, value in model.state_dict().items():
        if value.ndim == 1 and "running_mean" not in name and name != "fc.bias":
            value += torch.rand(value.shape) * 0.5
    pixels, labels = pixels_of(folder, "train")
    pooled = model.forward_head(model.forward_features(pixels), pre_logits=True)
    pooled = torch.cat([pooled, torch.ones(len(pooled), 1)], dim=1)
    inverse = torch.linalg.inv(pooled.T @ pooled + torch.eye(pooled.shape[1]))
    solution = inverse @ pooled.T @ (4 * torch.nn.functional.one_hot(labels, 3).float() - 1)
    model.fc.weight.copy_(solution[:-1].T)
    model.fc.bias.copy_(solution[-1])
    return model


def save_checkpoint(path, model):
    """As a training program saves it: under a key, with DataParallel's prefix."""
    torch.save({"state_dict": {f"module.{name}": value for name, value in model.state_dict().items()}}, path)


@pytest.fixture(scope="module")
def project(tmp_path_factory, make_project, save_png):
    """A small project of an own classifier in which every stage ran."""
    folder = make_project(tmp_path_factory.mktemp("own"), changes=CHANGES)
    save_photos(folder / "data/raw/photos", save_png)
    save_checkpoint(folder / "data/raw/mine.pth", own_model(folder / "data/raw/photos"))
    return folder
