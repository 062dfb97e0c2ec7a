"""First passage of recorded trajectories through a threshold."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["first_passage"]

Array = NDArray[np.float64]


def _carry_forward(values: Array, steps: Array) -> tuple[Array, Array]:
    """The last finite value up to each record, and its step; NaN before the first."""
    rows = np.where(np.isfinite(values), np.arange(len(values))[:, None], -1)
    last = np.maximum.accumulate(rows, axis=0)
    picked = np.take_along_axis(values, np.maximum(last, 0), axis=0)
    return np.where(last >= 0, picked, np.nan), np.where(last >= 0, steps[np.maximum(last, 0)], np.nan)


def _interpolate(step: tuple[Array, Array], value: tuple[Array, Array], level: Array) -> Array:
    """Step at which a segment meets ``level``: log variance over log step, or over the step if it starts at 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        in_logs = (np.log(level) - np.log(value[0])) / (np.log(value[1]) - np.log(value[0]))
        plain = (level - value[0]) / (value[1] - value[0])
        share = np.where((value[0] > 0) & (value[1] > 0), in_logs, plain)
        logarithmic = np.exp(np.log(step[0]) + share * (np.log(step[1]) - np.log(step[0])))
        linear = step[0] + share * (step[1] - step[0])
    return np.where(step[0] > 0, logarithmic, linear)


def first_passage(steps: ArrayLike, variance: ArrayLike, threshold: ArrayLike, direction: ArrayLike) -> Array:
    """Step at which each trajectory first reaches its threshold; NaN if it never does.

    Between two records, log variance is interpolated linearly in log step; from step 0 to the next record, linearly in
    the step. A variance of exactly 0, which has no logarithm, is interpolated linearly. Records that are not finite are
    skipped.

    Args:
        steps: increasing steps (or times) of the records, ``[T]``; may start at 0.
        variance: the trajectories, ``[T, K]``.
        threshold: ``[K]``.
        direction: +1 for a passage upwards, -1 downwards, 0 for none, ``[K]``.

    Returns:
        Steps of first passage, ``[K]``; the step of the first record for a trajectory that starts past its threshold.

    Raises:
        ValueError: if the shapes do not match or the steps do not increase.

    Example:
        >>> first_passage([0, 10, 1000], [[1.0], [1.0], [100.0]], [10.0], [1]).round(6)
        array([100.])
    """
    t, v = np.asarray(steps, np.float64), np.asarray(variance, np.float64)
    level, sign = np.asarray(threshold, np.float64), np.asarray(direction)
    if v.shape != (*t.shape, *level.shape) or t.ndim != 1 or level.shape != sign.shape or level.ndim != 1:
        raise ValueError(
            "`variance` must have shape [T, K] for T `steps`, K `threshold` and K `direction`, "
            f"got {v.shape}, {t.shape}, {level.shape} and {sign.shape}."
        )
    if not (np.isfinite(t).all() and (np.diff(t) > 0).all() and (t >= 0).all()):
        raise ValueError("`steps` must be finite, zero or more and strictly increasing.")
    if len(t) == 0:
        return np.full(level.shape, np.nan)
    with np.errstate(invalid="ignore"):
        reached = (sign * (v - level) >= 0) & (sign != 0) & np.isfinite(v)
    hit = reached.argmax(axis=0)
    before = np.maximum(hit - 1, 0)
    carried, carried_step = _carry_forward(v, t)
    pick = np.arange(v.shape[1])
    start = (carried_step[before, pick], carried[before, pick])
    passage = _interpolate((start[0], t[hit]), (start[1], v[hit, pick]), level)
    no_segment = (hit == 0) | ~np.isfinite(start[1])
    return np.where(reached.any(axis=0), np.where(no_segment, t[hit], passage), np.nan)
