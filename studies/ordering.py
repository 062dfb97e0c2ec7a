"""In which order modes emerged: by variance, together, or neither, decided by a rule on numbers with intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from spectral_lightning.emergence import STATUS, ModeEmergence, PowerLaw, emergence, first_passage
from spectral_lightning.spectra import SpectralHistory
from studies.estimate import Estimate
from studies.results import Results, Stored
from studies.tables import alpha, exponent

__all__ = [
    "RULE",
    "WAYS",
    "Ordering",
    "Orders",
    "correlation_interval",
    "distance",
    "for_good",
    "judged",
    "rank_correlation",
    "rate_ratio",
    "returned",
    "spread",
    "unfinished",
    "until_end",
]

Array = NDArray[np.float64]

WAYS = ("rising", "falling")
_ORDERED, _FLAT, _TOGETHER, _LEAST, _LEAST_RANKED = 0.2, 0.1, 2.0, 10, 5
_SPREAD = "flat, yet spread"
_RESAMPLES = 500
_NORMAL = 1.959964  # the 97.5 % point

RULE = (
    f"The rule. *By variance*: the interval of alpha lies above {_ORDERED} and that of the rank correlation below 0; "
    f"*against variance*: below -{_ORDERED} and above 0. Else *together*: the interval of the spread lies below "
    f"{_TOGETHER:.0f}. Else *flat, yet spread*: the interval of alpha lies within +-{_FLAT}, and at least nine in "
    f"ten of the modes crossed. Else *between*. Not determinable with fewer than {_LEAST} crossed modes or less than one "
    "decade of variance."
)


@dataclass(frozen=True)
class Ordering:
    """The order in which the modes of one direction emerged.

    Attributes:
        found: emergence of all modes.
        way: ``"rising"`` or ``"falling"``.
        last_step: of the measurement, by when the others have not crossed.
    """

    found: ModeEmergence
    way: str
    last_step: int

    @cached_property
    def law(self) -> PowerLaw:
        """Exponent over the modes that crossed."""
        return self.found.law(self.way)

    @cached_property
    def rank(self) -> Estimate:
        """Spearman's correlation of step and variance; -1 is the order of variance. Modes that wait are tied last."""
        chosen = self.found.eligible(self.way)
        time = np.where(np.isfinite(self.found.time), self.found.time, np.inf)[chosen]
        return rank_correlation(time, self.found.variance[chosen])

    @cached_property
    def spread(self) -> Estimate:
        """Ratio of the 90th to the 10th percentile of the step; at least this where too many modes wait."""
        return spread(self.found.time[self.found.eligible(self.way)], self.last_step)

    @property
    def crossed(self) -> str:
        """How many of how many."""
        return f"{self.law.count} of {self.law.total}"

    @cached_property
    def verdict(self) -> str:
        """By :data:`RULE`."""
        law = self.law
        if not law.determinable:
            return "not determinable"
        if law.low > _ORDERED and self.rank.high < 0:
            return "by variance"
        if law.high < -_ORDERED and self.rank.low > 0:
            return "against variance"
        if self.spread.high < _TOGETHER and not self.spread.bound:
            return "together"
        flat = max(abs(law.low), abs(law.high)) < _FLAT and law.count >= 0.9 * law.total
        return _SPREAD if flat else "between"

    @property
    def cells(self) -> list[str]:
        """For a table: crossed, alpha, rank correlation, spread, order."""
        return [self.crossed, alpha(self.law), self.rank.cell, self.spread.cell, self.verdict]

    @property
    def summary(self) -> str:
        """One clause for the table of results."""
        if not self.law.total:
            return f"{self.way}: no mode"
        apart = f", spread {self.spread}" if math.isfinite(self.spread.value) else ""
        return f"{self.way}: {exponent(self.law, counted=False)} ({self.crossed}){apart}"


def rank_correlation(time: Array, variance: Array) -> Estimate:
    """Spearman's rank correlation with the interval of Bonett & Wright 2000, ``tanh(atanh r +- z sqrt((1 + r^2/2)/(n-3)))``.

    Args:
        time: infinite where a mode waits, ``[K]``.
        variance: ``[K]``.
    """
    if len(time) < _LEAST_RANKED or np.ptp(np.nan_to_num(time, posinf=1e300)) == 0:
        return Estimate(math.nan, math.nan, math.nan)
    r = float(np.corrcoef(rankdata(time), rankdata(variance))[0, 1])
    return correlation_interval(r, len(time))


def correlation_interval(r: float, count: int, given: int = 0) -> Estimate:
    """Interval of a rank correlation over ``count`` modes, a partial one ``given`` so many other quantities.

    A perfect order is counted as one that two neighbours could have exchanged: its interval is no point.
    """
    most = 1 - 12 / (count * (count**2 - 1))
    inside = min(max(r, -most), most)
    half = _NORMAL * math.sqrt((1 + inside**2 / 2) / (count - 3 - given))
    low, high = math.tanh(math.atanh(inside) - half), math.tanh(math.atanh(inside) + half)
    return Estimate(r, min(r, low), max(r, high))


def spread(time: Array, last_step: int) -> Estimate:
    """Ratio of the 90th to the 10th percentile of emergence, with a bootstrap interval over modes.

    Args:
        time: NaN where a mode waits; it then counts as ``last_step``, and the ratio may be a lower bound.
        last_step: of the measurement.
    """
    if int(np.isfinite(time).sum()) < _LEAST:
        return Estimate(math.nan, math.nan, math.nan)
    known = np.log(np.where(np.isfinite(time), time, last_step))
    rows = np.random.default_rng(0).integers(0, len(known), (_RESAMPLES, len(known)))
    resampled = np.diff(np.percentile(known[rows], [10, 90], axis=1), axis=0)[0]
    value = float(np.diff(np.percentile(known, [10, 90]))[0])
    low, high = np.exp(np.percentile(resampled, [2.5, 97.5]))
    return Estimate(math.exp(value), float(low), float(high), bool(np.mean(~np.isfinite(time)) > 0.1))


@dataclass(frozen=True)
class Orders:
    """The orders of emergence in all trainings, each computed once.

    Attributes:
        results: of the trainings.
    """

    results: Results
    _known: dict[tuple[str, str, str], list[Ordering]] = field(default_factory=dict, repr=False)

    def __call__(self, run: str, tracker: str = "spectral", criterion: str = "geometric") -> list[Ordering]:
        """Rising and falling modes of a training in one basis."""
        key = (run, tracker, criterion)
        if key not in self._known:
            stored = self.results[run]
            found, last = stored.compared(criterion, tracker).measured, stored.history(tracker).last_step or 0
            self._known[key] = [Ordering(found, way, last) for way in WAYS]
        return self._known[key]


def judged(expected: str, found: list[Ordering]) -> str:
    """What the verdicts say of a claimed order: every direction with an exponent has to agree.

    Modes of one exponent about 0 that are nevertheless apart confirm in part that they come together.
    """
    said = {one.way: one.verdict for one in found if one.law.determinable}
    if not said:
        return "not determinable"
    text = ", ".join(f"{way} {verdict}" for way, verdict in said.items())
    if all(verdict == expected for verdict in said.values()):
        return f"confirmed: {text}"
    partly = {expected, _SPREAD} if expected == "together" else {expected}
    return f"{'partly' if partly & set(said.values()) else 'not confirmed'}: {text}"


def rate_ratio(slow: Stored, fast: Stored, tracker: str, predicted: bool = False) -> Estimate:
    """By how much faster one training learns: median over modes of learning rate times emergence, slow over fast.

    Args:
        slow: trained at a constant learning rate.
        fast: the same.
        tracker: the basis.
        predicted: whether of the theory's tables.
    """
    times = []
    for one in (slow, fast):
        compared, history = one.compared("geometric", tracker), one.history(tracker)
        found = compared.predicted if predicted else compared.measured
        rate = history["cumulative_learning_rate"][-1] / history.steps[-1]
        times.append(rate * found.time if found is not None else np.full(len(history.target), np.nan))
    log = np.log(times[0] / times[1])
    log = log[np.isfinite(log)]
    if len(log) < _LEAST:
        return Estimate(math.nan, math.nan, math.nan)
    rows = np.random.default_rng(0).integers(0, len(log), (_RESAMPLES, len(log)))
    low, high = np.exp(np.percentile(np.median(log[rows], axis=1), [2.5, 97.5]))
    return Estimate(math.exp(float(np.median(log))), float(low), float(high))


def until_end(history: SpectralHistory, end: Array | None = None, criterion: str = "geometric") -> ModeEmergence:
    """Emergence with the threshold between the first variance and where the network itself ends.

    For a network that cannot hold the data's spectrum: its modes may never reach a threshold that refers to the data.

    Args:
        history: the measurement.
        end: where the network would end if it were trained for ever, ``[K]``; the last measurement if not given.
        criterion: of the threshold.
    """
    last = history.variance[-1] if end is None else end
    known = history.steps, history.variance, history.target
    return emergence(*known, last, criterion=criterion, null_variance=history.null_variance)


def distance(history: SpectralHistory, row: int) -> float:
    """Rms of log variance over the sampler's fixed point at one measurement, over modes that began outside the gray zone."""
    found = until_end(history, history.fixed_point)
    chosen = found.eligible("rising") | found.eligible("falling")
    with np.errstate(divide="ignore"):
        off = np.log(history.variance[row, chosen] / history.fixed_point[chosen])
    return float(np.sqrt(np.mean(off**2))) if chosen.any() else math.nan


def for_good(history: SpectralHistory, found: ModeEmergence) -> ModeEmergence:
    """Emergence by the last passage: since when a mode is past its threshold at every measurement.

    Args:
        history: the measurement.
        found: emergence by the first passage; a mode that the last measurement finds back waits.
    """
    past = found.direction * (history.variance - found.threshold) >= 0
    entry = len(past) - np.argmin(past[::-1], axis=0)  # the first measurement after the last one that is not past
    rows = np.arange(len(past))[:, None]
    kept = np.where((rows > 0) & (rows < entry - 1), np.nan, history.variance)
    time = first_passage(history.steps, kept, found.threshold, found.direction)
    crossed = found.status == STATUS.index("crossed")
    status = np.where(crossed & ~np.isfinite(time), STATUS.index("not yet"), found.status)
    return replace(found, status=status, time=np.where(crossed, time, np.nan))


def returned(history: SpectralHistory, found: ModeEmergence) -> float:
    """Share of the crossed modes that a later measurement finds back over the threshold."""
    crossed = found.crossed("rising") | found.crossed("falling")
    past = (found.direction * (history.variance - found.threshold) >= 0)[:, crossed]
    return float(np.mean((np.diff(past.astype(np.int64), axis=0) < 0).any(axis=0))) if crossed.any() else math.nan


def unfinished(history: SpectralHistory, found: ModeEmergence) -> float:
    """Share of the modes outside the gray zone whose log variance did a tenth of its way after half of the steps."""
    chosen = found.eligible("rising") | found.eligible("falling")
    if not chosen.any():
        return math.nan
    with np.errstate(divide="ignore"):
        log = np.log(history.variance[:, chosen])
    half = int(np.argmin(np.abs(history.steps - history.steps[-1] / 2)))
    return float(np.mean(np.abs(log[-1] - log[half]) > 0.1 * np.abs(log[-1] - log[0])))
