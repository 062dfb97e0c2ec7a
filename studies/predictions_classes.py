"""The third prediction test: two classes, of which the one of higher variance becomes rare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from studies.definition import Row
from studies.estimate import Estimate
from studies.predictions_runs import CLASS_PRECONDITIONING, CLASS_SEEDS, NUM_SAMPLES, SAMPLER, SHARES
from studies.predictions_statistics import (
    ClassTimes,
    class_times,
    drawn,
    raised,
    ratio_table,
    response,
    reversal,
)
from studies.results import Results
from studies.tables import markdown

__all__ = ["Balance"]

_CLAIM = "Nicoletti et al. 2026"
_ODDS = [(1 - share) / share for share in SHARES]  # of the class of lower variance
_COLUMNS = ("share", "its samples", "its median", "the other's median", "its modes emerged", "ratio [95 %]", "theory")


@dataclass(frozen=True)
class Balance:
    """Times of both classes at every share of the one of higher variance, and what they say.

    Attributes:
        trainings: at every share, one per seed.
    """

    trainings: Sequence[Sequence[ClassTimes]]

    @classmethod
    def of(cls, results: Results) -> Self:
        """From the stored trainings."""
        runs = [[results[f"share{round(100 * share):02d}_seed{seed}"] for seed in CLASS_SEEDS] for share in SHARES]
        return cls([[class_times(one.history(), SAMPLER, CLASS_PRECONDITIONING) for one in seeds] for seeds in runs])

    @cached_property
    def ratios(self) -> dict[float, Estimate]:
        """Median time of the class of higher variance over the other's, by its share; infinite where not yet."""
        return {share: raised(drawn(column)) for share, column in zip(SHARES, self._table.T, strict=True)}

    @cached_property
    def bounds(self) -> dict[float, float]:
        """What the ratios that are infinite by the last measurement are above."""
        least = (min(one.at_least for one in seeds) for seeds in self.trainings)
        return {
            share: bound for share, bound in zip(SHARES, least, strict=True) if np.isposinf(self.ratios[share].value)
        }

    @cached_property
    def theory(self) -> dict[float, float]:
        """The ratio if each class is learnt by itself, at a rate in proportion to its share."""
        equal = float(np.mean([one.theory_ratio for one in self.trainings[0]]))
        return {share: equal * odds for share, odds in zip(SHARES, _ODDS, strict=True)}

    @cached_property
    def _table(self) -> NDArray[np.float64]:
        return ratio_table(self.trainings)

    def even_row(self) -> Row:
        """Which class is first where both are as frequent."""
        ratio, verdict = self.ratios[SHARES[0]], "not determinable"
        if ratio.determinable:
            verdict = "confirmed" if ratio.high < 1 else "not confirmed: reversed" if ratio.low > 1 else "not decided"
        return Row(
            f"balanced classes: the one of higher variance is learnt first ({_CLAIM})",
            "first",
            f"its median emergence is {ratio} times the other's",
            f"{self.theory[SHARES[0]]:.2f}",
            verdict,
            headline=True,
        )

    def reversal_row(self) -> Row:
        """From which share on the class of higher variance is second."""
        at = drawn(reversal(_ODDS, self._table))
        finite = [share for share, one in self.ratios.items() if one.determinable]
        last = f"; at {min(finite):g} it takes {self.ratios[min(finite)]} times as long" if finite else ""
        since = self._reversed_from()
        return Row(
            f"where it is rare it is learnt last ({_CLAIM})",
            "reversed",
            f"reversal at a share of {_share(at)}{last}",
            f"{_even(self.theory[SHARES[0]]):.2f} for classes learnt independently",
            "not confirmed down to the smallest share" if since is None else f"confirmed from a share of {since:g} on",
            headline=True,
        )

    def _reversed_from(self) -> float | None:
        """Largest share from which on every ratio is above 1, with its interval or by its bound."""
        found = None
        for share in reversed(SHARES):
            if not (self.bounds[share] if share in self.bounds else self.ratios[share].low) > 1:
                break
            found = share
        return found

    def text(self) -> list[str]:
        """All shares, and what the theory assumes."""
        even = self.ratios[SHARES[0]]
        slope, shares = drawn(response(_ODDS, self._table)), len(SHARES) - len(self.bounds)
        own = f"{_even(even.value):.2f}" if even.determinable else "not determinable"
        return [
            "### Classes out of balance",
            "Two Gaussian classes of mean zero with 16 directions of their own each, of variances 4/sqrt(k) and 1/sqrt(k). "
            "Along the other's directions a class has about the variance that the network starts with, so that nothing "
            "learnt of one class can pass for the other. The MLP is told the class, and each is sampled under its label. "
            "The claim is of random features on Gaussian mixtures (Nicoletti, Ma, Ventura, Saglietti and Sarao Mannelli, "
            "arXiv 2605.06367); whether it carries over is what is tested here. The class of higher variance "
            f"has the share in the first column of {NUM_SAMPLES:,} training samples. Medians are in updates, over the modes "
            "of a class; the interval of their ratio is from a bootstrap over ranks.",
            markdown(_COLUMNS, [self._line(share, seeds) for share, seeds in zip(SHARES, self.trainings, strict=True)]),
            "The theory takes each class as learnt by itself, by a linear denoiser under gradient flow, at a rate in "
            "proportion to its share: its ratio at balance is that of the times it has for the same variances, "
            "preconditioning, sampler and initial gains, and grows as the odds of the other class. The MLP shares its "
            f"weights between classes and Adam rescales its gradients; over {shares} shares its ratio grows as the odds to "
            f"the power {slope}. The order reverses at a share of {_even(self.theory[SHARES[0]]):.2f} by the theory; if the "
            f"ratio measured at balance grew as the odds, at {own}.",
        ]

    def _line(self, share: float, seeds: Sequence[ClassTimes]) -> list[str]:
        high = " / ".join(_updates(np.median(one.high)) for one in seeds)
        low = " / ".join(_updates(np.median(one.low)) for one in seeds)
        emerged = sum(int(np.isfinite(one.high).sum()) for one in seeds)
        ratio = f"above {self.bounds[share]:.1f}" if share in self.bounds else str(self.ratios[share])
        told = [f"{emerged} of {sum(len(one.high) for one in seeds)}", ratio, f"{self.theory[share]:.2f}"]
        return [f"{share:g}", f"{round(share * NUM_SAMPLES):,}", high, low, *told]


def _even(ratio: float) -> float:
    """Share at which a ratio that grows as the odds, and is this at balance, is 1."""
    return ratio / (1 + ratio)


def _share(odds: Estimate) -> str:
    if not odds.determinable:
        return "not determinable"
    value, high, low = (1 / (1 + v) for v in (odds.value, odds.low, odds.high))
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def _updates(value: float) -> str:
    return f"{value:.1f}" if np.isfinite(value) else "not yet"
