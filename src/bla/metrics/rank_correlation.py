"""Spearman's rank correlation between maps: do they order the cells in the same way?

Baumhauer et al. 2021, section 4.3, with ties at average ranks (`bla.base.rounding`). A constant map has no order, hence no correlation.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from bla.base.rounding import joined


def spearman(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank correlation of maps `[..., n]` with maps of the same shape: `[...]`, NaN if one of the two is constant."""
    rows = [rankdata(joined(maps), axis=-1) for maps in (x, y)]
    a, b = (ranks - ranks.mean(axis=-1, keepdims=True) for ranks in rows)
    norm = np.sqrt((a**2).sum(axis=-1) * (b**2).sum(axis=-1))
    with np.errstate(invalid="ignore", divide="ignore"):
        result: NDArray[np.float64] = np.where(norm > 0, (a * b).sum(axis=-1) / norm, np.nan)
    return result


def scored(values: NDArray[np.float64], constant_maps: str) -> NDArray[np.float64]:
    """The correlations, with NaN (constant maps) replaced by 0, or kept so that they are left out."""
    return np.nan_to_num(values) if constant_maps == "zero" else values
