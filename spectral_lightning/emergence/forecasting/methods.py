"""Methods that forecast when the modes of one direction pass their thresholds.

Notation: p is the progress of a mode, its share of the way from initial to target variance in log variance; ``z`` is the
logit of p minus that of the threshold, so that a mode passes at ``z = 0``; ``x`` is the standardised log variance of the
data; "now" is the log of the step of a record. All methods but the law and the theory's take the progress for a logistic
function of log step, ``z = w (log t - log tau)`` with pace w, and differ in how much of it each mode has to itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, logit, ndtr, ndtri

from spectral_lightning.emergence.modes import first_passage

__all__ = ["METHODS", "SLOWEST", "Curves", "Seen", "censored_regression"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_EDGE = (0.03, 0.97)  # progress outside is cut off there, where the logit is mostly noise
_UNDERWAY = 0.05  # progress from which on a mode has a pace
_WINDOW = 0.7  # of log step, over which a pace is measured
_TAUGHT = 1.0  # of log step, whose records teach the regression
_TYPICAL, SLOWEST = 1.5, 0.15  # pace if none is measured; smallest pace
_STEPS, _TINY, _SCATTER = 30, 1e-9, 1e-3  # of Newton's method; least penalty; least scatter
_LEAST = 4  # modes that crossed, to fit a line; points, to fit a pace


@dataclass(frozen=True)
class Curves:
    """What is measured of the K modes of one direction, at all T records after step 0.

    Attributes:
        log_step: logs of the steps, ``[T]``.
        progress: p, ``[T, K]``.
        z: logit of the progress minus that of the threshold, ``[T, K]``.
        x: standardised log variance of the data, ``[K]``.
        passage: log of the step of first passage, infinite if there is none, that of the first record if it is 0, ``[K]``.
        theory: log of the predicted step of first passage, NaN without one, ``[K]``.
    """

    log_step: Array
    progress: Array
    z: Array
    x: Array
    passage: Array
    theory: Array

    @classmethod
    def measured(
        cls,
        steps: Array,
        variance: Array,
        initial: Array,
        target: Array,
        threshold: Array,
        direction: NDArray[Any],
        mode_variance: Array,
        theory: Array,
    ) -> Curves:
        """From a table of variances ``[T, K]`` and what is known of its modes, ``[K]`` each."""
        passage = first_passage(steps, variance, threshold, direction)
        after = steps > 0
        progress = np.clip(_carried(_progress(variance[after], initial, target)), -1, 2)  # infinite for a variance of 0
        level = logit(np.clip(_progress(threshold, initial, target), *_EDGE))
        first = steps[after][0] if after.any() else 1.0
        x = np.log(mode_variance)
        with np.errstate(divide="ignore", invalid="ignore"):
            return cls(
                log_step=np.log(steps[after]),
                progress=progress,
                z=logit(np.clip(progress, *_EDGE)) - level,
                x=(x - x.mean()) / (x.std() or 1.0),
                passage=np.log(np.where(passage > 0, passage, np.where(np.isnan(passage), np.inf, first))),
                theory=np.where(theory > 0, np.log(theory), np.nan),
            )

    @cached_property
    def pace(self) -> Array:
        """Slope of z over log step by least squares in the window up to each record, ``[T, K]``; NaN at the first."""
        found = np.full_like(self.z, np.nan)
        first = np.searchsorted(self.log_step, self.log_step - _WINDOW)
        for row in range(1, len(self.z)):
            window = slice(min(int(first[row]), row - 1), row + 1)
            t = self.log_step[window] - self.log_step[window].mean()
            found[row] = t @ self.z[window] / (t @ t)
        return found


def _progress(value: Array, initial: Array, target: Array) -> Array:
    """Share of the way in log variance; in variance where that starts or ends at 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logarithmic = np.log(value / initial) / np.log(target / initial)
        return np.where((initial > 0) & (target > 0), logarithmic, (value - initial) / (target - initial))


def _carried(table: Array) -> Array:
    """The table with each NaN replaced by the last number above it, or by 0."""
    rows = np.maximum.accumulate(np.where(np.isnan(table), -1, np.arange(len(table))[:, None]), axis=0)
    return np.where(rows >= 0, np.take_along_axis(table, np.maximum(rows, 0), axis=0), 0.0)


@dataclass(frozen=True)
class Seen:
    """The curves up to one record, and forecasts from them: logs of steps, ``[K]``, of any value for a mode that crossed."""

    curves: Curves
    row: int

    @cached_property
    def now(self) -> float:
        """Log of the step of the record."""
        return float(self.curves.log_step[self.row])

    @cached_property
    def crossed(self) -> Mask:
        """Modes past their threshold, ``[K]``."""
        return np.asarray(self.curves.passage <= self.now)

    @cached_property
    def common_pace(self) -> float:
        """Slope of z over log step within the modes, common to all of them, by least squares."""
        p, z = self.curves.progress[: self.row + 1], self.curves.z[: self.row + 1]
        inside = (p > _UNDERWAY) & (p < 0.7)
        count = np.maximum(inside.sum(0), 1)
        t = np.broadcast_to(self.curves.log_step[: self.row + 1, None], z.shape)
        dt, dz = (np.where(inside, a - np.where(inside, a, 0).sum(0) / count, 0) for a in (t, z))
        if inside.sum() <= _LEAST or not dt.any():
            return _TYPICAL
        return max(SLOWEST, float((dt * dz).sum() / (dt * dt).sum()))

    @cached_property
    def floor(self) -> Array:
        """Every mode passes now."""
        return np.full_like(self.curves.x, self.now)

    @cached_property
    def law(self) -> Array:
        """A line of log step over log variance (Tobit); its mean given that the mode has not crossed."""
        return self._line(self.curves.x, np.isfinite(self.floor))

    @cached_property
    def theory(self) -> Array:
        """The same over the log of the theory's step; the pace where the theory predicts none."""
        known = np.isfinite(self.curves.theory)
        return np.where(known, self._line(self.curves.theory, known), self.pace if known.any() else np.inf)

    def _line(self, x: Array, use: Mask) -> Array:
        if (use & self.crossed).sum() < _LEAST:
            return np.full_like(self.floor, np.inf)
        y = np.where(self.crossed, self.curves.passage, self.now)
        found = np.array(y)
        design = np.stack([np.ones(use.sum()), x[use]], axis=1)
        found[use] = censored_regression(design, y[use], ~self.crossed[use])[2]
        return found

    @cached_property
    def curve(self) -> Array:
        """Three numbers: one pace, and ``tau ~ lambda^-a``, fitted to the progress of all modes."""
        p, z = self.curves.progress[: self.row + 1], self.curves.z[: self.row + 1]
        inside = (p > _UNDERWAY) & (p < _EDGE[1])
        t, x = (
            np.broadcast_to(a, z.shape)[inside] for a in (self.curves.log_step[: self.row + 1, None], self.curves.x)
        )
        if len(t) <= _LEAST:
            return self.law
        c, w, a = np.linalg.lstsq(np.stack([np.ones_like(t), t, x], axis=1), z[inside], rcond=None)[0]
        return np.asarray(-(c + a * self.curves.x) / max(w, SLOWEST))

    @cached_property
    def shift(self) -> Array:
        """One pace for all modes, from where each is."""
        return self._onward(np.full_like(self.floor, self.common_pace))

    @cached_property
    def pace(self) -> Array:
        """From where each mode is, at the mean of its pace and that of all modes."""
        own = np.nan_to_num(self.curves.pace[self.row], nan=self.common_pace)
        return self._onward(np.maximum((own + self.common_pace) / 2, SLOWEST))

    def _onward(self, pace: Array) -> Array:
        underway = self.curves.progress[self.row] > _UNDERWAY
        return np.where(underway, self.now - self.curves.z[self.row] / pace, self.law)

    @cached_property
    def regression(self) -> Array:
        """Log of the steps left, linear in progress, pace and variance as it was for the modes of recent records (Tobit)."""
        curves = self.curves
        rows = [row for row in range(1, self.row) if curves.log_step[row] >= self.now - _TAUGHT]
        ahead = [curves.passage > curves.log_step[row] for row in rows]
        if sum(int((one & self.crossed).sum()) for one in ahead) < _LEAST:
            return self.pace
        design = np.concatenate([self._features(row)[one] for row, one in zip(rows, ahead, strict=True)])
        seen = np.minimum(curves.passage, self.now)
        left = np.concatenate([seen[one] - curves.log_step[row] for row, one in zip(rows, ahead, strict=True)])
        censored = np.concatenate([~self.crossed[one] for one in ahead])
        coefficients, scatter, _ = censored_regression(design, left, censored, ridge=1.0)
        mean = self._features(self.row) @ coefficients
        median = mean + scatter * ndtri((1 + ndtr(-mean / scatter)) / 2)  # given that some steps are left
        return self.now + np.where(np.isfinite(median), np.maximum(median, 0), 0.0)

    def _features(self, row: int) -> Array:
        z, pace = self.curves.z[row], self.curves.pace[row]
        return np.stack([np.ones_like(z), z, -z / np.maximum(pace, 2 * SLOWEST), self.curves.x], axis=1)

    @cached_property
    def mean(self) -> Array:
        """The geometric mean of pace and regression."""
        return (np.maximum(self.pace, self.now) + self.regression) / 2


METHODS: Mapping[str, Callable[[Seen], Array]] = {
    "now": lambda seen: seen.floor,
    "law": lambda seen: seen.law,
    "curve": lambda seen: seen.curve,
    "shift": lambda seen: seen.shift,
    "pace": lambda seen: seen.pace,
    "regression": lambda seen: seen.regression,
    "mean": lambda seen: seen.mean,
    "theory": lambda seen: seen.theory,
}


def censored_regression(design: Array, y: Array, censored: Mask, *, ridge: float = 0.0) -> tuple[Array, float, Array]:
    """Normal linear regression in which some values are lower bounds (Tobit), by maximum likelihood.

    In terms of coefficients and values over the scatter s, the log likelihood is concave: with ``u = (x b - y) / s`` it is
    ``-log s - u^2 / 2`` for a value and ``log Phi(u)`` for a bound; Newton's method.

    Reference: Tobin 1958; Olsen 1978 (concavity).

    Args:
        design: x, a constant first, ``[N, P]``.
        y: values or lower bounds, ``[N]``.
        censored: which are bounds, ``[N]``.
        ridge: penalty on the squares of ``b / s`` but for the constant.

    Returns:
        Coefficients b ``[P]``, scatter s, and the values with each bound replaced by its mean given that it is one, ``[N]``.
    """
    rows = np.column_stack([design, -y])
    known = int((~censored).sum())
    penalty = np.array([_TINY, *[ridge + _TINY] * (design.shape[1] - 1), known * _SCATTER**2])
    start = np.linalg.lstsq(design, y, rcond=None)[0]
    scaled = np.append(start, 1.0) / max(float((y - design @ start).std()), 0.1)
    for _ in range(_STEPS):
        u = rows @ scaled
        pull = np.where(censored, np.exp(-u * u / 2 - log_ndtr(u)) / math.sqrt(2 * math.pi), -u)
        gradient = rows.T @ pull - penalty * scaled
        hessian = (rows.T * np.where(censored, pull * (pull + u), 1.0)) @ rows + np.diag(penalty)
        gradient[-1] += known / scaled[-1]
        hessian[-1, -1] += known / scaled[-1] ** 2
        step = np.linalg.solve(hessian, gradient)
        scaled += step * min(1.0, 0.75 * scaled[-1] / max(-float(step[-1]), _TINY))  # the last one stays positive
        if gradient @ step < 1e-8 * len(y):
            break
    scatter = float(1 / scaled[-1])
    u = rows @ scaled
    mean = y + scatter * (u + np.exp(-u * u / 2 - log_ndtr(u)) / math.sqrt(2 * math.pi))
    return scaled[:-1] * scatter, scatter, np.where(censored, mean, y)
