"""A prediction computed at a few times and interpolated between them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

__all__ = ["Table"]

Array = NDArray[np.float64]

_BEFORE, _AFTER, _LONGEST = 1e-3, 20.0, 1e10  # of the fastest and of the slowest relaxation time; their largest ratio
_SPACING, _ROUNDS, _ERROR = 1.2, 3, 1e-2  # of the first nodes, how often they are halved, rms error of log variance


class Table:
    """Predicted variances by cubic interpolation of their logarithm in ``u = log(1 + t / t_0)``.

    ``t_0`` is a thousandth of the fastest relaxation time, the last node is at 20 times the slowest; nothing changes before
    and after. Nodes are 1.2 apart in u; where the rms error over the modes, seen at the middle of two nodes, exceeds 1e-2,
    more are added, down to 0.15 apart. A relaxation ``exp(-r t)`` has the same shape everywhere in log t.

    Args:
        predict: variances ``[T, K]`` at theory times ``[T]``.
        rates: all relaxation rates of the theory.
    """

    def __init__(self, predict: Callable[[Array], Array], rates: Array) -> None:
        self.first = _BEFORE / float(rates.max())
        reach = np.log1p(min(_AFTER / float(rates[rates > 0].min()), _LONGEST * self.first) / self.first)

        def log_variance(u: Array) -> Array:
            return np.log(np.maximum(predict(self.first * np.expm1(u)), np.finfo(np.float64).tiny))

        self.u: Array = np.linspace(0, reach, 2 + int(reach / _SPACING))
        table, left, half = log_variance(self.u), self.u[:-1], self.u[1] / 2
        for _ in range(_ROUNDS):
            self.spline = CubicSpline(self.u, table)
            if not left.size:
                break
            new, middle = log_variance(left + half), left + half
            off = np.sqrt(np.mean((new - self.spline(middle)) ** 2, axis=1)) > _ERROR
            order = np.argsort(np.concatenate([self.u, middle]))
            self.u, table = np.concatenate([self.u, middle])[order], np.concatenate([table, new])[order]
            left, half = np.concatenate([left[off], middle[off]]), half / 2
        self.spline = CubicSpline(self.u, table)

    def __call__(self, time: Array) -> Array:
        """Variances ``[T, K]`` at theory times ``[T]``."""
        return np.asarray(np.exp(self.spline(np.minimum(np.log1p(time / self.first), self.u[-1]))))
