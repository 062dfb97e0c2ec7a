"""Growth of the gain of a balanced stack of linear layers: ``dq/ds = |q|^(2 - 2/L) (q* - q)``.

The clock s is training time multiplied by the rate of the level and the mode. Depth 2 has an explicit solution.
For L >= 3 the solution is implicit; with ``u = q / |q*|`` and ``p = 1 - 2/L`` all modes follow the same curve in each of
three regimes, tabulated once per depth with cubic Hermite interpolation:

- rising, ``0 < u < 1``: ``y = log(u / (1 - u))``, ``ds/dy = u^(-p)``;
- falling to the target, ``u > 1``: ``y = log(u - 1)``, ``ds/dy = -u^(-1-p)``;
- falling to zero, ``q* < 0``: ``y = log u``, ``ds/dy = -u^(-p) / (1 + u)``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicHermiteSpline
from scipy.special import expit, logit

__all__ = ["balanced_growth", "elapsed"]

Array = NDArray[np.float64]
Function = Callable[[Array], Array]

_STEP = 0.004  # of the tables; the error of the interpolation is of the order of its fourth power over 384
_FAR = 230.0  # e^-230 = 1e-100, beyond the ratio of any two gains
_NEAR = 45.0  # e^-45 is far below rounding: the mode has arrived


def elapsed(time: Array, rate: Array) -> Array:
    """``rate tau``, zero where the rate is zero, even at infinite time."""
    if (rate > 0).all():  # the usual case, several times as fast as under a mask
        return np.asarray(time * rate)
    t, r = np.broadcast_arrays(time, rate)
    return np.asarray(np.multiply(t, r, out=np.zeros(t.shape), where=r > 0))


def balanced_growth(initial: Array, target: Array, clock: Array, depth: int) -> Array:
    """Gain q at ``clock`` from ``initial``, arguments broadcast, for a depth of 2 or more; the clock may be infinite.

    A negative initial gain is the mirror image of a positive one. A gain of zero stays zero, and no gain ever
    changes its sign.

    Reference: WP proposition 5.1 (depth 2) and appendix F; Saxe et al. 2014.
    """
    sign = np.where(initial < 0, -1.0, 1.0)
    start, goal, s = np.broadcast_arrays(np.abs(initial), sign * target, clock)
    grown = _logistic(start, goal, s) if depth == 2 else _implicit(start, goal, s, depth)
    return np.asarray(sign * np.where(s == 0, start, np.where(start == 0, 0.0, grown)))


def _logistic(start: Array, goal: Array, clock: Array) -> Array:
    """Depth 2, in a form without cancellation: ``q0 / (E + q0 (1 - E)/q*)``, ``E = exp(-q* s)``."""
    size = np.abs(goal)
    moving = goal != 0
    exponent = np.multiply(size, clock, out=np.zeros(clock.shape), where=moving)
    reach = np.divide(-np.expm1(-exponent), size, out=clock.copy(), where=moving)
    decay = np.exp(-exponent)
    rising = goal >= 0
    above, below = np.where(rising, 1.0, decay), np.where(rising, decay, 1.0)
    # A start of zero would give 0/0 once the decay has underflowed; the caller restores the zero.
    start = np.where(start > 0, start, 1.0)
    return np.asarray(start * above / (below + start * reach))


def _implicit(start: Array, goal: Array, clock: Array, depth: int) -> Array:
    power = 2 - 2 / depth
    size = np.abs(goal)
    with np.errstate(divide="ignore"):
        free = np.where(start > 0, start, 1.0) ** -power + power * clock
    result = np.where(np.isinf(clock), np.maximum(goal, 0.0), free ** (-1 / power))
    live = (start > 0) & (clock > 0) & np.isfinite(clock) & (size > 0)
    ratio = np.divide(start, size, out=np.ones(start.shape), where=size > 0)
    result = np.where(live & (goal == start), goal, result)
    masks = (goal > start), (goal > 0) & (goal < start), (goal < 0)
    for table, mask in zip(_tables(depth), masks, strict=True):
        k = live & mask
        if k.any():
            result[k] = size[k] * table.advance(ratio[k], size[k] ** power * clock[k])
    return result


class _Regime:
    """One regime: the clock s as a function of y, and its inverse, both on a compressed clock.

    Args:
        y: knots.
        s: the clock there.
        slope: ``ds/dy``.
        scale: how the clock is compressed, how it is expanded, and the derivative of the first.
        to_y: y of a ratio u.
        to_u: its inverse.
    """

    def __init__(
        self,
        y: Array,
        s: Array,
        slope: Function,
        scale: tuple[Function, Function, Function],
        to_y: Function,
        to_u: Function,
    ) -> None:
        self.compress, self.expand, stretch = scale
        self.to_y, self.to_u = to_y, to_u
        r, gradient = self.compress(s), slope(y) * stretch(s)
        order = np.argsort(r)
        self.forward = CubicHermiteSpline(y, r, gradient)
        self.inverse = CubicHermiteSpline(r[order], y[order], 1 / gradient[order])

    def advance(self, ratio: Array, duration: Array) -> Array:
        """The ratio u after ``duration``."""
        clock = self.expand(_within(self.forward, self.to_y(ratio))) + duration
        return self.to_u(_within(self.inverse, self.compress(clock)))


def _within(spline: CubicHermiteSpline, x: Array) -> Array:
    """The spline, constant beyond its ends."""
    return np.asarray(spline(np.clip(x, spline.x[0], spline.x[-1])))


def _integrate(slope: Function, y: Array) -> Array:
    """Integral of ``slope`` from ``y[0]`` to every y, by Gauss-Legendre quadrature between the knots."""
    x, w = np.polynomial.legendre.leggauss(5)
    half = np.diff(y) / 2
    inner = slope((y[:-1] + half) + half * x[:, None])
    return np.concatenate([[0.0], np.cumsum(half * (w @ inner))])


@lru_cache(maxsize=8)
def _tables(depth: int) -> tuple[_Regime, _Regime, _Regime]:
    """The three regimes of one depth."""
    p = 1 - 2 / depth

    def rising(y: Array) -> Array:
        return np.asarray(expit(y) ** -p)

    # The rising clock runs from minus to plus infinity: it is summed outwards from u = 1/2 to keep its relative accuracy.
    left, right = np.arange(0.0, _FAR, _STEP), np.arange(0.0, _NEAR, _STEP)
    y = np.concatenate([-left[:0:-1], right])
    s = np.concatenate([-_integrate(lambda x: rising(-x), left)[:0:-1], _integrate(rising, right)])
    both_ways = np.arcsinh, np.sinh, lambda s: 1 / np.hypot(1, s)
    result = [_Regime(y, s, rising, both_ways, logit, expit)]
    # The other two start from infinity at clock 0 and are summed from there.
    for slope, low, to_y, to_u in (
        (lambda y: -((1 + np.exp(y)) ** (-1 - p)), -_NEAR, lambda u: np.log(u - 1), lambda y: 1 + np.exp(y)),
        (lambda y: -np.exp(-p * y) / (1 + np.exp(y)), -_FAR, np.log, np.exp),
    ):
        down = np.arange(_FAR, low, -_STEP)
        s = np.exp(-(1 + p) * down[0]) / (1 + p) + _integrate(slope, down)
        result.append(_Regime(down[::-1], s[::-1], slope, (np.log, np.exp, np.reciprocal), to_y, to_u))
    return result[0], result[1], result[2]
