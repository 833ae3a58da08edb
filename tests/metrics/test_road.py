"""ROAD's imputation against hand-computed values, dense solvers and its defining properties; and its score."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bla.metrics import road
from bla.metrics.road import NOISE, impute, removed, removed_counts, solve
from bla.networks.patches import cells_of_pixels


def hidden(*cells: int, of: int) -> torch.Tensor:
    return torch.tensor([[cell in cells for cell in range(of)]])


@pytest.fixture
def no_noise(monkeypatch):
    monkeypatch.setattr(road, "NOISE", 0)


def test_the_centre_of_nine_points_is_the_weighted_mean_of_the_others():
    known = np.arange(9, dtype=float)[:, None] ** 2
    unknown = np.arange(9) == 4
    direct, diagonal = (1 + 9 + 25 + 49) / 6, (0 + 4 + 36 + 64) / 12
    assert solve(known, unknown, (3, 3))[4, 0] == pytest.approx(direct + diagonal)


def test_two_adjacent_points_at_the_border_by_hand():
    # Points 1 and 2 of a row of four: each has two neighbours of weight 1/6, so x1 = (a + x2) / 2 and x2 = (x1 + b) / 2.
    known = np.array([[3.0], [99], [99], [9]])
    result = solve(known, np.array([False, True, True, False]), (1, 4))
    np.testing.assert_allclose(result[:, 0], [3, 5, 7, 9])


def test_a_corner_uses_only_neighbours_inside_the_image():
    known = np.array([[0.0], [6], [12], [24]])  # 2 x 2; the first is unknown: weights 1/6, 1/6, 1/12
    result = solve(known, np.arange(4) == 0, (2, 2))
    assert result[0, 0] == pytest.approx((6 / 6 + 12 / 6 + 24 / 12) / (5 / 12))


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 6), st.integers(2, 6), st.integers(0, 2**32 - 1))
def test_every_unknown_point_is_the_weighted_mean_of_its_neighbours(height, width, seed):
    rng = np.random.default_rng(seed)
    known, unknown = rng.random((height * width, 2)), rng.random(height * width) < 0.7
    unknown[rng.integers(height * width)] = False
    if not unknown.any():
        unknown[:1] = True
        unknown[-1] = False
    result = solve(known, unknown, (height, width)).reshape(height, width, 2)
    np.testing.assert_array_equal(result.reshape(-1, 2)[~unknown], known[~unknown])
    for y, x in zip(*np.nonzero(unknown.reshape(height, width)), strict=True):
        total = weight = 0
        for b in range(max(0, y - 1), min(height, y + 2)):
            for a in range(max(0, x - 1), min(width, x + 2)):
                share = {0: 0, 1: 1 / 6, 2: 1 / 12}[abs(b - y) + abs(a - x)]
                total, weight = total + share * result[b, a], weight + share
        np.testing.assert_allclose(result[y, x], total / weight, atol=1e-9)


@pytest.mark.parametrize(("size", "grid"), [((32, 32), (4, 4)), ((30, 45), (4, 5)), ((140, 112), (7, 7))], ids=str)
def test_a_constant_image_stays_constant_up_to_the_noise(size, grid, no_noise):
    image = torch.full((*size, 3), 77, dtype=torch.uint8)
    cells = grid[0] * grid[1]
    patterns = torch.cat([hidden(*range(count), of=cells) for count in (1, cells // 2, cells - 1)])
    assert torch.allclose(impute(image, patterns, grid, 0), torch.tensor(77.0), atol=1e-3)


def test_an_affine_image_is_reproduced_inside_and_nearly_at_coarser_points(no_noise):
    for side, tolerance in ((56, 1e-3), (112, 1.0)):
        y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
        image = torch.stack([y, x, x + y], dim=2).to(torch.uint8)
        result = impute(image, hidden(24, of=49), (7, 7), 0)[0]  # the cell in the middle
        assert (result - image).abs().max() <= tolerance


def test_visible_pixels_do_not_change_and_hidden_ones_do_not_matter():
    rng = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (70, 63, 3), generator=rng, dtype=torch.uint8)
    patterns = hidden(0, 3, 4, of=12)
    mask = patterns[0][cells_of_pixels((70, 63), (4, 3))]
    result = impute(image, patterns, (4, 3), 5)
    assert torch.equal(result[0][~mask], image[~mask].float())
    other = torch.where(mask[..., None], 255 - image, image)
    assert torch.equal(impute(other, patterns, (4, 3), 5), result)


def test_the_noise_has_its_deviation_and_depends_on_the_seed_alone():
    image = torch.full((56, 56, 3), 100, dtype=torch.uint8)
    patterns = torch.cat([hidden(*range(24), of=49), hidden(*range(40), of=49)])
    first, again, other = (impute(image, patterns, (7, 7), seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    noise = (first[1] - 100)[: 5 * 8].flatten()  # five rows of cells are hidden in both
    assert noise.std().item() == pytest.approx(255 * NOISE, rel=0.05)
    assert torch.allclose(first[0][: 3 * 8], first[1][: 3 * 8], atol=1e-3)


def test_masks_do_not_depend_on_other_masks_of_the_batch():
    image = torch.randint(0, 256, (112, 112, 3), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    patterns = torch.rand(9, 49, generator=torch.Generator().manual_seed(4)) < 0.5
    together = impute(image, patterns, (7, 7), 7)
    alone = torch.cat([impute(image, one[None], (7, 7), 7) for one in patterns])
    assert torch.equal(together, alone)


def test_most_and_least_relevant_cells_by_hand():
    ranks = torch.tensor([[2, 0, 1, 3]])
    first, last = removed(ranks, [1, 3])[0]
    assert first.tolist() == [[False, True, False, False], [True, True, True, False]]
    assert last.tolist() == [[False, False, False, True], [True, False, True, True]]


def test_the_shares_are_those_of_the_paper_and_some_cell_is_always_left():
    assert removed_counts(49) == [5, 10, 15, 20, 24, 34, 44]
    assert removed_counts(100) == [10, 20, 30, 40, 50, 70, 90]
    assert removed_counts(2) == [1] * 7
    assert removed_counts(4)[-1] == 3
