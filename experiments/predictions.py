"""Predictions put to the test: variances swapped, data whitened, classes out of balance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from experiments.definition import Experiment, Report, Row
from experiments.predictions_figure import figure
from experiments.predictions_runs import (
    CLASS_PRECONDITIONING,
    CLASS_SEEDS,
    GAUSSIAN_PAIRS,
    NUM_SAMPLES,
    PHOTOGRAPH_PAIRS,
    PHOTOGRAPH_SEEDS,
    SAMPLER,
    SEEDS,
    SHARES,
    classes,
    gaussian,
    photographs,
)
from experiments.predictions_statistics import (
    ClassTimes,
    Estimate,
    Exchange,
    class_times,
    drawn,
    exchanges,
    mean_ratio,
    ratio_table,
    response,
    reversal,
    spread,
    timing_error,
    undisturbed,
)
from experiments.results import Results, Stored
from experiments.tables import interval, markdown
from spectral_lightning.emergence import ModeEmergence
from spectral_lightning.spectra import Comparison

__all__ = ["EXPERIMENT"]

_DECILES = 2 * 1.2816  # of a normal distribution, in standard deviations between the first and the ninth
_DATA = {"Gaussian": ("", SEEDS, GAUSSIAN_PAIRS), "photographs": ("photographs_", PHOTOGRAPH_SEEDS, PHOTOGRAPH_PAIRS)}
_CLAIM = "Nicoletti et al. 2026 (random features, Gaussian mixtures)"
_ODDS = [(1 - share) / share for share in SHARES]


def report(results: Results) -> Report:
    """What became of the three predictions."""
    cases = [[_classes(results[f"share{round(100 * s):02d}_seed{seed}"]) for seed in CLASS_SEEDS] for s in SHARES]
    table = ratio_table(cases)
    ratios = {share: _raised(drawn(column)) for share, column in zip(SHARES, table.T, strict=True)}
    theory = _independent(cases)
    exchanged = {name: _exchanged(results, name) for name in _DATA}
    plain, white = _eligible(results, "plain"), _eligible(results, "white")
    rows = [
        *(_swap_row(results, name) for name in _DATA),
        _white_row(results),
        _balance_row(ratios[SHARES[0]], theory[SHARES[0]]),
        _reversal_row(table, ratios, theory),
    ]
    text = "\n\n".join([*_swap_text(results), *_white_text(results), *_class_text(cases, table, ratios, theory)])
    return Report(rows, text, figure(plain, white, exchanged, ratios, theory))


# Variances exchanged.


def _compared(results: Results, name: str, edit: str) -> list[Comparison]:
    prefix, seeds, _ = _DATA[name]
    return [results[f"{prefix}{edit}_seed{seed}"].compared() for seed in seeds]


def _exchanged(results: Results, name: str, predicted: bool = False) -> list[Exchange]:
    pairs = _DATA[name][2]
    both = zip(_compared(results, name, "plain"), _compared(results, name, "swapped"), strict=True)
    return [one for a, b in both for one in exchanges(_of(a, predicted), _of(b, predicted), pairs)]


def _of(found: Comparison, predicted: bool) -> ModeEmergence:
    return found.predicted if predicted and found.predicted is not None else found.measured


def _swap_row(results: Results, name: str) -> Row:
    measured, predicted = _exchanged(results, name), _exchanged(results, name, predicted=True)
    ratio = mean_ratio(np.ravel([one.ratios for one in measured]))
    return Row(
        f"{name}: two directions that exchange variances exchange their places in the order of emergence",
        "-",
        _swap_said(measured, ratio),
        _swap_said(predicted, mean_ratio(np.ravel([one.ratios for one in predicted]))),
        _swap_verdict(measured, ratio),
        headline=True,
    )


def _swap_said(found: Sequence[Exchange], ratio: Estimate) -> str:
    apart = mean_ratio([one.before[1] / one.before[0] for one in found])
    return (
        f"{sum(one.reversed for one in found)} of {len(found)} pairs reversed; with the same variance the other direction "
        f"takes {_times(ratio)} as long; the two of a pair are {_times(apart)} apart"
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
            scatter.append([name, str(seed), str(len(others)), _times(mean_ratio(others)), f"{_factor(others):.2f}"])
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
    return mean_ratio([spread(_rising(_of(one, predicted))) for one in _compared(results, "Gaussian", edit)])


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
        f"ninth over first decile of the emergence times {_times(white)}; variances 4/k^0.75: {_times(plain)}",
        "; variances 4/k^0.75: ".join(_times(one) for one in theory),
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
            told = (f"{np.median(time):.1f}", f"{spread(time):.2f}", f"{_noise(stored):.2f}")
            rows.append([edit, str(seed), str(len(time)), *told, f"{spread(_rising(_of(found, True))):.2f}"])
    columns = ["data", "seed", "modes", "median, updates", "ninth over first decile", "by sampling noise", "theory"]
    return [
        "### White data",
        "The Gaussian above against its whitened twin, of variance 1 along every direction. The column on noise is the "
        "spread that modes would show if they emerged together and only the finite number of samples told them apart: "
        "standard error of the variance over the slope of its curve. The theory starts from the gains of the network "
        "before training.",
        markdown(columns, rows),
    ]


# Classes out of balance.


def _classes(stored: Stored) -> ClassTimes:
    return class_times(stored.history(), SAMPLER, CLASS_PRECONDITIONING)


def _raised(logs: Estimate) -> Estimate:
    return Estimate(*(float(np.exp(v)) for v in (logs.value, logs.low, logs.high)))


def _independent(cases: Sequence[Sequence[ClassTimes]]) -> dict[float, float]:
    """The theory's ratio at every share, if each class is learnt by itself at a rate in proportion to its share."""
    equal = float(np.mean([one.theory_ratio for one in cases[0]]))
    return {share: equal * odds for share, odds in zip(SHARES, _ODDS, strict=True)}


def _balance_row(ratio: Estimate, theory: float) -> Row:
    verdict = "not determinable"
    if ratio.determinable:
        verdict = "confirmed" if ratio.high < 1 else "not confirmed: reversed" if ratio.low > 1 else "not decided"
    return Row(
        f"balanced classes: the one of higher variance is learnt first ({_CLAIM})",
        "first",
        f"median emergence {_times(ratio)} the other's",
        f"{theory:.2f}",
        verdict,
        headline=True,
    )


def _reversal_row(table: np.ndarray, ratios: dict[float, Estimate], theory: dict[float, float]) -> Row:
    at = drawn(reversal(_ODDS, table))
    above = [share for share, one in ratios.items() if one.low > 1]
    place = f"at a share of {_share(at)}" if at.determinable else "at a share that is not determinable"
    last = ratios[SHARES[-1]]
    return Row(
        f"strong imbalance reverses the order ({_CLAIM})",
        "reversed",
        f"{place}; at {SHARES[-1]:g} the higher variance takes {_times(last)} as long",
        f"{_odds_share(theory[SHARES[0]]):.2f} for classes learnt independently",
        f"confirmed from a share of {max(above):g} on" if above else "not confirmed down to the smallest share",
        headline=True,
    )


def _class_text(
    cases: Sequence[Sequence[ClassTimes]],
    table: np.ndarray,
    ratios: dict[float, Estimate],
    theory: dict[float, float],
) -> list[str]:
    rows = []
    for share, trainings in zip(SHARES, cases, strict=True):
        medians = [" / ".join(_updates(np.median(getattr(one, c))) for one in trainings) for c in ("high", "low")]
        crossed = (
            f"{sum(int(np.isfinite(one.high).sum()) for one in trainings)} of {sum(len(o.high) for o in trainings)}"
        )
        count = f"{round(share * NUM_SAMPLES):,}"
        rows.append([f"{share:g}", count, *medians, crossed, _times(ratios[share]), f"{theory[share]:.2f}"])
    columns = [
        "share",
        "its samples",
        "its median",
        "the other's median",
        "its modes emerged",
        "ratio [95 %]",
        "theory",
    ]
    balanced = ratios[SHARES[0]]
    slope = drawn(response(_ODDS, table))
    told = f"{_odds_share(balanced.value):.2f}" if balanced.determinable else "not determinable"
    return [
        "### Classes out of balance",
        "Two Gaussian classes of mean zero with 16 directions of their own each, of variances 4/sqrt(k) and 1/sqrt(k); along "
        "the other's directions a class has the variance the network starts with, so that nothing learnt of one class can "
        "pass for the other. The MLP is told the class, and each is sampled under its label. This is not the setting of the "
        "claim (random features without labels, trained on mixtures of Gaussians), which only its words are taken from. "
        f"Of {NUM_SAMPLES:,} training samples the class of higher variance has the share in the first column; medians in "
        "updates over its modes, seed by seed; the interval of their ratio is from a bootstrap over ranks.",
        markdown(columns, rows),
        "The theory takes each class as learnt by itself, by a linear denoiser under gradient flow, at a rate in proportion "
        "to its share: the ratio at balance is that of the theory's times for the same variances, preconditioning, sampler "
        "and initial gains, and grows as the odds. The MLP shares its weights between classes and Adam rescales its "
        f"gradients; the ratio measured grows as the odds to the power {interval(slope.value, slope.low, slope.high)}, over "
        "all shares with a finite ratio. The share of reversal, by the theory "
        f"{_odds_share(theory[SHARES[0]]):.2f}, is {told} if the ratio measured at balance is taken and grows as the odds.",
    ]


def _odds_share(ratio: float) -> float:
    """Share at which a ratio that grows as the odds, and is this at balance, is 1."""
    return ratio / (1 + ratio)


def _share(odds: Estimate) -> str:
    value, high, low = (1 / (1 + v) for v in (odds.value, odds.low, odds.high))
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _updates(value: float) -> str:
    return f"{value:.1f}" if np.isfinite(value) else "not yet"


def _times(one: Estimate) -> str:
    return interval(one.value, one.low, one.high) if one.determinable else "not determinable"


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
