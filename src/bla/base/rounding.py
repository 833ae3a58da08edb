"""Which numbers count as equal: those that differ by less than a millionth, 2^-20, of the larger magnitude.

Values of maps come from sums in single precision, whose last digits depend on the order of the terms. Every function
that asks which values are equal, which is the largest, or in which order they are, asks here. Each value is compared
with the smallest of its group, since rounding one by one parts equal values that lie on both sides of a boundary.
"""

import numpy as np
from numpy.typing import NDArray

BITS = 20
"""Binary digits that count; single precision has 24."""


def joined(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """`[..., n]` with values that count as equal made equal, along the last axis; NaN stays NaN.

    In increasing order, values that are equal to the smallest of their group, up to rounding, become this smallest one;
    the next value begins a new group. No group is wider than rounding, however many values there are.
    """
    order = np.argsort(values, axis=-1, kind="stable")
    ordered = np.take_along_axis(values, order, axis=-1)
    for place in range(1, values.shape[-1]):
        value, smallest = ordered[..., place], ordered[..., place - 1]
        ordered[..., place] = np.where(_close(value, smallest), smallest, value)
    result = np.empty_like(ordered)
    np.put_along_axis(result, order, ordered, axis=-1)
    return result


def larger(values: NDArray[np.float64], than: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Where `values` are larger by more than rounding."""
    return np.asarray((values > than) & ~_close(values, than))


def _close(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
    with np.errstate(over="ignore", invalid="ignore"):  # of extreme values and infinities, which are not close
        return np.asarray((x == y) | (np.abs(x - y) < np.maximum(np.abs(x), np.abs(y)) * 2.0**-BITS))
