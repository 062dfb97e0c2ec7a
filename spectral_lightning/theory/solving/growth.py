"""Growth of the gain of a balanced stack of linear layers: ``dq/ds = |q|^(2 - 2/L) (q* - q)``.

The clock s is training time multiplied by the rate of the level and the mode. Depth 1 and 2 have explicit solutions.
For L >= 3 the solution is implicit; with ``u = q / |q*|`` and ``p = 1 - 2/L`` it is one and the same curve for all
modes in each of three regimes, tabulated once per depth with cubic Hermite interpolation:

- rising, ``0 < u < 1``: ``y = log(u / (1 - u))``, ``ds/dy = u^(-p)``;
- falling to the target, ``u > 1``: ``y = log(u - 1)``, ``ds/dy = -u^(-1-p)``;
- falling to zero, ``q* < 0``: ``y = log u``, ``ds/dy = -u^(-p) / (1 + u)``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicHermiteSpline
from scipy.special import expit

__all__ = ["balanced_growth", "elapsed"]

Array = NDArray[np.float64]

_STEP = 0.004  # of the tables; the error of the interpolation is of the order of its fourth power over 384
_FAR = 230.0  # e^-230 = 1e-100, beyond the ratio of any two gains
_NEAR = 45.0  # e^-45 is far below rounding: the mode has arrived


def elapsed(time: Array, rate: Array) -> Array:
    """``rate tau``, zero where the rate is, at infinite time too."""
    if (rate > 0).all():  # the usual case, several times as fast as under a mask
        return np.asarray(time * rate)
    t, r = np.broadcast_arrays(time, rate)
    return np.asarray(np.multiply(t, r, out=np.zeros(t.shape), where=r > 0))


def balanced_growth(initial: Array, target: Array, clock: Array, depth: int) -> Array:
    """Gain q at ``clock`` from ``initial``, arguments broadcast; the clock may be infinite.

    A negative initial gain is the mirror image of a positive one. At depth 2 and more a gain of zero stays zero, and no
    gain ever changes its sign.

    Reference: WP proposition 5.1 (depth 2) and appendix F; Saxe et al. 2014.
    """
    sign = np.where(initial < 0, -1.0, 1.0)
    start, goal, s = np.broadcast_arrays(np.abs(initial), sign * target, clock)
    if depth == 1:
        return np.asarray(target + (initial - target) * np.exp(-clock))
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
    # A start of zero would divide zero by zero once the decay has run out; the caller puts the zero back.
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


@dataclass(frozen=True)
class _Table:
    """One regime: the clock as a function of y, and its inverse, both on a compressed clock."""

    forward: CubicHermiteSpline
    inverse: CubicHermiteSpline
    compress: Callable[[Array], Array]
    expand: Callable[[Array], Array]
    to_y: Callable[[Array], Array]
    to_u: Callable[[Array], Array]

    def advance(self, ratio: Array, duration: Array) -> Array:
        """The ratio u after ``duration``."""
        knots = self.forward.x
        r = self.forward(np.clip(self.to_y(ratio), knots[0], knots[-1]))
        r = self.compress(self.expand(r) + duration)
        knots = self.inverse.x
        return self.to_u(self.inverse(np.clip(r, knots[0], knots[-1])))


def _integrate(slope: Callable[[Array], Array], y: Array) -> Array:
    """Integral of ``slope`` from ``y[0]`` to every y, by Gauss-Legendre quadrature between the knots."""
    x, w = np.polynomial.legendre.leggauss(5)
    half = np.diff(y) / 2
    inner = slope((y[:-1] + half) + half * x[:, None])
    return np.concatenate([[0.0], np.cumsum(half * (w @ inner))])


def _table(
    y: Array,
    s: Array,
    slope: Callable[[Array], Array],
    compress: Callable[[Array], Array],
    expand: Callable[[Array], Array],
    stretch: Callable[[Array], Array],
    to_y: Callable[[Array], Array],
    to_u: Callable[[Array], Array],
) -> _Table:
    r, gradient = compress(s), slope(y) * stretch(s)
    order = slice(None) if r[-1] > r[0] else slice(None, None, -1)
    inverse = CubicHermiteSpline(r[order], y[order], 1 / gradient[order])
    return _Table(CubicHermiteSpline(y, r, gradient), inverse, compress, expand, to_y, to_u)


@lru_cache(maxsize=8)
def _tables(depth: int) -> tuple[_Table, _Table, _Table]:
    """The three regimes of one depth."""
    p = 1 - 2 / depth

    def rising(y: Array) -> Array:
        return np.asarray(expit(y) ** -p)

    def falling(y: Array) -> Array:
        return np.asarray(-((1 + np.exp(y)) ** (-1 - p)))

    def vanishing(y: Array) -> Array:
        return np.asarray(-np.exp(-p * y) / (1 + np.exp(y)))

    # The rising clock runs from minus to plus infinity: it is summed outwards from u = 1/2 to keep its relative accuracy.
    left, right = np.arange(0.0, _FAR, _STEP), np.arange(0.0, _NEAR, _STEP)
    y = np.concatenate([-left[:0:-1], right])
    s = np.concatenate([-_integrate(lambda x: rising(-x), left)[:0:-1], _integrate(rising, right)])
    up = _table(
        y, s, rising, np.arcsinh, np.sinh, lambda s: 1 / np.hypot(1, s), lambda u: np.log(u) - np.log1p(-u), expit
    )
    result = [up]
    # The other two start from infinity at clock 0 and are summed from there.
    for slope, low, to_y, to_u in (
        (falling, -_NEAR, lambda u: np.log(u - 1), lambda y: 1 + np.exp(y)),
        (vanishing, -_FAR, np.log, np.exp),
    ):
        down = np.arange(_FAR, low, -_STEP)
        s = np.exp(-(1 + p) * down[0]) / (1 + p) + _integrate(slope, down)
        result.append(_table(down[::-1], s[::-1], slope, np.log, np.exp, lambda s: 1 / s, to_y, to_u))
    return result[0], result[1], result[2]
