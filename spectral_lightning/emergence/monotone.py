"""Curves of variance made monotone in the direction of learning, their passages, and what they hide: steps back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import isotonic_regression

from spectral_lightning.emergence.rules import RULES, Rules

__all__ = ["MonotonePassage", "Reversals", "monotone_passage", "reversals", "stalled"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class MonotonePassage:
    """First passage of monotone curves.

    Attributes:
        time: step of the passage, NaN without one, ``[K]``.
        error: standard error of its logarithm, from the errors of the variances, ``[K]``; 0 where these are unknown.
        bound: whether the passage lies before the second record, so that only an upper bound is known, ``[K]``.
        way: log variance of the monotone curves at the records, NaN where there is no record, ``[T, K]``.
    """

    time: Array
    error: Array
    bound: NDArray[np.bool_]
    way: Array


def monotone_passage(
    steps: ArrayLike, variance: ArrayLike, threshold: ArrayLike, direction: ArrayLike, error: ArrayLike | None = None
) -> MonotonePassage:
    """Step at which each curve passes its threshold, once made monotone in the direction of learning.

    The log variance is replaced by its isotonic regression, weighted by ``(v / error)^2``. First passage of a noisy curve is
    early, because the first fluctuation over the threshold counts; that of its monotone fit is not. A pooled stretch
    between two others counts at its mean log step (centred isotonic regression); one at either end counts as a whole. Between,
    log variance is linear in log step, and linear in the step from step 0 on.

    The error of log time is half the difference between the log times at which the curve passes one standard error below
    and one above the threshold. It is that of one record: too large where independent neighbours are pooled.

    References: Barlow et al. 1972 (isotonic regression); Oron & Flournoy 2017 (centred).

    Args:
        steps: increasing, ``[T]``.
        variance: ``[T, K]``; values that are not finite, or zero, are left out.
        threshold: ``[K]``.
        direction: +1 for a passage upwards, -1 downwards, 0 for none, ``[K]``.
        error: standard errors of the variance, ``[T, K]``; where any of a mode is unknown or zero, its records count equally.

    Example:
        >>> found = monotone_passage([1, 10, 100, 1000], [[1.0], [9.0], [7.0], [100.0]], [30.0], [1])
        >>> found.time.round(0), found.bound
        (array([194.]), array([False]))
    """
    t, v = np.asarray(steps, np.float64), np.asarray(variance, np.float64)
    level, sign = np.asarray(threshold, np.float64), np.asarray(direction)
    with np.errstate(divide="ignore", invalid="ignore"):
        y, goal = np.log(v), np.log(level)
        spread = np.zeros_like(v) if error is None else np.asarray(error, np.float64) / v
    time, deviation = np.full(level.shape, np.nan), np.zeros(level.shape)
    bound, way = np.zeros(level.shape, np.bool_), np.full(v.shape, np.nan)
    for k in np.flatnonzero((sign != 0) & np.isfinite(goal)):
        known = np.isfinite(y[:, k])
        if not known.any():
            continue
        at, own = t[known], spread[known, k]
        equal = not ((own > 0) & np.isfinite(own)).all()
        fit = isotonic_regression(sign[k] * y[known, k], weights=None if equal else own**-2.0, increasing=True)
        way[known, k] = sign[k] * fit.x
        knots = _knots(at, fit.x, fit.blocks)
        goes = sign[k] * goal[k]
        time[k] = _passage(*knots, goes)
        bound[k] = len(at) > 1 and time[k] < at[1]
        if not equal and np.isfinite(time[k]):
            deviation[k] = _time_error(knots, goes, float(np.interp(time[k], at, own)))
    return MonotonePassage(time, deviation, bound, way)


def _knots(steps: Array, fit: Array, blocks: NDArray[np.int64]) -> tuple[Array, Array]:
    """Steps and values between which a monotone curve is interpolated."""
    first, last = blocks[:-1], blocks[1:] - 1
    # The first block, the only one with a step 0, is not placed at its mean.
    logs = np.concatenate([[0.0], np.log(np.maximum(steps, 1e-300)).cumsum()])
    centre = np.exp((logs[last + 1] - logs[first]) / (last + 1 - first))
    centre = np.where(first == last, steps[first], centre)
    if len(first) == 1:
        return steps[[0, -1]], fit[[0, -1]]
    begin, end = [steps[0]][: int(first[0] != last[0])], [steps[-1]][: int(first[-1] != last[-1])]
    centre[0], centre[-1] = steps[last[0]], steps[first[-1]]
    return np.concatenate([begin, centre, end]), np.concatenate(
        [fit[:1][: len(begin)], fit[first], fit[-1:][: len(end)]]
    )


def _passage(at: Array, value: Array, level: float) -> float:
    """Where an increasing curve first reaches a level; NaN if it does not."""
    after = int(np.searchsorted(value, level))
    if after == len(value):
        return float("nan")
    if after == 0:
        return float(at[0])
    (t0, t1), (y0, y1) = at[after - 1 : after + 1], value[after - 1 : after + 1]
    if t0 > 0:
        return float(np.exp(np.log(t0) + (level - y0) / (y1 - y0) * np.log(t1 / t0)))
    return float(t0 + (level - y0) / (y1 - y0) * (t1 - t0))


def _time_error(knots: tuple[Array, Array], level: float, error: float) -> float:
    """Standard error of the log of the passage: half the change of log time between one error below and one above."""
    low, middle, high = (_passage(*knots, level + shift * error) for shift in (-1, 0, 1))
    after = knots[0][knots[0] > 0]
    if not len(after):
        return 0.0
    least = after[0] / 2  # a passage between step 0 and the next record has no precise logarithm
    low, middle, high = (max(step, least) for step in (low, middle, high))  # keeps NaN, which comes first
    return float(np.log(high / low) / 2 if np.isfinite(high) else np.log(middle / low))


@dataclass(frozen=True)
class Reversals:
    """Where curves go against the direction of learning, beyond their errors.

    Attributes:
        back: largest step back, in log variance, ``[K]``; 0 where it is within the errors.
        over: largest excess over the target, in log variance, ``[K]``; 0 where it is within the errors.
    """

    back: Array
    over: Array


def reversals(
    variance: ArrayLike,
    direction: ArrayLike,
    target: ArrayLike,
    error: ArrayLike | None = None,
    rules: Rules = RULES,
) -> Reversals:
    """Largest step back from the furthest point so far, and largest excess over the target, of each curve.

    Both count if they exceed ``rules.least_change`` and ``rules.errors`` standard errors (of a difference: of both its ends).

    Args:
        variance: ``[T, K]``.
        direction: ``[K]``.
        target: ``[K]``.
        error: standard errors of the variance, ``[T, K]``.
        rules: what counts.
    """
    v, sign = np.asarray(variance, np.float64), np.asarray(direction)
    if not len(v):
        return Reversals(np.zeros(sign.shape), np.zeros(sign.shape))
    with np.errstate(divide="ignore", invalid="ignore"):
        y = np.where(v > 0, sign * np.log(v), np.nan)
        goal = sign * np.log(np.asarray(target, np.float64))
        spread = np.zeros_like(v) if error is None else np.nan_to_num(np.asarray(error, np.float64) / v, posinf=0.0)
    furthest = np.fmax.accumulate(y, axis=0)
    reached = y >= furthest
    # The error of the furthest point so far.
    rows = np.maximum.accumulate(np.where(reached, np.arange(len(v))[:, None], 0), axis=0)
    before = np.take_along_axis(spread, rows, axis=0)
    back, over = furthest - y, y - goal
    counts = (back > rules.least_change) & (back > rules.errors * np.hypot(before, spread))
    exceeds = (over > rules.least_change) & (over > rules.errors * spread)
    return Reversals(
        np.where(counts & (sign != 0), back, 0.0).max(0), np.where(exceeds & (sign != 0), over, 0.0).max(0)
    )


def stalled(
    steps: ArrayLike,
    variance: ArrayLike,
    passage: MonotonePassage,
    threshold: ArrayLike,
    error: ArrayLike | None = None,
    rules: Rules = RULES,
) -> NDArray[np.bool_]:
    """Modes that have begun, but stood still short of their threshold during the last ``rules.stall_factor`` in steps, ``[K]``.

    They are taken never to cross.

    Args:
        steps: ``[T]``.
        variance: ``[T, K]``.
        passage: of these curves.
        threshold: ``[K]``.
        error: standard errors of the variance, ``[T, K]``.
        rules: what counts as begun and as still.
    """
    t, v, way = np.asarray(steps, np.float64), np.asarray(variance, np.float64), passage.way
    early = np.flatnonzero(t * rules.stall_factor <= t[-1]) if len(t) else np.array([], np.int64)
    if not len(early) or t[early[-1]] == 0:
        return np.zeros(passage.time.shape, np.bool_)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        noise = 0.0 if error is None else np.nan_to_num(np.asarray(error, np.float64)[-1] / v[-1])
        whole = np.abs(np.log(np.asarray(threshold, np.float64)) - way[0])
        gone, lately = np.abs(way[-1] - way[0]), np.abs(way[-1] - way[early[-1]])
        begun = (gone > rules.begun * whole) & (gone > rules.errors * noise)
        return np.asarray(np.isnan(passage.time) & begun & (lately <= rules.stall_share * gone))
