"""Predictions put to the test: variances exchanged, data whitened, classes out of balance."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from scipy import stats

from spectral_lightning.emergence import STATUS, ModeEmergence
from spectral_lightning.prediction import compare
from spectral_lightning.spectra import SpectralHistory
from spectral_lightning.theory import Objective, OneLayer, Preconditioning
from spectral_lightning.theory.solving.generation import tuned_sampler
from spectral_lightning.tracking.settings import PRESETS
from studies.statistics import Array, Estimate, mean_ratio, resampled
from studies.store import Results

__all__ = ["GAUSSIAN_PAIRS", "PHOTOGRAPH_PAIRS", "SEEDS", "SHARES", "class_times", "decile_ratio", "exchanged"]
__all__ += ["noise_ratio", "predictions", "ratio_table", "response", "reversal"]

Pairs = Sequence[tuple[int, int]]

SEEDS = (0, 1)
GAUSSIAN_PAIRS = ((0, 7), (1, 15), (3, 31))
PHOTOGRAPH_PAIRS = ((6, 30), (8, 40), (12, 55))
SHARES = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01)  # of the class of higher variance
_THEORY = OneLayer(Objective(1.0, Preconditioning("edm", sigma_data=0.2)))  # of the classes, at a rate of one
_ODDS = np.array([(1 - share) / share for share in SHARES])  # of the class of lower variance


def predictions(results: Results) -> dict[str, Any]:
    """Results of the three tests."""
    swaps = {
        "Gaussian": _swaps(results, "", SEEDS, GAUSSIAN_PAIRS),
        "photographs": _swaps(results, "photographs_", (0,), PHOTOGRAPH_PAIRS),
    }
    return {"swaps": swaps, "white": _white(results), "classes": _classes(results)}


def exchanged(before: Array, after: Array) -> dict[str, Any]:
    """Pairs of directions whose variances are exchanged, by the steps at which each emerged.

    Args:
        before: emergence of the first and second direction in the data as they are, ``[P, 2]``; NaN if it did not emerge.
        after: the same two directions in the edited data, ``[P, 2]``.

    Returns:
        Both; ``reversed``, whether the direction that came first now comes second, ``[P]``; ``ratio``, a direction's time over
        the time that the other direction took with the same variance, 1 if variance decides; ``apart``, the time of the
        second direction over that of the first.
    """
    return {
        "before": before,
        "after": after,
        "reversed": np.diff(before)[:, 0] * np.diff(after)[:, 0] < 0,
        "ratio": mean_ratio(np.ravel(after[:, ::-1] / before)),
        "apart": mean_ratio(before[:, 1] / before[:, 0]),
    }


def _swaps(results: Results, prefix: str, seeds: Sequence[int], pairs: Pairs) -> dict[str, Any]:
    """All pairs measured and predicted, and for each seed the unchanged directions: time after over time before.

    Modes are in descending order of variance. Exchanged, the first direction has the variance and rank of the second: its
    time is found at the other's place.
    """
    ranks = np.asarray(pairs)
    plain, swapped = ([results[f"{prefix}{edit}_seed{s}"] for s in seeds] for edit in ("plain", "swapped"))

    def pairs_of(predicted: bool) -> dict[str, Any]:
        before, after = ([one.time(predicted) for one in trainings] for trainings in (plain, swapped))
        return exchanged(np.concatenate([t[ranks] for t in before]), np.concatenate([t[ranks[:, ::-1]] for t in after]))

    others = [np.delete(two.time() / one.time(), ranks) for one, two in zip(plain, swapped, strict=True)]
    return {
        "measured": pairs_of(False),
        "predicted": pairs_of(True),
        "seeds": np.repeat(seeds, len(pairs)),
        "variances": np.concatenate([one.history.target[ranks] for one in plain]),
        "others": [ratios[np.isfinite(ratios)] for ratios in others],
    }


def decile_ratio(times: Sequence[Array], draws: int = 2000) -> Estimate:
    """Ninth decile of the emergence times over the first, the geometric mean over several trainings.

    The interval is from a bootstrap over modes; not determinable if a mode did not emerge.
    """
    if not all(len(time) and np.isfinite(time).all() for time in times):
        return Estimate()

    def ratio(time: Array) -> Array:
        return np.asarray(np.quantile(time, 0.9, axis=-1) / np.quantile(time, 0.1, axis=-1))

    generator = np.random.default_rng(0)
    return Estimate.of(stats.gmean([resampled(ratio, time, draws=draws, rng=generator) for time in times]))


def noise_ratio(history: SpectralHistory, found: ModeEmergence) -> float:
    """The decile ratio that sampling error alone would cause among modes that emerge together.

    A time then has the standard error of the sampled variance over the slope of its curve, both logarithmic.
    """
    steps, modes = history.steps.astype(np.float64), np.flatnonzero(np.isfinite(found.time))
    row = np.searchsorted(steps, found.time[modes])
    row, modes = row[row > 1], modes[row > 1]  # the first measurement is at step 0
    rise = np.log(history.variance[row, modes] / history.variance[row - 1, modes]) / np.log(steps[row] / steps[row - 1])
    errors = np.abs(history["standard_error"][row, modes] / history.variance[row, modes] / rise)
    return float(np.exp(np.diff(stats.norm.ppf([0.1, 0.9]))[0] * np.median(errors[rise != 0])))


def _white(results: Results) -> dict[str, Any]:
    """Spread of the emergence times of the Gaussian, plain and whitened: measured, predicted, by noise alone."""
    rows: dict[str, list[dict[str, Any]]] = {"plain": [], "white": []}
    for edit, seed in product(rows, SEEDS):
        stored = results[f"{edit}_seed{seed}"]
        found = stored.compared().measured
        time, predicted = (stored.time(kind)[found.eligible("rising")] for kind in (False, True))
        row = {"seed": seed, "time": time, "predicted": predicted, "noise": noise_ratio(stored.history, found)}
        rows[edit].append({**row, "ratio": decile_ratio([time]), "predicted_ratio": decile_ratio([predicted])})
    both = [{edit: decile_ratio([row[kind] for row in rows[edit]]) for edit in rows} for kind in ("time", "predicted")]
    return {
        "rows": rows,
        "measured": both[0],
        "predicted": both[1],
        "noise": float(np.mean([row["noise"] for row in rows["white"]])),
        "gone": 1 - np.log(both[0]["white"].value) / np.log(both[0]["plain"].value),
    }


# Classes out of balance.


def class_times(history: SpectralHistory) -> dict[str, Any]:
    """Times of each class along its own modes, in which its variance exceeds the other's, matched by rank.

    Returns:
        ``high`` of the class of higher variance and ``low`` of the other, ``[K]``, infinite if not yet emerged; ``theory``, the
        ratio of their medians for independent linear denoisers of equal rate; ``last``, the last step; ``emerged``, how many
        modes of ``high`` have emerged.
    """
    target, found, medians = history["group_target"], [], []
    full = PRESETS["full"]
    sampler = tuned_sampler(history.target, full.evaluations, full.bias)  # that of the measurement
    for g, name in enumerate(history.groups):
        own = np.flatnonzero(target[g] > target[1 - g])
        ranked = own[np.argsort(-target[g][own])]
        measured, gain = compare(history.group(name)).measured, history["initial_gain"][:, ranked]
        waiting = np.isin(measured.status[ranked], [STATUS.index(word) for word in ("not yet", "never")])
        found.append(np.where(waiting, np.inf, measured.time[ranked]))
        medians.append(np.median(_THEORY.on(target[g][ranked]).emergence_time(sampler=sampler, initial_gain=gain)))
    about = {"theory": float(medians[0] / medians[1]), "last": int(history.steps[-1])}
    return {"high": found[0], "low": found[1], "emerged": int(np.isfinite(found[0]).sum()), **about}


def ratio_table(times: Sequence[tuple[Array, Array]], draws: int = 2000) -> Array:
    """Log of the ratio of two classes' median times, measured and bootstrapped, ``[1 + draws, cases]``.

    The bootstrap draws ranks, the same for both classes.
    """

    def ratio(high: Array, low: Array) -> Array:
        return np.asarray(np.log(np.median(high, axis=-1) / np.median(low, axis=-1)))

    generator = np.random.default_rng(0)
    return np.stack([resampled(ratio, *pair, draws=draws, rng=generator) for pair in times], axis=1)


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
    times = {share: class_times(results[f"share{round(100 * share):02d}_seed0"].history) for share in SHARES}
    table = ratio_table([(one["high"], one["low"]) for one in times.values()])
    ratios = {share: Estimate.of(column) for share, column in zip(SHARES, np.exp(table).T, strict=True)}
    # Infinite ratios are above the time of the last measurement over the other's median.
    bounds = {s: times[s]["last"] / np.median(times[s]["low"]) for s, one in ratios.items() if np.isposinf(one.value)}
    above = [(bounds[share] if share in bounds else ratios[share].low) > 1 for share in SHARES]
    even, at_even = ratios[SHARES[0]], times[SHARES[0]]["theory"]
    return {
        "times": times,
        "ratios": ratios,
        "bounds": bounds,
        "theory": dict(zip(SHARES, at_even * _ODDS, strict=True)),
        "even": even,
        "last": min((share for share, one in ratios.items() if one.determinable), default=None),
        "reversal": Estimate.of(1 / (1 + reversal(_ODDS, table))),
        # The largest share from which on every ratio is above 1, with its interval or by its bound.
        "since": next((share for i, share in enumerate(SHARES) if all(above[i:])), None),
        "response": Estimate.of(response(_ODDS, table)),
        "even_share": {"theory": at_even / (1 + at_even), "measured": even.value / (1 + even.value)},
    }
