"""What decides the prediction tests: times exchanged, spread of times, ratio of two classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from spectral_lightning.emergence import STATUS, ModeEmergence
from spectral_lightning.prediction import compare
from spectral_lightning.sampling import Sampler
from spectral_lightning.spectra import SpectralHistory
from spectral_lightning.theory import OneLayer, Preconditioning
from studies.estimate import Estimate

__all__ = [
    "ClassTimes",
    "Exchange",
    "class_times",
    "drawn",
    "exchanges",
    "mean_ratio",
    "raised",
    "ratio_table",
    "response",
    "reversal",
    "spread",
    "timing_error",
    "undisturbed",
]

Array = NDArray[np.float64]
Pairs = Sequence[tuple[int, int]]


def mean_ratio(ratios: Sequence[float] | Array) -> Estimate:
    """Geometric mean of ratios, with Student's interval of the mean of their logarithms; one that is NaN makes all NaN."""
    logs = np.log(np.asarray(ratios, np.float64))
    if len(logs) < 2 or not np.isfinite(logs).all():
        return Estimate(np.nan, np.nan, np.nan)
    half = float(stdtrit(len(logs) - 1, 0.975)) * logs.std(ddof=1) / np.sqrt(len(logs))
    low, value, high = np.exp(logs.mean() + half * np.array([-1, 0, 1]))
    return Estimate(float(value), float(low), float(high))


@dataclass(frozen=True)
class Exchange:
    """Two directions whose variances are exchanged, and when each emerged.

    Modes are in descending order of variance. Exchanged, the first direction has the variance and with it the rank of
    the second: its time is found at the other's place.

    Attributes:
        modes: ranks of the two directions before.
        before: emergence of the first and the second direction in the data as they are.
        after: the same two directions in the edited data.
    """

    modes: tuple[int, int]
    before: tuple[float, float]
    after: tuple[float, float]

    @property
    def reversed(self) -> bool:
        """Whether the direction that came first comes second."""
        (first, second), (first_after, second_after) = self.before, self.after
        return (first < second and second_after < first_after) or (first > second and second_after > first_after)

    @property
    def ratios(self) -> tuple[float, float]:
        """Time with a variance over the time that the other direction took with it; 1 if variance decides."""
        return self.after[1] / self.before[0], self.after[0] / self.before[1]


def exchanges(plain: ModeEmergence, swapped: ModeEmergence, pairs: Pairs) -> list[Exchange]:
    """Times of the directions of every pair; NaN where one did not emerge."""
    t, u = plain.time, swapped.time
    return [Exchange((i, j), (float(t[i]), float(t[j])), (float(u[j]), float(u[i]))) for i, j in pairs]


def undisturbed(plain: ModeEmergence, swapped: ModeEmergence, pairs: Pairs) -> Array:
    """Time after over time before of all other directions that emerged in both."""
    others = np.setdiff1d(np.arange(len(plain.time)), np.ravel(pairs))
    ratios = swapped.time[others] / plain.time[others]
    return np.asarray(ratios[np.isfinite(ratios)])


def spread(times: Sequence[Array], draws: int = 2000) -> Estimate:
    """Ninth decile of the emergence times over the first, the geometric mean over several trainings.

    The interval is a bootstrap over modes; no number where a mode did not emerge.

    Args:
        times: of the modes of every training.
        draws: of the bootstrap.
    """
    if not all(len(time) for time in times):
        return Estimate(np.nan, np.nan, np.nan)
    generator = np.random.default_rng(0)
    logs = []
    for time in times:
        modes = np.vstack([np.arange(len(time)), generator.integers(len(time), size=(draws, len(time)))])
        low, high = np.quantile(time[modes], [0.1, 0.9], axis=1)
        logs.append(np.log(high / low))
    return raised(drawn(np.mean(logs, axis=0)))


def timing_error(history: SpectralHistory, found: ModeEmergence) -> Array:
    """Standard error of log time, ``[K]``: that of the sampled variance over the slope of its curve at the passage.

    What other latents would have given; NaN where there was no passage or the curve is flat.
    """
    steps, variance = history.steps.astype(np.float64), history.variance
    errors = np.full(len(found.time), np.nan)
    for k in np.flatnonzero(np.isfinite(found.time)):
        after = int(np.searchsorted(steps, found.time[k]))
        if after and steps[after - 1] > 0:
            rise = np.log(variance[after, k] / variance[after - 1, k]) / np.log(steps[after] / steps[after - 1])
            if rise:
                errors[k] = abs(history["standard_error"][after, k] / variance[after, k] / rise)
    return errors


@dataclass(frozen=True)
class ClassTimes:
    """When the modes of two classes emerged, matched by rank; infinite where not yet.

    Attributes:
        high: of the class of higher variance, ``[K]``.
        low: of the other, ``[K]``.
        high_theory: of independent linear denoisers of one and the same rate, ``[K]``, in a unit of their own.
        low_theory: of the other class, ``[K]``.
        last: step of the last measurement.
    """

    high: Array
    low: Array
    high_theory: Array
    low_theory: Array
    last: int

    @property
    def at_least(self) -> float:
        """What the ratio of the medians is above, where the first class has not got to its median."""
        return float(self.last / np.median(self.low))

    @property
    def theory_ratio(self) -> float:
        """Ratio of the medians at equal rates; with rates as the shares it is this times the other share over one's own."""
        return float(np.median(self.high_theory) / np.median(self.low_theory))


def class_times(history: SpectralHistory, sampler: Sampler, preconditioning: Preconditioning) -> ClassTimes:
    """Times of each class along its own modes, those along which its variance is the larger one."""
    target = history["group_target"]
    found = []
    for g, name in enumerate(history.groups):
        own = np.flatnonzero(target[g] > target[1 - g])
        ranked = own[np.argsort(-target[g][own])]
        measured = compare(history.group(name)).measured
        waiting = measured.status[ranked] == STATUS.index("not yet")
        time = np.where(waiting, np.inf, measured.time[ranked])
        theory = OneLayer(1.0, 0.0, preconditioning).emergence_time(
            target[g][ranked], sampler=sampler, initial_gain=history["initial_gain"][:, ranked]
        )
        found.append((time, theory))
    (high, high_theory), (low, low_theory) = found
    return ClassTimes(high, low, high_theory, low_theory, int(history.steps[-1]))


def ratio_table(cases: Sequence[Sequence[ClassTimes]], draws: int = 2000) -> Array:
    """Log of the ratio of the two classes' median times, as measured and as bootstrapped, ``[1 + draws, cases]``.

    The mean over the trainings of a case. Ranks are drawn anew, the same for both classes, apart in every training.

    Args:
        cases: the trainings of every case.
        draws: of the bootstrap.
    """
    generator = np.random.default_rng(0)
    columns = []
    for trainings in cases:
        logs = []
        for one in trainings:
            count = len(one.high)
            ranks = np.vstack([np.arange(count), generator.integers(count, size=(draws, count))])
            with np.errstate(invalid="ignore"):
                logs.append(np.log(np.median(one.high[ranks], 1)) - np.log(np.median(one.low[ranks], 1)))
        columns.append(np.mean(logs, axis=0))
    return np.stack(columns, axis=1)


def drawn(column: Array) -> Estimate:
    """The first number, with the interval of the rest; no number where one of them is NaN."""
    if np.isnan(column).any():
        return Estimate(np.nan, np.nan, np.nan)
    low, high = np.quantile(column[1:], [0.025, 0.975], method="nearest")
    return Estimate(float(column[0]), float(low), float(high))


def raised(logs: Estimate) -> Estimate:
    """The exponential of a number and its interval."""
    value, low, high = (float(np.exp(v)) for v in (logs.value, logs.low, logs.high))
    return Estimate(value, low, high)


def reversal(odds: Sequence[float], table: Array) -> Array:
    """Odds at which the log ratio first passes 0 upwards, ``[rows]``; NaN where it does not between finite ratios.

    Args:
        odds: of the class of lower variance, in ascending order, one per column.
        table: log ratios, ``[rows, columns]``; linear in the logarithm of the odds in between.
    """
    logs, found = np.log(np.asarray(odds, np.float64)), np.full(len(table), np.nan)
    for row, ratio in enumerate(table):
        after = int(np.argmax(ratio > 0))
        if after and np.isfinite(ratio[after]):
            part = -ratio[after - 1] / (ratio[after] - ratio[after - 1])
            found[row] = np.exp(logs[after - 1] + part * (logs[after] - logs[after - 1]))
    return found


def response(odds: Sequence[float], table: Array) -> Array:
    """Slope of the log ratio on the log of the odds, over the columns without infinite ratios, ``[rows]``."""
    finite = np.isfinite(table).all(0)
    if finite.sum() < 2:
        return np.full(len(table), np.nan)
    x = np.log(np.asarray(odds, np.float64))[finite]
    x = x - x.mean()
    return np.asarray(table[:, finite] @ x / (x @ x))
