"""When a predicted trajectory passes a threshold, or enters a band to stay: root finding on the trajectory itself."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import elementwise

__all__ = ["passage_time", "settling_time", "time_grid"]

Array = NDArray[np.float64]
Curve = Callable[[Array, NDArray[np.int64]], Array]  # log variance at a time, for a mode by its index; broadcast

_TIMES_PER_DECADE = 8


def time_grid(low: float, high: float, *, whole: bool) -> Array:
    """Times to search, dense enough to miss no passage; 0 and whole steps if ``whole``."""
    grid = np.geomspace(low, high, int(np.ceil(np.log10(high / low) * _TIMES_PER_DECADE)) + 1)
    return np.concatenate([[0.0], np.unique(np.floor(grid))]) if whole else grid


def passage_time(curve: Curve, level: Array, sign: NDArray[np.int64], grid: Array, *, whole: bool) -> Array:
    """First passage through ``level`` upwards (``sign`` 1) or downwards (-1), ``[K]``; NaN if there is none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        goal = np.log(level)
        beyond = sign * (curve(grid[:, None], np.arange(len(level))[None]) - goal) >= 0
    hit = beyond.argmax(axis=0)
    found = beyond.any(axis=0) & (hit > 0) & (sign != 0) & np.isfinite(goal)
    return _refine(curve, goal, sign, np.where(found, hit, 0), grid, whole=whole)


def settling_time(curve: Curve, low: Array, high: Array, grid: Array, start: Array, *, whole: bool) -> Array:
    """Last entry into the band from ``low`` to ``high``, ``[K]``.

    0 where the trajectory never leaves it, NaN where it does not end in it.
    """
    with np.errstate(divide="ignore"):
        below, above = (np.log(edge) for edge in (low, high))
    table = curve(grid[:, None], np.arange(len(low))[None])
    outside = (table < below) | (table > above)
    last = len(grid) - 1 - outside[::-1].argmax(axis=0)
    leaves = outside.any(axis=0)
    under = table[last, np.arange(len(low))] < below
    found = leaves & (last < len(grid) - 1) & np.isfinite(below)
    hit = np.where(found, last + 1, 0)
    result = _refine(curve, np.where(under, below, above), np.where(under, 1, -1), hit, grid, whole=whole)
    within = ~leaves & (start >= low) & (start <= high)
    return np.where(within, 0.0, result)


def _refine(
    curve: Curve, goal: Array, sign: NDArray[np.int64], hit: NDArray[np.int64], grid: Array, *, whole: bool
) -> Array:
    """The passage between the grid times ``hit - 1`` and ``hit``; NaN where ``hit`` is 0."""
    result = np.full(goal.shape, np.nan)
    index = np.flatnonzero(hit > 0)
    if not index.size:
        return result
    before, after = grid[hit[index] - 1], grid[hit[index]]
    if whole:
        result[index] = _between_steps(curve, goal[index], sign[index], before, after, index)
        return result

    def excess(log_time: Array, mode: Array, level: Array) -> Array:
        return curve(np.exp(log_time), mode.astype(np.int64)) - level

    ends, arguments = (np.log(before), np.log(after)), (index.astype(np.float64), goal[index])
    result[index] = np.exp(elementwise.find_root(excess, ends, args=arguments).x)
    return result


def _between_steps(
    curve: Curve, goal: Array, sign: NDArray[np.int64], before: Array, after: Array, index: NDArray[np.int64]
) -> Array:
    """Bisection down to neighbouring steps; between those as in a measured trajectory, in log variance and log step."""
    middle = np.floor((before + after) / 2)
    while (open_ := (middle > before) & (middle < after)).any():
        passed = sign * (curve(middle, index) - goal) >= 0
        after = np.where(open_ & passed, middle, after)
        before = np.where(open_ & ~passed, middle, before)
        middle = np.floor((before + after) / 2)
    first, second = curve(before, index), curve(after, index)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (goal - first) / (second - first)
        # From step 0, which has no logarithm, log variance is interpolated in the step itself.
        passage = np.where(before > 0, np.exp(np.log(before) + share * (np.log(after) - np.log(before))), share * after)
    return np.where(np.isfinite(passage), passage, after)
