"""SAG's masks, background and upsampling against the 23 sets and confidences that its authors saved.

    BLA_SAG_PICTURES=folder pytest tests/precision/test_published_sets.py

The folder holds the eight pictures of the authors' repository under the names in `published_sag_sets.csv` (.JPEG, .jpg or
.png), and `vgg19.safetensors`, the weights of `timm/vgg19.tv_in1k` (torchvision's first ones). Nothing is downloaded.
"""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_networks import SIDE, Small, random_head

from bla.base.specs import Backbone
from bla.datasets.image_files import load_image
from bla.explainers.structured.sag import ShownCells
from bla.networks.backbones import load_backbone
from bla.networks.classifier import Classifier, OwnTail

FOLDER = os.environ.get("BLA_SAG_PICTURES")
PUBLISHED = Path(__file__).with_name("published_sag_sets.csv")
TOLERANCE = 0.02
"""Decoders and resizing differ in the last bit of a pixel."""


def differences(classifier, folder, rows, size, grid):
    """Ours minus published, `[P, 2]`: the confidence of each set, and that of the whole picture."""
    result = []
    for row in rows:
        path = next(path for path in sorted(Path(folder).glob(f"{row['picture']}.*")) if path.suffix != ".csv")
        pixels = torch.from_numpy(load_image(path, size, "bilinear"))[None]
        shown = ShownCells(classifier, pixels, torch.tensor([int(row["class"])]), grid)
        whole = shown.whole.item()
        (share,) = shown.relative([0], [frozenset(map(int, row["cells"].split("+")))])
        result.append((share * whole - float(row["confidence"]), whole - float(row["full_confidence"])))
    return np.array(result)


def published():
    with PUBLISHED.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_list_has_23_sets_of_eight_pictures_each_above_nine_tenths_of_the_full_confidence():
    rows = published()
    assert len(rows) == 23
    assert len({row["picture"] for row in rows}) == 8
    for row in rows:
        cells = [int(cell) for cell in row["cells"].split("+")]
        assert cells == sorted(set(cells))
        assert set(cells) <= set(range(49))
        assert float(row["confidence"]) > 0.9 * float(row["full_confidence"])


@pytest.mark.skipif(FOLDER is None, reason="needs VGG-19's weights and the authors' pictures: BLA_SAG_PICTURES")
def test_the_published_confidences_are_ours():
    weights = Path(FOLDER) / "vgg19.safetensors"
    spec = Backbone(architecture="vgg19", weights=str(weights), normalisation="imagenet", tail="own_softmax")
    extractor = load_backbone(spec, weights, (224, 224))
    classifier = Classifier(extractor, OwnTail(extractor.network)).eval()
    found = np.abs(differences(classifier, FOLDER, published(), 224, (7, 7)))
    assert found.max() < TOLERANCE, found.round(3)


def test_the_check_tells_the_right_masks_from_wrong_ones(tmp_path):
    """On a tiny network, with confidences computed here from normalised pixels."""
    classifier = Classifier(Small(), random_head(1, 6, spread=0.3)).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    normalised = classifier.extractor.normalised(torch.from_numpy(pixels)[None])
    black = classifier.extractor.normalised(torch.zeros(1, SIDE, SIDE, 3))

    def confidence(cells, background, aligned):
        pattern = np.zeros(16)
        pattern[cells] = 1
        at = np.arange(SIDE) * 3 / (SIDE - 1) if aligned else (np.arange(SIDE) + 0.5) * 4 / SIDE - 0.5
        rows = np.array([np.interp(at, range(4), row) for row in pattern.reshape(4, 4)])
        mask = torch.from_numpy(np.array([np.interp(at, range(4), column) for column in rows.T]).T).float()
        mixed = normalised * mask + background * (1 - mask)
        logits = classifier.logits(classifier.extractor.of_normalised(mixed))
        return logits.softmax(dim=2)[0, 0, 0].item()

    def largest_difference(background, aligned):
        full = confidence(range(16), background, aligned)
        rows = [
            {"picture": "picture", "class": "0", "cells": "+".join(map(str, cells)), "full_confidence": full, "confidence": confidence(cells, background, aligned)}
            for cells in ([0, 5], [3], [2, 9, 15])
        ]  # fmt: skip
        return np.abs(differences(classifier, tmp_path, rows, SIDE, (4, 4))).max()

    assert largest_difference(black, True) < 1e-5
    assert largest_difference(torch.zeros_like(black), True) > TOLERANCE  # the mean colour
    assert largest_difference(black, False) > TOLERANCE
