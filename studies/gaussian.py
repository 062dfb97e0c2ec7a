"""Experiment 1 of the paper: an MLP learns a Gaussian with a log-normal spectrum."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spectral_lightning.emergence import PowerLaw
from studies.definition import Experiment, Report, Row, Run, trackers
from studies.results import Results, Stored
from studies.tables import exponent, markdown

__all__ = ["EXPERIMENT", "run"]

_LATENTS = 1024  # a multiple of 2 d for every d: second moments of the latents are exact
_SEEDS = {128: (0, 1, 2), 256: (0, 1), 512: (0,)}
_STEPS = 3000
_WAYS = ("rising", "falling")
_CRITERIA = ("geometric", "harmonic")
_COLOR = {"rising": "#b2432f", "falling": "#2b5c8a"}

# Wang & Pehlevan 2025, appendix on the Gaussian experiment; they do not say which criterion.
_PUBLISHED = {(256, "rising"): 1.08, (512, "rising"): 1.05, (512, "falling"): 1.13}
# Their scripts, run on two seeds: other seeds, samples, basis and smoothing than here.
_SCRIPTS = {
    (128, "rising", "geometric"): "0.70, 0.78",
    (128, "falling", "geometric"): "0.98, 0.92",
    (128, "rising", "harmonic"): "0.96, 0.98",
    (128, "falling", "harmonic"): "1.12, 1.17",
    (256, "rising", "geometric"): "1.02",
    (256, "falling", "geometric"): "1.02",
    (256, "rising", "harmonic"): "1.30",
    (256, "falling", "harmonic"): "2.12",
}


def run(dim: int, seed: int) -> Run:
    """One training of experiment 1; the seed is that of the spectrum, the samples and the network."""
    config = "gaussian_mlp" if dim == 128 else f"gaussian_mlp_{dim}"
    changes = {
        "seed_everything": seed,
        "trainer.max_steps": _STEPS,
        "data.init_args.seed": seed,
        "trainer.callbacks": trackers(_LATENTS, per_decade=15),
    }
    return Run(f"d{dim}_seed{seed}", config, changes)


def report(results: Results) -> Report:
    """Exponents of every run, beside the published ones and the theory's."""
    rows = [_row(results, *case) for case in _cases() if case[:2] in _PUBLISHED or _determinable(results, *case)]
    return Report(rows, _text(results), _figure(results))


def _cases() -> Iterator[tuple[int, str, str]]:
    return ((dim, way, criterion) for dim in _SEEDS for way in _WAYS for criterion in _CRITERIA)


def _runs(results: Results, dim: int) -> list[Stored]:
    return [results[f"d{dim}_seed{seed}"] for seed in _SEEDS[dim]]


def _laws(results: Results, dim: int, way: str, criterion: str) -> tuple[list[PowerLaw], list[PowerLaw | None]]:
    found = [one.compared(criterion) for one in _runs(results, dim)]
    return [one.measured_law(way) for one in found], [one.predicted_law(way) for one in found]


def _determinable(results: Results, dim: int, way: str, criterion: str) -> bool:
    return any(law.determinable for law in _laws(results, dim, way, criterion)[0])


def _row(results: Results, dim: int, way: str, criterion: str) -> Row:
    measured, predicted = _laws(results, dim, way, criterion)
    published = _PUBLISHED.get((dim, way))
    scripts = _SCRIPTS.get((dim, way, criterion))
    known = [f"{published:.2f}"] if published else []
    return Row(
        f"MLP, Gaussian d = {dim}, {way}, {criterion} threshold",
        "; ".join([*known, *([f"their scripts {scripts}"] if scripts else [])]) or "-",
        "; ".join(exponent(law, counted=False) for law in measured),
        "; ".join(exponent(law, counted=False) for law in predicted),
        _verdict(measured, predicted, published),
        headline=(way, criterion) == ("rising", "geometric"),
    )


def _verdict(measured: list[PowerLaw], predicted: list[PowerLaw | None], published: float | None) -> str:
    """By the intervals alone: does the order of variance hold, does the published figure, does the theory's?"""
    laws = [law for law in measured if law.determinable]
    if not laws:
        return "not determinable"
    ordered = "ordered by variance" if all(law.low > 0 for law in laws) else "order by variance not shown"
    said = [ordered]
    if published is not None:
        said.append(f"{_placed(published, laws)} {published:.2f}")
    theory = [law.exponent for law in predicted if law is not None and law.determinable]
    if theory:
        said.append(f"{_placed(float(np.mean(theory)), laws)} the theory's")
    return "; ".join(said)


def _placed(value: float, laws: list[PowerLaw]) -> str:
    if any(law.low <= value <= law.high for law in laws):
        return (
            "agrees with" if len(laws) == 1 or all(law.low <= value <= law.high for law in laws) else "scatters about"
        )
    return (
        "below"
        if all(law.high < value for law in laws)
        else "above"
        if all(law.low > value for law in laws)
        else "about"
    )


def _text(results: Results) -> str:
    rows = []
    for dim, way, criterion in _cases():
        measured, predicted = _laws(results, dim, way, criterion)
        for seed, law, theory in zip(_SEEDS[dim], measured, predicted, strict=True):
            rows.append([str(dim), str(seed), way, criterion, exponent(law), exponent(theory, counted=False)])
    fits = [
        [str(dim), str(seed), f"{fit['rms']:.2f}", f"{fit['baseline']:.2f}"]
        for dim, seeds in _SEEDS.items()
        for seed, fit in zip(seeds, (one.goodness() for one in _runs(results, dim)), strict=True)
    ]
    return "\n\n".join(
        [
            "Each seed draws its own spectrum, samples and network. A row of the summary lists the seeds one after "
            "another. The theory is linear, with the network's preconditioning and one fitted factor on time, pushed "
            "through the same 20-step sampler; its exponent is over the same modes and steps.",
            markdown(["d", "seed", "modes", "threshold", "alpha [95 %]", "theory"], rows),
            "How far the overlay lies from the measurement, as rms error of log variance over all modes outside the gray "
            "zone and all steps:",
            markdown(["d", "seed", "theory", "nothing learnt"], fits),
            _between_seeds(results),
        ]
    )


def _between_seeds(results: Results) -> str:
    """How far seeds of one dimension lie apart, in units of their own intervals."""
    rows = []
    for dim, way, criterion in _cases():
        laws = [law for law in _laws(results, dim, way, criterion)[0] if law.determinable]
        if len(laws) > 1:
            values = np.array([law.exponent for law in laws])
            half = np.mean([(law.high - law.low) / 2 for law in laws])
            rows.append([str(dim), way, criterion, f"{np.ptp(values):.2f}", f"{half:.2f}"])
    table = markdown(["d", "modes", "threshold", "range over seeds", "half width of one seed's interval"], rows)
    return f"What a seed's own interval does not hold, the scatter between seeds:\n\n{table}" if rows else ""


def _figure(results: Results) -> Figure:
    figure = Figure(figsize=(10, 5.6), layout="constrained")
    grid = figure.subplots(2, len(_SEEDS), sharex=True, sharey="row", squeeze=False)
    for axes_of, criterion in zip(grid, _CRITERIA, strict=True):
        for axes, dim in zip(axes_of, _SEEDS, strict=True):
            _panel(axes, results, dim, criterion)
            axes.set_title(f"d = {dim}, {criterion} threshold", loc="left", fontsize=10)
    for axes in grid[-1]:
        axes.set_xlabel("variance of the data along the mode")
    for axes in grid[:, 0]:
        axes.set_ylabel("emergence, updates")
    return figure


def _panel(axes: Axes, results: Results, dim: int, criterion: str) -> None:
    found = [one.compared(criterion) for one in _runs(results, dim)]
    for way in _WAYS:
        laws = [one.measured_law(way) for one in found]
        shown = ", ".join(f"{law.exponent:.2f}" for law in laws if law.determinable) or "not determinable"
        for number, one in enumerate(found):
            crossed, label = one.measured.crossed(way), f"{way}: $\\alpha$ = {shown}" if number == 0 else None
            x, y = one.measured.variance[crossed], one.measured.time[crossed]
            axes.plot(x, y, "o^s"[number], color=_COLOR[way], markersize=3, alpha=0.7, label=label)
    for way in _WAYS:
        both, theory = found[0].common(way), found[0].predicted
        if theory is not None and both.any():
            both &= theory.time > 1  # the theory may have a mode at its threshold from the start
            label = "theory, first seed" if way == "rising" else None
            axes.plot(theory.variance[both], theory.time[both], ".", color="0.35", markersize=2.5, label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.legend(fontsize=7.5, loc="lower left", framealpha=0.8)


EXPERIMENT = Experiment(
    name="gaussian",
    title="Gaussians of known spectrum",
    question="Does an MLP learn the modes of a Gaussian in the order of their variance, with which exponent, and is it the "
    "one that was published?",
    runs=tuple(run(dim, seed) for dim in sorted(_SEEDS, reverse=True) for seed in _SEEDS[dim]),
    report=report,
)
