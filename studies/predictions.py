"""Predictions put to the test: variances swapped, data whitened, classes out of balance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from spectral_lightning.emergence import ModeEmergence
from spectral_lightning.prediction import Comparison
from studies.definition import Experiment, Report, Row
from studies.estimate import Estimate
from studies.predictions_classes import Balance
from studies.predictions_figure import figure
from studies.predictions_runs import (
    CLASS_SEEDS,
    GAUSSIAN_PAIRS,
    PHOTOGRAPH_PAIRS,
    PHOTOGRAPH_SEEDS,
    SEEDS,
    SHARES,
    classes,
    gaussian,
    photographs,
)
from studies.predictions_statistics import (
    Exchange,
    exchanges,
    mean_ratio,
    spread,
    timing_error,
    undisturbed,
)
from studies.results import Results, Stored
from studies.tables import markdown

__all__ = ["EXPERIMENT"]

_DECILES = 2 * 1.2816  # of a normal distribution, in standard deviations between the first and the ninth
_DATA = {"Gaussian": ("", SEEDS, GAUSSIAN_PAIRS), "photographs": ("photographs_", PHOTOGRAPH_SEEDS, PHOTOGRAPH_PAIRS)}
_NAMES = {"plain": "variances 4/k^0.75", "white": "white"}


def report(results: Results) -> Report:
    """What became of the three predictions."""
    balance = Balance.of(results)
    exchanged = {name: _exchanged(results, name) for name in _DATA}
    plain, white = _eligible(results, "plain"), _eligible(results, "white")
    rows = [
        *(_swap_row(results, name) for name in _DATA),
        _white_row(results),
        balance.even_row(),
        balance.reversal_row(),
    ]
    text = "\n\n".join([*_swap_text(results), *_white_text(results), *balance.text()])
    return Report(rows, text, figure(plain, white, exchanged, balance.ratios, balance.theory, balance.bounds))


# Variances exchanged.


def _compared(results: Results, name: str, edit: str) -> list[Comparison]:
    prefix, seeds, _ = _DATA[name]
    return [results[f"{prefix}{edit}_seed{seed}"].compared() for seed in seeds]


def _exchanged(results: Results, name: str, predicted: bool = False) -> list[Exchange]:
    pairs = _DATA[name][2]
    both = zip(_compared(results, name, "plain"), _compared(results, name, "swapped"), strict=True)
    return [one for a, b in both for one in exchanges(_of(a, predicted), _of(b, predicted), pairs)]


def _of(found: Comparison, predicted: bool) -> ModeEmergence:
    """The measured times, or the predicted ones: NaN where the prediction has no clock, since too few modes emerged."""
    if not predicted:
        return found.measured
    return found.predicted or replace(found.measured, time=np.full(len(found.measured.time), np.nan))


def _swap_row(results: Results, name: str) -> Row:
    measured, predicted = _exchanged(results, name), _exchanged(results, name, predicted=True)
    ratio, theory = (mean_ratio(np.ravel([one.ratios for one in found])) for found in (measured, predicted))
    return Row(
        f"{name}: two directions that exchange variances exchange their places in the order of emergence",
        "-",
        _swap_said(measured, ratio),
        _swap_said(predicted, theory) if theory.determinable else str(theory),
        _swap_verdict(measured, ratio),
        headline=True,
    )


def _swap_said(found: Sequence[Exchange], ratio: Estimate) -> str:
    apart = mean_ratio([one.before[1] / one.before[0] for one in found])
    return (
        f"{sum(one.reversed for one in found)} of {len(found)} pairs reversed; with the same variance the other direction "
        f"takes {ratio} times as long; the two of a pair are a factor of {apart} apart"
    )


def _swap_verdict(found: Sequence[Exchange], ratio: Estimate) -> str:
    if not ratio.determinable:
        return "not determinable: not every direction emerged"
    reversed_ = sum(one.reversed for one in found)
    if reversed_ == 0:
        return "not confirmed"
    order = "confirmed" if reversed_ == len(found) else f"partly: {reversed_} of {len(found)} pairs"
    return f"{order}; {'the times too are exchanged' if ratio.holds(1) else 'the times are not quite exchanged'}"


def _swap_text(results: Results) -> list[str]:
    rows, scatter = [], []
    for name, (_, seeds, pairs) in _DATA.items():
        plain, swapped = _compared(results, name, "plain"), _compared(results, name, "swapped")
        for seed, a, b in zip(seeds, plain, swapped, strict=True):
            for one in exchanges(a.measured, b.measured, pairs):
                variance = (f"{a.measured.variance[k]:.3g}" for k in one.modes)
                steps = (f"{time:.1f}" for time in (*one.before, *one.after))
                rows.append([name, str(seed), " / ".join(variance), *steps, "yes" if one.reversed else "no"])
            others = undisturbed(a.measured, b.measured, pairs)
            scatter.append([name, str(seed), str(len(others)), str(mean_ratio(others)), f"{_factor(others):.2f}"])
    columns = ["data", "seed", "variances A / B", "A before", "B before", "A after", "B after", "reversed"]
    return [
        "### Variances exchanged",
        "Three pairs of directions exchange their variances, all others keep theirs. The Gaussian has variances 4/k^0.75 along a "
        "random rotation; nothing but variance tells its directions apart, so that it tests the measurement as much as the "
        "claim. The photographs (8x8 pixels) differ along their directions in everything else too, and their modes here "
        "fall. A is the direction with the larger variance before. Updates at the geometric threshold:",
        markdown(columns, rows),
        "The directions that keep their variance, time after over time before, and what this scatters by:",
        markdown(["data", "seed", "directions", "mean ratio [95 %]", "scatter, as a factor"], scatter),
    ]


def _factor(ratios: Sequence[float] | np.ndarray) -> float:
    logs = np.log(ratios)
    return float(np.exp(np.sqrt(np.mean(logs**2)))) if len(logs) else float("nan")


# White data.


def _eligible(results: Results, edit: str) -> list[ModeEmergence]:
    return [one.measured for one in _compared(results, "Gaussian", edit)]


def _spreads(results: Results, edit: str, predicted: bool = False) -> Estimate:
    return spread([_rising(_of(one, predicted)) for one in _compared(results, "Gaussian", edit)])


def _rising(found: ModeEmergence) -> np.ndarray:
    return found.time[found.eligible("rising")]


def _noise(stored: Stored) -> float:
    """The spread that the finite number of samples alone would give modes that emerge together."""
    return float(np.exp(_DECILES * np.nanmedian(timing_error(stored.history(), stored.compared().measured))))


def _white_row(results: Results) -> Row:
    plain, white = _spreads(results, "plain"), _spreads(results, "white")
    theory = (_spreads(results, edit, predicted=True) for edit in ("white", "plain"))
    noise = float(np.mean([_noise(results[f"white_seed{seed}"]) for seed in SEEDS]))
    return Row(
        "Gaussian: whitened, all modes emerge together",
        "-",
        f"ninth over first decile of the emergence times {white}; variances 4/k^0.75: {plain}",
        "; variances 4/k^0.75: ".join(str(one) for one in theory),
        _white_verdict(plain, white, noise),
        headline=True,
    )


def _white_verdict(plain: Estimate, white: Estimate, noise: float) -> str:
    if not (plain.determinable and white.determinable):
        return "not determinable: not every mode emerged"
    if white.high >= plain.low:
        return "not confirmed"
    if white.low <= noise:
        return f"confirmed: no wider than sampling noise ({noise:.2f})"
    gone = 1 - np.log(white.value) / np.log(plain.value)
    return (
        f"confirmed but for a rest: {100 * gone:.0f} % of the spread in log time is gone, sampling noise is {noise:.2f}"
    )


def _white_text(results: Results) -> list[str]:
    rows = []
    for edit in ("plain", "white"):
        for seed in SEEDS:
            stored = results[f"{edit}_seed{seed}"]
            found = stored.compared()
            time = _rising(found.measured)
            told = (f"{np.median(time):.1f}", str(spread([time])), f"{_noise(stored):.2f}")
            rows.append(
                [_NAMES[edit], str(seed), str(len(time)), *told, f"{spread([_rising(_of(found, True))]).value:.2f}"]
            )
    columns = [
        "data",
        "seed",
        "modes",
        "median, updates",
        "ninth over first decile [95 %]",
        "by sampling noise",
        "theory",
    ]
    return [
        "### White data",
        "The Gaussian above against its whitened twin, of variance 1 along every direction. The column on noise is the "
        "spread that modes would show if they emerged together and only the finite number of samples told them apart: "
        "standard error of the variance over the slope of its curve. The theory starts from the gains of the network "
        "before training.",
        markdown(columns, rows),
    ]


EXPERIMENT = Experiment(
    name="predictions",
    title="Predictions put to the test",
    question="Do directions emerge in another order once their variances are exchanged, all at once once the data are white, "
    "and does the rarer of two classes come later although its variance is higher?",
    runs=(
        *(classes(share, seed) for seed in CLASS_SEEDS for share in SHARES),
        *(photographs(edit, seed) for seed in PHOTOGRAPH_SEEDS for edit in ("plain", "swapped")),
        *(gaussian(edit, seed) for seed in SEEDS for edit in ("plain", "swapped", "white")),
    ),
    report=report,
)
