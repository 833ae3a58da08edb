"""Resizing and upsampling against Pillow, torch and scipy."""

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch.nn.functional import interpolate

from bla.datasets.image_files import resize_image
from bla.explainers.occlusion import smooth_masks
from bla.plotting.overlay import overlay

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(5, 7), (40, 23), (9, 9), (200, 150)])
def test_bilinear_antialias_agrees_with_pillow(shape):
    rgb = RNG.integers(0, 256, (*shape, 3), dtype=np.uint8)
    pillow = np.asarray(Image.fromarray(rgb).resize((9, 9), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(resize_image(rgb, 9, "bilinear_antialias") - pillow).max() <= 1


def test_masks_over_images_are_upsampled_bilinearly_as_in_torch():
    small = RNG.random((7, 7))
    small[3, 3] = 1  # the largest, to which the overlay scales
    large = interpolate(torch.from_numpy(small)[None, None], (112, 112), mode="bilinear", align_corners=False)
    wanted = 0.5 * matplotlib.colormaps["turbo"](large[0, 0].numpy() / small.max())[..., :3]
    np.testing.assert_allclose(overlay(np.zeros((112, 112, 3), np.uint8), small), wanted, atol=1e-12)


@pytest.mark.parametrize("size", [(8, 8), (15, 9)])
def test_smooth_masks_agree_with_scipys_linear_zoom(size):
    maps = torch.rand(2, 5, 3, 3, generator=torch.Generator().manual_seed(0))
    found = smooth_masks(maps, size)(torch.tensor([1, 0, 1]), torch.tensor([4, 2, 0]))
    assert found.shape == (3, *size)
    zoom = [side / 3 for side in size]
    expected = [
        ndimage.zoom(maps[i, p].numpy(), zoom, order=1, mode="nearest", grid_mode=True)
        for i, p in [(1, 4), (0, 2), (1, 0)]
    ]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert ((found >= 0) & (found <= 1)).all()
