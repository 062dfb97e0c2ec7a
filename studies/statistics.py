"""Numbers with intervals, and the rule for the order in which modes emerged."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from spectral_lightning.emergence import RULES, EmergenceLaw, ModeEmergence
from studies.laws import law

__all__ = [
    "WAYS",
    "Array",
    "Estimate",
    "Mask",
    "Ordering",
    "judged",
    "mean_ratio",
    "placed",
    "rank_correlation",
    "resampled",
]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

WAYS = ("rising", "falling")
_ORDERED, _FLAT, _TOGETHER, _LEAST_RANKED = 0.2, 0.1, 2.0, 5
_SPREAD = "flat, yet spread"


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval."""

    value: float = math.nan  # if not determinable
    low: float = math.nan  # infinite if the interval is open there, as is the other end
    high: float = math.nan
    bound: bool = False  # whether the value is only a lower bound
    count: int = 0  # modes it rests on, if stated

    @classmethod
    def of(cls, drawn: Array) -> Self:
        """The first number, with the 2.5 and 97.5 % quantiles of the others; not determinable if one of them is NaN."""
        if np.isnan(drawn).any():
            return cls()
        # No interpolation next to infinite draws, which would give NaN.
        method: Literal["linear", "inverted_cdf"] = "linear" if np.isfinite(drawn).all() else "inverted_cdf"
        low, high = np.quantile(drawn[1:], [0.025, 0.975], method=method).tolist()
        return cls(float(drawn[0]), low, high)

    @property
    def determinable(self) -> bool:
        """Whether there is a number."""
        return math.isfinite(self.value)

    @property
    def shown(self) -> bool:
        """Whether the interval excludes zero."""
        return self.determinable and (self.low > 0 or self.high < 0)

    @property
    def signed(self) -> str:
        """As in ``+0.30 [+0.25, +0.36]``, for a difference."""
        return f"{self.value:+.2f} [{self.low:+.2f}, {self.high:+.2f}]" if self.determinable else "not determinable"

    def __str__(self) -> str:
        """As in ``0.50 [0.40, 0.60]``.

        Example:
            >>> print(Estimate(0.5, 0.4, 0.6), Estimate(), sep="; ")
            0.50 [0.40, 0.60]; not determinable
        """
        if not self.determinable:
            return "not determinable"
        return f"{'at least ' if self.bound else ''}{self.value:z.2f} [{self.low:z.2f}, {self.high:z.2f}]"


def resampled(
    statistic: Callable[..., ArrayLike], *samples: Array, draws: int = 2000, rng: int | np.random.Generator = 0
) -> Array:
    """A statistic of quantities of ``[K]`` modes, then of ``draws`` samples of modes with replacement, ``[1 + draws]``.

    It is called with the quantities, modes along the last axis; all of them are of the same modes.
    """
    options = {"n_resamples": draws, "paired": True, "vectorized": True, "method": "percentile", "rng": rng}
    with np.errstate(invalid="ignore"):
        drawn = stats.bootstrap(samples, lambda *quantities, axis: np.asarray(statistic(*quantities)), **options)
    return np.append(statistic(*samples), drawn.bootstrap_distribution)


def mean_ratio(ratios: Sequence[float] | Array) -> Estimate:
    """Geometric mean, with Student's interval of the mean of the logarithms; not determinable if one ratio is NaN."""
    logs = np.log(np.asarray(ratios, np.float64))
    if len(logs) < 2 or not np.isfinite(logs).all():
        return Estimate()
    interval = stats.ttest_1samp(logs, 0).confidence_interval(0.95)
    return Estimate(*np.exp([logs.mean(), interval.low, interval.high]).tolist())


def rank_correlation(time: Array, variance: Array, given: Array | None = None) -> Estimate:
    """Spearman's correlation of two quantities of ``[K]`` modes, or the partial correlation given a third quantity.

    The interval is that of Bonett & Wright, ``tanh(atanh r +- z sqrt((1 + r^2 / 2) / (K - 3)))``, with one mode less if
    partial. A perfect order counts as one in which two neighbours were exchanged, so that its interval is not a point. Not
    determinable for fewer than 5 modes or equal times; the time of a mode that has not crossed is infinite.
    """
    count = len(time)
    if count < _LEAST_RANKED or (time == time[0]).all():
        return Estimate()
    r = float(stats.spearmanr(time, variance).statistic)
    if given is not None:
        inverse = np.linalg.inv(stats.spearmanr(np.stack([time, variance, given], axis=1)).statistic)
        r = float(-inverse[0, 1] / math.sqrt(inverse[0, 0] * inverse[1, 1]))
    most = 1 - 12 / (count * (count**2 - 1))
    inside = min(max(r, -most), most)
    half = stats.norm.ppf(0.975) * math.sqrt((1 + inside**2 / 2) / (count - 3 - (given is not None)))
    low, high = np.tanh(np.arctanh(inside) + half * np.array([-1, 1])).tolist()
    return Estimate(r, min(r, low), max(r, high))


def placed(laws: Sequence[EmergenceLaw], value: float) -> str:
    """How intervals lie relative to a value."""
    sides = {"below" if law.high < value else "above" if law.low > value else "agrees with" for law in laws}
    if len(sides) == 1:
        return sides.pop()
    return "scatters about" if "agrees with" in sides else "about"


@dataclass(frozen=True)
class Ordering:
    """The order in which the modes of one direction emerged."""

    found: ModeEmergence  # of all modes
    way: str  # "rising" or "falling"
    last_step: int  # of the measurement

    @cached_property
    def law(self) -> EmergenceLaw:
        """The law, or the local exponents of a curved one."""
        return law(self.found, self.way)

    @property
    def known(self) -> bool:
        """Whether there are exponents: one, or those at two variances."""
        return self.law.determinable or bool(self.law.local)

    @property
    def interval(self) -> tuple[float, float]:
        """From the lowest end of the intervals of the exponents to the highest."""
        exponents = self.law.local or (self.law,)
        return min(one.low for one in exponents), max(one.high for one in exponents)

    @cached_property
    def rank(self) -> Estimate:
        """Spearman's correlation of step and variance; -1 is the order of variance. Modes that may yet cross tie last."""
        chosen = self.found.able(self.way)
        return rank_correlation(np.nan_to_num(self.found.time[chosen], nan=np.inf), self.found.variance[chosen])

    @cached_property
    def spread(self) -> Estimate:
        """Ratio of the 90th to the 10th percentile of the step, with a bootstrap interval over modes.

        A mode that may yet cross counts as the last step, and the ratio may be a lower bound.
        """
        time = self.found.time[self.found.able(self.way)]
        crossed = np.isfinite(time)
        if crossed.sum() < RULES.min_modes:
            return Estimate()
        log = np.log(np.where(crossed, time, self.last_step))
        drawn = resampled(lambda log: stats.iqr(log, axis=-1, rng=(10, 90)), log, draws=500)
        return replace(Estimate.of(np.exp(drawn)), bound=bool(np.mean(~crossed) > 0.1))

    @cached_property
    def verdict(self) -> str:
        """By the rule that the page states."""
        if not self.known:
            return "not determinable"
        low, high = self.interval
        if low > _ORDERED and self.rank.high < 0:
            return "by variance"
        if high < -_ORDERED and self.rank.low > 0:
            return "against variance"
        if self.spread.high < _TOGETHER and not self.spread.bound:
            return "together"
        flat = max(abs(low), abs(high)) < _FLAT and self.law.count >= 0.9 * (self.law.total - self.law.never)
        return _SPREAD if flat else "between"


def judged(expected: str, found: Sequence[Ordering]) -> str:
    """Whether a claimed order is confirmed: every direction with an exponent has to agree.

    Modes that are *flat, yet spread* partly confirm that they emerge together.
    """
    said = {one.verdict for one in found if one.known}
    if not said:
        return "not determinable"
    if said == {expected}:
        return "confirmed"
    partly = {expected, _SPREAD} if expected == "together" else {expected}
    return "partly" if partly & said else "not confirmed"
