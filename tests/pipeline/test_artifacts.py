"""Artifacts: arrays larger than memory, tables, damaged files."""

import numpy as np
import pandas as pd
import pytest
import torch

from bla.base.atomic import save_array
from bla.base.errors import BlaError
from bla.method.modules import EVALUATION_CHUNK
from bla.networks.classifier import Classifier, NoBackbone
from pipeline.artifacts.arrays import load_array, load_tensor
from pipeline.artifacts.explained_images import scores_from_features, spread
from pipeline.artifacts.tables import save_table


def test_a_loaded_array_is_read_only_and_becomes_a_tensor_without_a_warning(tmp_path, recwarn):
    save_array(tmp_path / "a.npy", np.zeros(3))
    with pytest.raises(ValueError, match="read-only"):
        load_array(tmp_path / "a.npy")[:] = 1
    assert load_tensor(tmp_path / "a.npy").tolist() == [0, 0, 0]
    assert not recwarn


def test_an_array_larger_than_memory_can_be_loaded(tmp_path):
    """ImageNet's features are 161 GB: a sparse file takes no disk space, and its memory map no memory."""
    path, images = tmp_path / "b.npy", 1_281_167
    with path.open("wb") as file:
        header = {"descr": "<f2", "fortran_order": False, "shape": (images, 49, 1280)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + images * 49 * 1280 * 2)
    assert not load_tensor(path)[-1].any()


@pytest.mark.parametrize("content", [b"", b"no array", b"\x93NUMPY", 200])
def test_a_damaged_array_is_named(content, tmp_path):
    save_array(tmp_path / "a.npy", np.zeros(100))
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(whole[:content] if isinstance(content, int) else content)
    with pytest.raises(BlaError, match=r"a\.npy: damaged \(.*\); delete it"):
        load_array(tmp_path / "a.npy")


def test_slow_and_checked_images_are_spread_over_the_classes():
    """The 16 images explained of 990 and 2: 14 of the first class, then both of the second; by position, 4 and 12 would be checked."""
    classes = np.repeat([0, 1], [14, 2])
    slow = spread(np.ones(16, bool), classes, 6)
    assert np.flatnonzero(slow).tolist() == [1, 5, 8, 12, 14, 15]  # four and both
    assert np.flatnonzero(spread(slow, classes, 2)).tolist() == [
        8,
        15,
    ]  # one of each
    assert spread(slow, classes, 99).tolist() == slow.tolist()
    assert not spread(slow, classes, 0).any()
    assert not spread(np.zeros(16, bool), classes, 6).any()


def test_tables_have_six_digits_unless_all_are_requested(tmp_path):
    table = pd.DataFrame({"x": [1234.5678, 1e-5 + 1e-16, 1 / 3, None], "n": range(4), "s": ["a", "b,c", "ä", ""]})
    save_table(tmp_path / "a.csv", table)
    assert (tmp_path / "a.csv").read_bytes().decode() == 'x,n,s\n1234.57,0,a\n1e-05,1,"b,c"\n0.333333,2,ä\n,3,\n'
    save_table(tmp_path / "a.csv", table, floats=None)
    assert pd.read_csv(tmp_path / "a.csv")["x"].dropna().tolist() == table["x"].dropna().tolist()


class CellByCell(torch.nn.Module):
    """A tail of two runs whose scores depend on where a cell lies: run r sums `weights[r]` `[K, C, h, w]` times the map."""

    def __init__(self, weights):
        super().__init__()
        self.weight = torch.nn.Parameter(weights, requires_grad=False)

    def forward(self, features):
        return torch.einsum("bchw,rkchw->rbk", features, self.weight)


def test_scores_from_cached_features_are_those_of_the_map_cell_by_cell_and_image_by_image():
    rng = np.random.default_rng(0)
    features = torch.from_numpy(rng.integers(-8, 9, (EVALUATION_CHUNK + 5, 6, 4))).half()  # [N, n, C]
    weights = torch.from_numpy(rng.integers(-3, 4, (2, 3, 4, 2, 3))).float()
    scores = scores_from_features(Classifier(NoBackbone(), CellByCell(weights)), features, (2, 3))
    of_map = features.float().numpy().reshape(-1, 2, 3, 4)  # cells row by row
    np.testing.assert_array_equal(scores, np.einsum("bhwc,rkchw->rbk", of_map, weights.numpy()))
