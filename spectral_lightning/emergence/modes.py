"""First passage, direction and status of every mode in a table of variances [step, mode]."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from spectral_lightning.arguments import one_of
from spectral_lightning.emergence.criteria import Criterion, StaysWithin, as_criterion, direction, gray_zone, threshold
from spectral_lightning.emergence.law import CombinedLaw, EmergenceLaw, combine, fit_law
from spectral_lightning.emergence.monotone import monotone_passage, reversals, stalled
from spectral_lightning.emergence.rules import RULES, Rules

__all__ = ["STATUS", "ModeEmergence", "combined_law", "emergence", "first_passage"]

Array = NDArray[np.float64]

STATUS = ("crossed", "early", "not yet", "never", "gray zone", "null mode", "undefined")
"""A mode has crossed its threshold; crossed it before the second record, so that its time is only bounded; has not crossed it
yet; never will, because it has stopped short of it; started in the gray zone; has no
variance in the data; or has no threshold to cross, because its start or target is not finite or the threshold is zero."""

_CROSSED, _EARLY, _PENDING, _NEVER, _GRAY, _NULL, _UNDEFINED = range(len(STATUS))

DIRECTIONS = {"rising": 1, "falling": -1}


@dataclass(frozen=True)
class ModeEmergence:
    """Emergence of every mode in one table of variances.

    Attributes:
        variance: the data's variance of the modes, ``[K]``; the x axis of the law.
        initial: variance before training, which determines direction and gray zone, ``[K]``.
        target: variance at the end of learning, ``[K]``.
        threshold: variance to pass, ``[K]``.
        direction: +1 rising, -1 falling, 0 undefined, ``[K]``.
        status: index into :data:`STATUS`, ``[K]``.
        time: step of passage, NaN unless the status is "crossed" or "early", ``[K]``.
        error: standard error of the logarithm of the time, 0 where the errors of the variances are unknown, ``[K]``.
        back: largest step back beyond the errors, in log variance, ``[K]``.
        over: largest excess over the target beyond the errors, in log variance, ``[K]``.
        steps: steps of the records, ``[T]``.
        criterion: the criterion of the threshold.
        rules: the rules of judgement.
    """

    variance: Array
    initial: Array
    target: Array
    threshold: Array
    direction: NDArray[np.int64]
    status: NDArray[np.int64]
    time: Array
    error: Array
    back: Array
    over: Array
    steps: Array
    criterion: Criterion
    rules: Rules = RULES

    def eligible(self, way: str) -> NDArray[np.bool_]:
        """Modes of one direction, ``"rising"`` or ``"falling"``, that have to cross: no gray zone, no null mode."""
        one_of("way", way, DIRECTIONS)
        return np.asarray((self.direction == DIRECTIONS[way]) & (self.status <= _NEVER))

    def able(self, way: str) -> NDArray[np.bool_]:
        """Those of :meth:`eligible` that have crossed or may yet."""
        return np.asarray(self.eligible(way) & (self.status != _NEVER))

    def crossed(self, way: str) -> NDArray[np.bool_]:
        """Those of :meth:`eligible` that have passed their threshold."""
        return np.asarray(self.eligible(way) & (self.status <= _EARLY))

    def law(self, way: str, modes: NDArray[np.bool_] | None = None) -> EmergenceLaw:
        """The law of the modes of one direction, by :attr:`rules`; see :func:`~spectral_lightning.emergence.fit_law`.

        Args:
            way: ``"rising"`` or ``"falling"``.
            modes: mask of the modes to use, ``[K]``; all by default.
        """
        return fit_law(**self.observed(way, modes), rules=self.rules)

    def observed(self, way: str, modes: NDArray[np.bool_] | None = None) -> dict[str, Any]:
        """The arguments of :func:`~spectral_lightning.emergence.fit_law`, but for the rules; those of :meth:`law`."""
        of = self.eligible(way) & (True if modes is None else np.asarray(modes, np.bool_))
        chosen = of & (self.status != _NEVER)
        status = self.status[chosen]
        # Before the first step after the start, a time has no logarithm; a last step of 0 bounds nothing.
        second, last = (float(self.steps[1]), float(self.steps[-1])) if len(self.steps) > 1 else (1.0, 1.0)
        side = np.select([status == _EARLY, status == _PENDING], [-1, 1], 0)
        return {
            "variance": self.variance[chosen],
            "time": np.select([side < 0, side > 0], [second, last], self.time[chosen]),
            "side": side,
            "error": np.where(side == 0, self.error[chosen], 0.0),
            "never": int((of & (self.status == _NEVER)).sum()),
        }


def combined_law(
    found: Sequence[ModeEmergence],
    way: str,
    law: Callable[[ModeEmergence, str, NDArray[np.bool_]], EmergenceLaw] = ModeEmergence.law,
) -> CombinedLaw:
    """The exponent over several runs, each fitted over the range of variance that all of them cover.

    Several seeds of one curved law have different exponents if they cover different ranges. A run that has no single
    exponent over the common range leaves none for all.

    Args:
        found: the emergence in each run.
        way: ``"rising"`` or ``"falling"``.
        law: fits the law of one run.
    """

    def none(reason: str) -> CombinedLaw:
        return CombinedLaw(math.nan, math.nan, math.nan, math.nan, len(found), reason)

    ranges = [one.variance[one.crossed(way)] for one in found]
    if not all(len(own) for own in ranges):
        return none("no mode crossed in at least one run")
    low, high = max(own.min() for own in ranges), min(own.max() for own in ranges)
    laws = [law(one, way, (one.variance >= low) & (one.variance <= high)) for one in found]
    for one in laws:
        if not one.determinable:
            return none(f"one run over the common range: {one.reason}")
    reach = [max(one.high - one.low, 1e-12) for one in laws]
    quantile = 2 * float(ndtri((1 + found[0].rules.confidence) / 2))
    return combine([one.exponent for one in laws], np.array(reach) / quantile, found[0].rules.confidence)


def emergence(
    steps: ArrayLike,
    variance: ArrayLike,
    mode_variance: ArrayLike,
    target: ArrayLike | None = None,
    *,
    criterion: Criterion = "geometric",
    gray_factor: float = 2.0,
    null_variance: float = 0.0,
    initial: ArrayLike | None = None,
    error: ArrayLike | None = None,
    level: ArrayLike | None = None,
    rules: Rules = RULES,
) -> ModeEmergence:
    """Emergence of every mode in a table of variances.

    The curves are made monotone in the direction of learning, see
    :func:`~spectral_lightning.emergence.monotone_passage`; what that hides is kept in ``back`` and ``over``. A mode that has
    not crossed "never" will if it has begun and has stood still during the last ``rules.stall_factor`` in steps.

    Args:
        steps: steps of the records, ``[T]``.
        variance: variance of the generated samples, ``[T, K]``.
        mode_variance: the data's variance per mode, ``[K]``.
        target: variance at the end of learning, ``[K]``; the data's by default.
        criterion: a name from :data:`CRITERIA`, a fraction of the target, or :class:`StaysWithin`, the last entry into a
            band about the target, also as ``"within 10 %"``.
        gray_factor: modes that start within this factor of the target are left out.
        null_variance: modes with at most this variance in the data are null modes.
        initial: variance before training, which determines direction and gray zone, ``[K]``; by default the first
            record of ``variance``. A prediction uses that of the measurement, so that both leave out the same modes.
        error: standard errors of ``variance``, ``[T, K]``; without, records count equally and times have no error.
        level: the variance to pass, ``[K]``, instead of the one that the criterion puts between start and target. A prediction
            uses the threshold of the measurement.
        rules: the rules of judgement.

    Raises:
        ValueError: if the shapes do not match; see also :func:`threshold`, :func:`gray_zone` and :func:`first_passage`.
    """
    t, table, lam = (
        np.asarray(steps, np.float64),
        np.asarray(variance, np.float64),
        np.asarray(mode_variance, np.float64),
    )
    end = lam if target is None else np.asarray(target, np.float64)
    if table.ndim != 2 or not table.shape[1:] == lam.shape == end.shape:
        raise ValueError(
            "`variance` must have shape [T, K], `mode_variance` and `target` shape [K], "
            f"got {table.shape}, {lam.shape} and {end.shape}."
        )
    spread = None if error is None else np.asarray(error, np.float64)
    if spread is not None and spread.shape != table.shape:
        raise ValueError(f"`error` must have the shape of `variance`, {table.shape}, got {spread.shape}.")
    _check_steps(t, table)
    own = table[0] if len(table) else np.full(lam.shape, np.nan)
    first = own if initial is None else np.broadcast_to(np.asarray(initial, np.float64), lam.shape)
    known = np.isfinite(own) & np.isfinite(first) & np.isfinite(end)
    sign = np.where(known, direction(first, end), 0)
    back = reversals(table, sign, end, spread, rules)
    criterion = as_criterion(criterion)
    if isinstance(criterion, StaysWithin):
        low, high = criterion.band(end)
        level = np.where(known, np.where(sign > 0, low, high), np.nan)
        # The distance to the target falls to 1 at either edge of the band.
        with np.errstate(divide="ignore", invalid="ignore"):
            off = np.log(table / end)
            table = np.exp(np.where(off > 0, off / np.log1p(criterion.share), off / np.log1p(-criterion.share)))
            unit = np.where(off > 0, np.log1p(criterion.share), -np.log1p(-criterion.share))
            spread = None if spread is None else spread / np.asarray(variance, np.float64) / unit * table
        table = _last_entry(table, spread, rules)
        passing, ways = np.full(lam.shape, np.e), np.where(sign != 0, -1, 0)
    else:
        level = threshold(own, end, criterion) if level is None else np.asarray(level, np.float64)
        level = np.where(known, level, np.nan)
        passing, ways = level, sign
    found = monotone_passage(t, table, passing, ways, spread)
    # A variance of 0 has no logarithm, so such a curve is not made monotone.
    time = np.where((table == 0).any(0), first_passage(t, table, passing, ways), found.time)
    status = np.where(np.isfinite(found.time), np.where(found.bound, _EARLY, _CROSSED), _PENDING)
    still = stalled(t, table, found, passing, spread, rules)
    status = np.where((status == _PENDING) & still, _NEVER, status)
    status = np.where(~(level > 0) | (sign == 0), _UNDEFINED, status)
    status = np.where(known & gray_zone(first, end, gray_factor), _GRAY, status)
    status = np.where(lam <= null_variance, _NULL, status)
    passed = status <= _EARLY
    return ModeEmergence(
        lam, first, end, level, sign, status.astype(np.int64), np.where(passed, time, np.nan),
        np.where(passed, found.error, 0.0), back.back, back.over, t, criterion, rules,
    )  # fmt: skip


def _last_entry(distance: Array, spread: Array | None, rules: Rules) -> Array:
    """Distances ``exp(d)`` to the target from the last stay outside the band on; before that, its furthest point."""
    d = np.log(distance)
    error = np.zeros_like(d) if spread is None else np.nan_to_num(spread / distance)
    rows = np.arange(len(d))[:, None]
    outside = d - 2 * error > 1
    last = np.where(outside, rows, -1).max(0)  # last record that is surely outside
    inside = np.where((d <= 1) & (rows < last), rows, -1).max(0)  # last record inside before it
    stay = (rows > inside) & (rows <= last)
    furthest = np.where(stay, d, -np.inf).argmax(0) if len(d) else inside
    return np.where(rows < np.where(inside >= 0, furthest, 0), np.nan, distance)


def _check_steps(steps: Array, variance: Array) -> None:
    if steps.ndim != 1 or len(steps) != len(variance):
        raise ValueError(f"`steps` must have shape [T] for `variance` [T, K], got {steps.shape} and {variance.shape}.")
    if not (np.isfinite(steps).all() and (np.diff(steps) > 0).all() and (steps >= 0).all()):
        raise ValueError("`steps` must be finite, zero or more and strictly increasing.")


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
    _check_steps(t, v)
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
