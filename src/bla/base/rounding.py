"""Which numbers count as equal: those that agree to six digits.

Values of maps come from sums in single precision, whose last digits depend on the order of the terms. Every function
that asks which values are equal, which is the largest, or in which order they are, rounds first.
"""

import numpy as np
from numpy.typing import NDArray

BITS = 20
"""Binary digits that count; single precision has 24."""


def significant(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The values rounded to `BITS` binary digits, so that a relative difference of rounding is none; NaN stays NaN."""
    mantissa, exponent = np.frexp(values)
    return np.asarray(np.ldexp(np.round(mantissa * 2**BITS), exponent - BITS))
