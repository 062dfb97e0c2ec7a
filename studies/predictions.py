"""Predictions put to the test: variances exchanged, data whitened, classes out of balance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from spectral_lightning.emergence import STATUS, ModeEmergence
from spectral_lightning.prediction import Comparison, compare
from spectral_lightning.sampling import Sampler
from spectral_lightning.spectra import SpectralHistory
from spectral_lightning.theory import Objective, OneLayer, Preconditioning
from studies.statistics import Estimate, mean_ratio, resampled
from studies.store import Results

__all__ = [
    "GAUSSIAN_PAIRS",
    "PHOTOGRAPH_PAIRS",
    "SHARES",
    "ClassTimes",
    "Exchange",
    "class_times",
    "decile_ratio",
    "predictions",
    "ratio_table",
    "response",
    "reversal",
    "timing_error",
    "undisturbed",
]

Array = NDArray[np.float64]
Pairs = Sequence[tuple[int, int]]

SEEDS = (0, 1)
GAUSSIAN_PAIRS = ((0, 7), (1, 15), (3, 31))
PHOTOGRAPH_PAIRS = ((6, 30), (8, 40), (12, 55))
SHARES = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01)  # of the class of higher variance
CLASS_PRECONDITIONING, SAMPLER = Preconditioning("edm", sigma_data=0.2), Sampler(num_steps=12)

_DECILES = float(stats.norm.ppf(0.9) - stats.norm.ppf(0.1))
_ODDS = np.array([(1 - share) / share for share in SHARES])  # of the class of lower variance


def predictions(results: Results) -> dict[str, Any]:
    """What the page says of the three tests."""
    swaps = {
        "Gaussian": _swaps(results, "", SEEDS, GAUSSIAN_PAIRS),
        "photographs": _swaps(results, "photographs_", (0,), PHOTOGRAPH_PAIRS),
    }
    return {"swaps": swaps, "white": _white(results), "classes": _classes(results)}


def _times(found: Comparison, predicted: bool = False) -> Array:
    """Measured or predicted; NaN if the prediction has no clock, as too few modes emerged."""
    if not predicted:
        return found.measured.time
    return found.predicted.time if found.predicted else np.full_like(found.measured.time, np.nan)


# Variances exchanged.


@dataclass(frozen=True)
class Exchange:
    """Pairs of directions whose variances are exchanged, and when each direction emerged.

    Modes are in descending order of variance. Exchanged, the first direction has the variance and rank of the second: its
    time is found at the other's place.

    Attributes:
        before: emergence of the first and second direction in the data as they are, ``[P, 2]``; NaN if it did not emerge.
        after: the same two directions in the edited data, ``[P, 2]``.
    """

    before: Array
    after: Array

    @classmethod
    def of(cls, plain: Sequence[Array], swapped: Sequence[Array], pairs: Pairs) -> Self:
        """The pairs of every training, from the times of all modes, ``[K]`` each."""
        ranks = np.asarray(pairs)
        before, after = [one[ranks] for one in plain], [one[ranks[:, ::-1]] for one in swapped]
        return cls(np.concatenate(before), np.concatenate(after))

    @property
    def reversed(self) -> NDArray[np.bool_]:
        """Whether the direction that came first comes second, ``[P]``."""
        return np.asarray(np.diff(self.before)[:, 0] * np.diff(self.after)[:, 0] < 0)

    @property
    def ratio(self) -> Estimate:
        """Time with a variance over the time that the other direction took with it; 1 if variance decides."""
        return mean_ratio(np.ravel(self.after[:, ::-1] / self.before))

    @property
    def apart(self) -> Estimate:
        """Time of the second direction over that of the first."""
        return mean_ratio(self.before[:, 1] / self.before[:, 0])

    @property
    def verdict(self) -> str:
        """Whether the order is exchanged."""
        if not self.ratio.determinable:
            return "not determinable"
        return "confirmed" if self.reversed.all() else "partly" if self.reversed.any() else "not confirmed"


def undisturbed(plain: Array, swapped: Array, pairs: Pairs) -> Array:
    """Time after over time before of all other directions that emerged in both."""
    others = np.setdiff1d(np.arange(len(plain)), np.ravel(pairs))
    ratios = swapped[others] / plain[others]
    return np.asarray(ratios[np.isfinite(ratios)])


def _swaps(results: Results, prefix: str, seeds: Sequence[int], pairs: Pairs) -> dict[str, Any]:
    """All pairs measured and predicted, and for each seed the directions left alone."""
    plain, swapped = ([results[f"{prefix}{edit}_seed{s}"].compared() for s in seeds] for edit in ("plain", "swapped"))
    before, after = [_times(one) for one in plain], [_times(one) for one in swapped]
    expected = [_times(one, True) for one in plain], [_times(one, True) for one in swapped]
    return {
        "measured": Exchange.of(before, after, pairs),
        "predicted": Exchange.of(expected[0], expected[1], pairs),
        "seeds": np.repeat(seeds, len(pairs)),
        "variances": np.concatenate([one.measured.variance[np.asarray(pairs)] for one in plain]),
        "others": [undisturbed(first, second, pairs) for first, second in zip(before, after, strict=True)],
    }


# White data.


def decile_ratio(times: Sequence[Array], draws: int = 2000) -> Estimate:
    """Ninth decile of the emergence times over the first, the geometric mean over several trainings.

    The interval is from a bootstrap over modes; not determinable if a mode did not emerge.
    """
    generator = np.random.default_rng(0)

    def logs(time: Array) -> Array:
        def statistic(rows: NDArray[np.int64]) -> Array:
            low, high = np.quantile(time[rows], [0.1, 0.9], axis=-1)
            return np.asarray(np.log(high / low))

        return resampled(statistic, len(time), draws, generator)

    if not all(len(time) and np.isfinite(time).all() for time in times):
        return Estimate()
    return Estimate.of(np.mean([logs(time) for time in times], axis=0), "nearest").exp()


def timing_error(history: SpectralHistory, found: ModeEmergence) -> Array:
    """Standard error of log time, ``[K]``: that of the sampled variance over the slope of its curve at the passage.

    What other latents would have given; NaN if there was no passage or the curve is flat.
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


def _white(results: Results) -> dict[str, Any]:
    """Spread of the emergence times of the Gaussian as it is and whitened: measured, predicted, by noise alone."""
    found: dict[str, Any] = {"measured": {}, "predicted": {}, "modes": {}, "seeds": []}
    for edit in ("plain", "white"):
        trainings = [results[f"{edit}_seed{seed}"] for seed in SEEDS]
        compared = [one.compared() for one in trainings]
        rising = [one.measured.eligible("rising") for one in compared]
        times, predicted = (
            [_times(one, p)[modes] for one, modes in zip(compared, rising, strict=True)] for p in (False, True)
        )
        found["modes"][edit] = [one.measured for one in compared]
        found["measured"][edit], found["predicted"][edit] = decile_ratio(times), decile_ratio(predicted)
        noise = [_noise(stored.history(), one.measured) for stored, one in zip(trainings, compared, strict=True)]
        found["noise"] = float(np.mean(noise))  # of the white data, which come last
        each = zip(SEEDS, times, noise, predicted, strict=True)
        found["seeds"] += [(edit, seed, t, decile_ratio([t]), n, decile_ratio([p])) for seed, t, n, p in each]
    plain, white = found["measured"].values()
    verdict = _white_verdict(plain, white, found["noise"])
    return {**found, "verdict": verdict, "gone": 1 - np.log(white.value) / np.log(plain.value)}


def _noise(history: SpectralHistory, found: ModeEmergence) -> float:
    return float(np.exp(_DECILES * np.nanmedian(timing_error(history, found))))


def _white_verdict(plain: Estimate, white: Estimate, noise: float) -> str:
    if not (plain.determinable and white.determinable):
        return "not determinable"
    if white.high >= plain.low:
        return "not confirmed"
    return "confirmed" if white.low <= noise else "confirmed but for a rest"


# Classes out of balance.


@dataclass(frozen=True)
class ClassTimes:
    """When the modes of two classes emerged, matched by rank; infinite if not yet.

    Attributes:
        high: of the class of higher variance, ``[K]``.
        low: of the other, ``[K]``.
        theory_ratio: ratio of the medians for independent linear denoisers of one and the same rate.
        last: step of the last measurement.
    """

    high: Array
    low: Array
    theory_ratio: float
    last: int

    @property
    def emerged(self) -> int:
        """Modes of the class of higher variance that have emerged."""
        return int(np.isfinite(self.high).sum())


def class_times(history: SpectralHistory, sampler: Sampler, preconditioning: Preconditioning) -> ClassTimes:
    """Times of each class along its own modes, those along which its variance is the larger one."""
    target, found, medians = history["group_target"], [], []
    theory = OneLayer(Objective(1.0, preconditioning))
    for g, name in enumerate(history.groups):
        own = np.flatnonzero(target[g] > target[1 - g])
        ranked = own[np.argsort(-target[g][own])]
        measured, gain = compare(history.group(name)).measured, history["initial_gain"][:, ranked]
        waiting = measured.status[ranked] == STATUS.index("not yet")
        found.append(np.where(waiting, np.inf, measured.time[ranked]))
        medians.append(np.median(theory.on(target[g][ranked]).emergence_time(sampler=sampler, initial_gain=gain)))
    return ClassTimes(found[0], found[1], float(medians[0] / medians[1]), int(history.steps[-1]))


def ratio_table(cases: Sequence[ClassTimes], draws: int = 2000) -> Array:
    """Log of the ratio of the two classes' median times, measured and bootstrapped, ``[1 + draws, cases]``.

    The bootstrap draws ranks, the same for both classes.
    """
    generator = np.random.default_rng(0)

    def column(one: ClassTimes) -> Array:
        def statistic(ranks: NDArray[np.int64]) -> Array:
            return np.log(np.median(one.high[ranks], axis=-1)) - np.log(np.median(one.low[ranks], axis=-1))

        return resampled(statistic, len(one.high), draws, generator)

    return np.stack([column(one) for one in cases], axis=1)


def reversal(odds: Array, table: Array) -> Array:
    """Odds at which the log ratio first passes 0 upwards, ``[rows]``; NaN if it does not between finite ratios.

    Args:
        odds: of the class of lower variance, in ascending order, one per column.
        table: log ratios, ``[rows, columns]``; linear in the logarithm of the odds in between.
    """
    logs, found = np.log(odds), np.full(len(table), np.nan)
    for row, ratio in enumerate(table):
        after = int(np.argmax(ratio > 0))
        if after and np.isfinite(ratio[after]):
            found[row] = np.exp(np.interp(0, ratio[after - 1 : after + 1], logs[after - 1 : after + 1]))
    return found


def response(odds: Array, table: Array) -> Array:
    """Slope of the log ratio on the log of the odds, over the columns without infinite ratios, ``[rows]``."""
    finite = np.isfinite(table).all(axis=0)
    if finite.sum() < 2:
        return np.full(len(table), np.nan)
    return np.asarray(np.polyfit(np.log(odds[finite]), table[:, finite].T, 1)[0])


def _classes(results: Results) -> dict[str, Any]:
    """Ratio of the two classes' median times by the share of the class of higher variance."""
    histories = {share: results[f"share{round(100 * share):02d}_seed0"].history() for share in SHARES}
    times = {share: class_times(history, SAMPLER, CLASS_PRECONDITIONING) for share, history in histories.items()}
    table = ratio_table(list(times.values()))
    ratios = {share: Estimate.of(column, "nearest").exp() for share, column in zip(SHARES, table.T, strict=True)}
    # Infinite ratios are above the time of the last measurement over the other's median.
    bounds = {s: float(times[s].last / np.median(times[s].low)) for s, one in ratios.items() if np.isposinf(one.value)}
    even, at_even = ratios[SHARES[0]], times[SHARES[0]].theory_ratio
    last = min((share for share, one in ratios.items() if one.determinable), default=None)
    return {
        "times": times,
        "ratios": ratios,
        "bounds": bounds,
        "theory": dict(zip(SHARES, at_even * _ODDS, strict=True)),
        "even": even,
        "even_verdict": _even_verdict(even),
        "last": last,
        "reversal": _share(Estimate.of(reversal(_ODDS, table), "nearest")),
        "since": _reversed_from(ratios, bounds),
        "response": Estimate.of(response(_ODDS, table), "nearest"),
        "even_share": {"theory": at_even / (1 + at_even), "measured": even.value / (1 + even.value)},
    }


def _even_verdict(ratio: Estimate) -> str:
    if not ratio.determinable:
        return "not determinable"
    return "confirmed" if ratio.high < 1 else "not confirmed: reversed" if ratio.low > 1 else "not decided"


def _reversed_from(ratios: Mapping[float, Estimate], bounds: Mapping[float, float]) -> float | None:
    """Largest share from which on every ratio is above 1, with its interval or by its bound."""
    found = None
    for share in reversed(SHARES):
        if not (bounds[share] if share in bounds else ratios[share].low) > 1:
            break
        found = share
    return found


def _share(odds: Estimate) -> Estimate:
    """The share of the class of higher variance at these odds of the other."""
    return Estimate(1 / (1 + odds.value), 1 / (1 + odds.high), 1 / (1 + odds.low))
