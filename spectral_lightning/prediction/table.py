"""A prediction computed at a few times and interpolated between them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

__all__ = ["Table"]

Array = NDArray[np.float64]

_BEFORE, _AFTER = 0.1, 20.0  # in units of the fastest and of the slowest relaxation
_SPACING, _MOST = 0.3, 1e8


class Table:
    """Predicted variances by cubic interpolation of their logarithm in ``u = log(1 + t / t_0)``.

    ``t_0`` is a tenth of the fastest relaxation time, so that u is linear in t before anything is learnt and logarithmic
    after; nodes are 0.3 apart, up to 20 times the slowest relaxation time, beyond which nothing changes. The error of log
    variance is below 1e-3: a relaxation ``exp(-r t)`` has the same shape everywhere in log t.

    Args:
        predict: variances ``[T, K]`` at theory times ``[T]``.
        rates: all relaxation rates of the theory.
    """

    def __init__(self, predict: Callable[[Array], Array], rates: Array) -> None:
        self.first = _BEFORE / float(rates.max())
        last = min(_AFTER / float(rates[rates > 0].min()), _MOST * self.first)
        self.u = np.linspace(0, np.log1p(last / self.first), 2 + int(np.log1p(last / self.first) / _SPACING))
        table = np.maximum(predict(self.first * np.expm1(self.u)), np.finfo(np.float64).tiny)
        self.spline = CubicSpline(self.u, np.log(table))

    def __call__(self, time: Array) -> Array:
        """Variances ``[T, K]`` at theory times ``[T]``."""
        return np.asarray(np.exp(self.spline(np.minimum(np.log1p(time / self.first), self.u[-1]))))
