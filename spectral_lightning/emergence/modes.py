"""First passage, direction and status of every mode in a table of variances [step, mode]."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectral_lightning.arguments import one_of
from spectral_lightning.emergence.criteria import direction, gray_zone, threshold
from spectral_lightning.emergence.powerlaw import PowerLaw, fit_power_law

__all__ = ["STATUS", "ModeEmergence", "emergence", "first_passage"]

Array = NDArray[np.float64]

STATUS = ("crossed", "not yet", "gray zone", "null mode", "undefined")
"""A mode has crossed its threshold; has not crossed it yet; started in the gray zone; has no variance in the data; or has
no threshold to cross, because its start or target is not finite or the threshold is zero."""

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
        time: step of first passage, NaN unless the status is "crossed", ``[K]``.
        criterion: the criterion of the threshold.
    """

    variance: Array
    initial: Array
    target: Array
    threshold: Array
    direction: NDArray[np.int64]
    status: NDArray[np.int64]
    time: Array
    criterion: str | float

    def eligible(self, way: str) -> NDArray[np.bool_]:
        """Modes of one direction, ``"rising"`` or ``"falling"``, that can cross: no gray zone, no null mode."""
        one_of("way", way, DIRECTIONS)
        return np.asarray((self.direction == DIRECTIONS[way]) & (self.status <= STATUS.index("not yet")))

    def crossed(self, way: str) -> NDArray[np.bool_]:
        """Modes of one direction that have passed their threshold."""
        return np.asarray(self.eligible(way) & (self.status == STATUS.index("crossed")))

    def law(self, way: str, modes: NDArray[np.bool_] | None = None, min_decades: float = 1.0) -> PowerLaw:
        """The power law through the modes of one direction.

        Args:
            way: ``"rising"`` or ``"falling"``.
            modes: mask of the modes to use, ``[K]``; all by default.
            min_decades: a narrower range of variance gives no exponent.
        """
        chosen = self.eligible(way) if modes is None else self.eligible(way) & np.asarray(modes, np.bool_)
        return fit_power_law(self.variance[chosen], self.time[chosen], min_decades=min_decades)


def emergence(
    steps: ArrayLike,
    variance: ArrayLike,
    mode_variance: ArrayLike,
    target: ArrayLike | None = None,
    *,
    criterion: str | float = "geometric",
    gray_factor: float = 2.0,
    null_variance: float = 0.0,
    initial: ArrayLike | None = None,
) -> ModeEmergence:
    """Emergence of every mode in a table of variances.

    Args:
        steps: steps of the records, ``[T]``.
        variance: variance of the generated samples, ``[T, K]``.
        mode_variance: the data's variance per mode, ``[K]``.
        target: variance at the end of learning, ``[K]``; the data's by default.
        criterion: a name from :data:`CRITERIA`, or a fraction of the target.
        gray_factor: modes that start within this factor of the target are left out.
        null_variance: modes with at most this variance in the data are null modes.
        initial: variance before training, which determines direction and gray zone, ``[K]``; by default the first
            record of ``variance``. A prediction uses that of the measurement, so that both leave out the same modes.

    Raises:
        ValueError: if the shapes do not match; see also :func:`threshold`, :func:`gray_zone` and :func:`first_passage`.
    """
    table, lam = np.asarray(variance, np.float64), np.asarray(mode_variance, np.float64)
    end = lam if target is None else np.asarray(target, np.float64)
    if table.ndim != 2 or not table.shape[1:] == lam.shape == end.shape:
        raise ValueError(
            "`variance` must have shape [T, K], `mode_variance` and `target` shape [K], "
            f"got {table.shape}, {lam.shape} and {end.shape}."
        )
    own = table[0] if len(table) else np.full(lam.shape, np.nan)
    first = own if initial is None else np.broadcast_to(np.asarray(initial, np.float64), lam.shape)
    known = np.isfinite(own) & np.isfinite(first) & np.isfinite(end)
    level = np.where(known, threshold(own, end, criterion), np.nan)
    sign = np.where(known, direction(first, end), 0)
    time = first_passage(steps, table, level, sign)
    status = np.where(np.isfinite(time), STATUS.index("crossed"), STATUS.index("not yet"))
    status = np.where(~(level > 0), STATUS.index("undefined"), status)
    status = np.where(known & gray_zone(first, end, gray_factor), STATUS.index("gray zone"), status)
    status = np.where(lam <= null_variance, STATUS.index("null mode"), status)
    time = np.where(status == STATUS.index("crossed"), time, np.nan)
    return ModeEmergence(lam, first, end, level, sign, status.astype(np.int64), time, criterion)


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
