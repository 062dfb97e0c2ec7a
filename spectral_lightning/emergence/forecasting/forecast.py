"""The steps at which modes will pass their thresholds, by whichever method has predicted best so far in the same run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from spectral_lightning.arguments import fraction, non_negative, positive
from spectral_lightning.emergence.forecasting.backtest import FARTHEST, Tested
from spectral_lightning.emergence.forecasting.calibration import QUANTILES
from spectral_lightning.emergence.forecasting.methods import SLOWEST, Array, Curves, Mask

__all__ = ["Course", "Forecast", "Interval", "forecast"]

_LEAST, _LEAST_RANKED = 5, 10  # modes that passed, modes in all: fewer are named, or not ranked
_ORDERED = -0.3  # rank correlation of step and variance above which they are not in its order
_BACK, _GONE = 0.1, 0.25  # progress lost by a mode that went back; share of such modes


class Interval(NamedTuple):
    """A number with the ends of its interval, which may be infinite."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Course:
    """How the modes of one direction were forecast.

    Attributes:
        way: ``"rising"`` or ``"falling"``.
        method: the method used, a name of :data:`METHODS`; empty if nothing is left to forecast, or nothing known.
        scores: error of every method in this run so far: ``|log(predicted / actual step)|``, the median over the modes that
            crossed since, the mean over the tests; NaN before the first test.
        tests: earlier records from which the methods were tested.
        eligible: modes of this direction that can cross.
        crossed: those that have.
        warnings: reasons to distrust the forecast.
    """

    way: str
    method: str
    scores: Mapping[str, float]
    tests: int
    eligible: int
    crossed: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Forecast:
    """Steps at which the modes pass their thresholds, measured and forecast.

    Attributes:
        now: step of the last record; NaN without one.
        end: planned last step of the training; NaN if unknown.
        step: measured or forecast step, ``[K]``; infinite if not foreseeable, NaN for a mode that cannot cross.
        low: lower end of the step's interval, ``[K]``.
        high: upper end, ``[K]``; infinite if the mode may never pass.
        learnt: modes past their threshold, ``[K]``.
        eligible: modes that can cross, ``[K]``.
        target: variance at the end of learning, ``[K]``.
        courses: how each direction was forecast.
        confidence: of the intervals.
        least_variance: target variance from which on a mode matters.
    """

    now: float
    end: float
    step: Array
    low: Array
    high: Array
    learnt: Mask
    eligible: Mask
    target: Array
    courses: tuple[Course, ...]
    confidence: float
    least_variance: float

    def share_of_modes(self, step: float | None = None) -> Interval:
        """Share of the eligible modes that are past their threshold at a step; now by default. NaN without any."""
        return self.share(np.ones_like(self.target), step)

    def share_of_variance(self, step: float | None = None) -> Interval:
        """Target variance of the modes past their threshold, as a share of that of all eligible modes."""
        return self.share(self.target, step)

    def share(self, weight: ArrayLike, step: float | None = None) -> Interval:
        """Weight of the modes past their threshold, as a share of that of all eligible modes; weights ``[K]``."""
        weight = np.where(self.eligible, np.asarray(weight, np.float64), 0.0)
        if not weight.sum() > 0:
            return Interval(math.nan, math.nan, math.nan)
        if step is None or step <= self.now:
            value = float(weight[self.step <= (self.now if step is None else step)].sum() / weight.sum())
            return Interval(value, value, value)
        ends = [float(weight[steps <= step].sum() / weight.sum()) for steps in (self.step, self.high, self.low)]
        return Interval(*ends)

    def reach(self, share: float = 0.9) -> Interval:
        """Step at which a share of the eligible modes is past the threshold; infinite if not foreseeable.

        The interval takes the errors of all modes for one: that of its order statistic.
        """
        fraction("share", share)
        count = int(self.eligible.sum())
        if not count:
            return Interval(math.nan, math.nan, math.nan)
        place = math.ceil(share * count - 1e-9) - 1
        return Interval(*(float(np.sort(ends[self.eligible])[place]) for ends in (self.step, self.low, self.high)))

    @cached_property
    def late(self) -> Mask:
        """Modes that matter and pass after ``end``, or not foreseeably, ``[K]``."""
        return np.asarray(self._matters & ~(self.step <= self.end)) if self.end > 0 else np.zeros_like(self.eligible)

    @property
    def _matters(self) -> Mask:
        return np.asarray(self.eligible & (self.target >= self.least_variance))

    @cached_property
    def shortfall(self) -> str:
        """What will be missing at the end of the training, in one sentence; empty if nothing is known to be."""
        if not self.late.any():
            return ""
        last = float(self.step[self.late].max())
        when = f"the last at step {last:,.0f}" if math.isfinite(last) else "some of them not in sight"
        return (
            f"Training ends at step {self.end:,.0f}, before {self.late.sum()} of the {self._matters.sum()} modes with "
            f"a variance of {self.least_variance:.3g} or more are learnt ({when})."
        )

    @property
    def doubts(self) -> tuple[str, ...]:
        """Reasons to distrust the forecast."""
        return tuple(f"{course.way.capitalize()} modes: {why}" for course in self.courses for why in course.warnings)

    @property
    def warnings(self) -> tuple[str, ...]:
        """:attr:`shortfall`, if any, then :attr:`doubts`."""
        return (*([self.shortfall] if self.shortfall else []), *self.doubts)


def forecast(
    steps: ArrayLike,
    variance: ArrayLike,
    initial: ArrayLike,
    target: ArrayLike,
    threshold: ArrayLike,
    direction: ArrayLike,
    eligible: ArrayLike,
    mode_variance: ArrayLike,
    *,
    theory: ArrayLike | None = None,
    end: float | None = None,
    least_variance: float | None = None,
    confidence: float = 0.8,
) -> Forecast:
    """Forecast at which step every mode will pass its threshold.

    Each direction is forecast by all methods of :data:`METHODS`, now and from up to four earlier records. The method whose
    errors were smallest on the modes that crossed since is used; before there are tests, what is known of the methods from
    other experiments decides, and goes on weighing as much as one test. Intervals come from the errors of forecasts
    of other experiments, scaled by horizon and by the errors in this run. A mode without discernible pace may never pass.

    Args:
        steps: steps of the records, increasing, ``[T]``.
        variance: variance of the generated samples, ``[T, K]``.
        initial: variance before training, ``[K]``.
        target: variance at the end of learning, ``[K]``.
        threshold: variance to pass, ``[K]``.
        direction: +1 rising, -1 falling, ``[K]``.
        eligible: mask of the modes that can cross, ``[K]``.
        mode_variance: variance of the data, ``[K]``.
        theory: predicted steps of first passage, NaN where there are none, ``[K]``; only their order and ratios matter.
        end: planned last step of the training.
        least_variance: target variance from which on a mode matters; by default a hundredth of the largest.
        confidence: of the intervals: 0.5, 0.8 or 0.9.

    Raises:
        ValueError: for shapes that do not match, steps that do not increase, or another confidence.

    Example:
        >>> import numpy as np
        >>> steps, tau = np.geomspace(1, 100, 21), np.geomspace(10, 1000, 9)
        >>> progress = 1 / (1 + (steps[:, None] / tau) ** -2)
        >>> v0, v1 = np.full(9, 1e-3), np.geomspace(10, 0.1, 9)
        >>> found = forecast(steps, v0 * (v1 / v0) ** progress, v0, v1, (v0 * v1) ** 0.5, np.ones(9), v0 < v1, v1)
        >>> found.step[5:].round(-1).tolist()  # of 178, 316, 562, 1000
        [180.0, 340.0, 560.0, 1000.0]
    """
    t, table = np.asarray(steps, np.float64), np.asarray(variance, np.float64)
    v0, v1, level, lam = (np.asarray(a, np.float64) for a in (initial, target, threshold, mode_variance))
    sign, mask = np.asarray(direction), np.asarray(eligible, np.bool_)
    predicted = np.full(lam.shape, np.nan) if theory is None else np.asarray(theory, np.float64)
    each = (v0, v1, level, lam, sign, mask, predicted)
    if table.ndim != 2 or t.shape != table.shape[:1] or any(a.shape != table.shape[1:] for a in each):
        raise ValueError(
            "`variance` must have shape [T, K] for T `steps`, and all that is given by mode shape [K], "
            f"got {table.shape}, {t.shape} and {', '.join(str(a.shape) for a in each)}."
        )
    if not (np.isfinite(t).all() and (t >= 0).all() and (np.diff(t) > 0).all()):
        raise ValueError("`steps` must be finite, zero or more and strictly increasing.")
    if confidence not in QUANTILES:
        raise ValueError(f"`confidence` must be one of {', '.join(map(str, QUANTILES))}, got {confidence!r}.")
    last = math.nan if end is None else positive("end", end)
    mask = mask & np.isfinite(v0) & np.isfinite(v1) & np.isfinite(level) & (lam > 0)
    largest = float(v1[mask].max()) if mask.any() else math.nan
    matters = 0.01 * largest if least_variance is None else non_negative("least_variance", least_variance)
    found = np.where(mask, np.inf, np.nan) * np.ones((3, 1))
    learnt, courses = np.zeros(lam.shape, np.bool_), []
    for way, side in (("rising", 1), ("falling", -1)):
        modes = mask & (sign == side)
        if modes.any():
            curves = Curves.measured(t, table[:, modes], *(a[modes] for a in (v0, v1, level, sign, lam, predicted)))
            course, found[:, modes] = _course(way, curves, confidence)
            learnt[modes] = np.isfinite(curves.passage)
            courses.append(course)
    now = float(t[-1]) if len(t) else math.nan
    return Forecast(now, last, found[0], found[1], found[2], learnt, mask, v1, tuple(courses), confidence, matters)


def _course(way: str, curves: Curves, confidence: float) -> tuple[Course, Array]:
    """The forecast of one direction: how, and the steps with the ends of their intervals, ``[3, K]``."""
    crossed = np.isfinite(curves.passage)
    eligible, learnt = len(crossed), int(crossed.sum())
    if crossed.all() or not len(curves.log_step):
        found = np.where(crossed, np.exp(curves.passage), np.array([np.inf, 0.0, np.inf])[:, None])
        why = () if crossed.all() else ("nothing was measured after step 0.",)
        return Course(way, "", {}, 0, eligible, learnt, why), found
    tested = Tested(curves)
    now, center = tested.seen.now, tested.predicted
    low, high = (center + end * tested.unit for end in QUANTILES[confidence])
    lost = ~(center - now < FARTHEST)
    with np.errstate(over="ignore"):
        found = np.exp([np.where(lost, np.inf, center), np.fmax(low, now), high])
    found[1, np.isinf(center)] = np.exp(now)
    found[2, lost | (curves.pace[-1] < SLOWEST) | ~(high - now < FARTHEST)] = np.inf
    found[:, crossed] = np.exp(curves.passage[crossed])
    return Course(way, tested.method, tested.scores, len(tested.rows), eligible, learnt, _doubts(tested)), found


def _doubts(tested: Tested) -> tuple[str, ...]:
    """Reasons to distrust a forecast."""
    curves, crossed = tested.curves, tested.seen.crossed
    count, learnt = len(crossed), int(crossed.sum())
    highest = np.maximum.accumulate(curves.progress, axis=0)[-1]
    back = int((highest - curves.progress[-1] > _BACK)[~crossed].sum())
    found = []
    if learnt < _LEAST:
        found.append(f"only {learnt} of {count} have passed their threshold.")
    elif count >= _LEAST_RANKED and np.ptp(curves.passage[crossed]) > 0 and np.ptp(curves.x[crossed]) > 0:
        order = _rank_correlation(curves.passage[crossed], curves.x[crossed])
        if not order < _ORDERED:
            found.append(f"they do not emerge in the order of their variance (rank correlation {order:+.2f}).")
    if not len(tested.rows):
        found.append("no forecast of this run can be checked yet.")
    elif tested.scores[tested.method] >= tested.scores["now"]:
        off, floor = (math.exp(tested.scores[name]) for name in (tested.method, "now"))
        found.append(
            f"earlier forecasts were off by a factor of {off:.2f}, to expect every mode at once by {floor:.2f}."
        )
    if back > _GONE * (count - learnt):
        found.append(f"{back} of the {count - learnt} still to come have gone back.")
    return tuple(found)


def _rank_correlation(x: Array, y: Array) -> float:
    """Spearman's, without ``scipy.stats``, which takes a second to import."""
    ranks = []
    for values in (x, y):
        _, place, count = np.unique(values, return_inverse=True, return_counts=True)
        mean = np.asarray(np.cumsum(count) - (count - 1) / 2)  # of equal values
        ranks.append(mean[place])
    return float(np.asarray(np.corrcoef(ranks))[0, 1])
