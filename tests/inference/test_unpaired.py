"""Unpaired groups of runs."""

import numpy as np

from bla.inference.unpaired import mann_whitney


def test_separated_groups_differ_and_equal_groups_do_not():
    assert mann_whitney(np.arange(10.0, 15), np.arange(5.0), 99, 0).effect_size == 1
    assert mann_whitney(np.arange(5.0), np.arange(10.0, 15), 99, 0).effect_size == -1
    alike = mann_whitney(np.full(4, 0.5), np.full(3, 0.5), 99, 0)
    assert alike == (1, 0, 0, (0, 0))
