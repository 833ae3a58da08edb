"""The grid of patches: pixels of each patch, occlusion, means over cells."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bla.networks.patches import cell_means, occlude, patch_of_pixel


@pytest.mark.parametrize("side", [28, 112, 224])
def test_a_patch_is_a_seventh_of_the_side(side):
    assert torch.bincount(patch_of_pixel(side, 7)).tolist() == [side // 7] * 7


def test_pixels_belong_to_the_nearest_patch_if_the_grid_does_not_divide_the_side():
    assert patch_of_pixel(10, 4).tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 3, 3]


@given(st.integers(1, 12), st.integers(0, 60))
def test_patches_are_in_order_and_sizes_differ_by_one_pixel_at_most(grid, more):
    patches = patch_of_pixel(grid + more, grid)
    assert (patches.diff() >= 0).all()
    sizes = torch.bincount(patches, minlength=grid)
    assert len(sizes) == grid
    assert sizes.max() - sizes.min() <= 1


def test_hidden_patches_are_black_and_other_pixels_unchanged():
    image = torch.arange(1, 49, dtype=torch.uint8).view(1, 4, 4, 3)
    hidden = occlude(image, torch.tensor([[True, False, False, True]]), (2, 2))
    assert hidden[0, :2, :2].equal(image[0, :2, :2])
    assert hidden[0, 2:, 2:].equal(image[0, 2:, 2:])
    assert not hidden[0, :2, 2:].any()
    assert not hidden[0, 2:, :2].any()


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 5), st.integers(0, 12), st.integers(0, 12), st.integers(0, 2**31))
def test_cell_means_are_over_the_pixels_of_each_cell(grid, tall, wide, seed):
    values = np.random.default_rng(seed).normal(size=(2, grid + tall, grid + wide))
    _, height, width = values.shape
    sums, sizes = np.zeros((2, grid, grid)), np.zeros((grid, grid))
    for y in range(height):
        for x in range(width):
            sums[:, y * grid // height, x * grid // width] += values[:, y, x]
            sizes[y * grid // height, x * grid // width] += 1
    np.testing.assert_allclose(cell_means(torch.from_numpy(values), (grid, grid)), sums / sizes, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_map_at_the_resolution_of_the_grid_is_unchanged(dtype):
    values = torch.rand(2, 5, 5, dtype=dtype)
    assert cell_means(values, (5, 5)) is values
    assert cell_means(values, (2, 2)).dtype == dtype
    torch.testing.assert_close(cell_means(values, (1, 1))[:, 0, 0], values.mean(dim=(1, 2)))


@given(
    st.integers(1, 9),
    st.integers(9, 40),
    st.sampled_from([torch.float, torch.double]),
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=81, max_size=81),
)
@example(9, 260, torch.double, [0.1] * 81)
@settings(deadline=None)
def test_the_mean_over_equal_pixels_is_exact_where_the_grid_does_not_divide_the_side(grid, side, dtype, values):
    cells = torch.tensor(values[: grid**2], dtype=dtype).view(1, grid, grid)
    patch = patch_of_pixel(side, grid)
    assert cell_means(cells[:, patch][:, :, patch], (grid, grid)).equal(cells)
