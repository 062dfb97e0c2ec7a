"""The figures of the page, one per study."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter
from PIL import Image

from spectral_lightning.emergence import STATUS, ModeEmergence
from spectral_lightning.prediction import Comparison
from spectral_lightning.spectra.files import replacing
from studies.exponents import CHANGES, CRITERIA, LADDER
from studies.statistics import WAYS, Estimate, Ordering

__all__ = ["FIGURES", "save"]

_RED, _BLUE, _GRAY = "#b2432f", "#2b5c8a", "0.6"
_COLOR = dict(zip((*WAYS, *CRITERIA), (_RED, _BLUE, _RED, _BLUE), strict=True))
_MARKER = {"rising": "^", "falling": "v"}
_WAITING = 1.5  # times the last step: where modes that have not crossed are drawn


def save(figure: Figure, file: Path) -> None:
    """Write a PNG of 128 colours, a third of the size of one in full colour."""
    drawn = BytesIO()
    figure.savefig(drawn, format="png", dpi=110)
    with replacing(file) as part:
        Image.open(drawn).convert("RGB").quantize(128).save(part, format="png", optimize=True)


def _gaussian(found: Mapping[str, Any]) -> Figure:
    """Emergence against variance: a column for each dimension, a row for each criterion, a marker for each seed."""
    figure = Figure(figsize=(10, 5.6), layout="constrained")
    grid = figure.subplots(2, len(found["seeds"]), sharex=True, sharey="row", squeeze=False)
    for row, criterion in zip(grid, CRITERIA, strict=True):
        for axes, dim in zip(row, found["seeds"], strict=True):
            exponents = {way: [law.exponent for law in found["cases"][dim, way, criterion]["laws"]] for way in WAYS}
            _seeds(axes, found["compared"][dim, criterion], exponents)
            axes.set_title(f"d = {dim}, {criterion} threshold", loc="left", fontsize=10)
    for axes in grid[-1]:
        axes.set_xlabel("variance of the data along the mode")
    for axes in grid[:, 0]:
        axes.set_ylabel("emergence, updates")
    return figure


def _seeds(axes: Axes, found: Sequence[Comparison], exponents: Mapping[str, Sequence[float]]) -> None:
    for way in WAYS:
        shown = ", ".join(f"{value:.2f}" for value in exponents[way]) or "not determinable"
        for number, one in enumerate(found):
            crossed, label = one.measured.crossed(way), f"{way}: $\\alpha$ = {shown}" if number == 0 else None
            x, y = one.measured.variance[crossed], one.measured.time[crossed]
            axes.plot(x, y, "o^s"[number], color=_COLOR[way], markersize=3, alpha=0.7, label=label)
    theory = found[0].predicted
    if theory is not None:
        # The theory may have a mode at its threshold from the start.
        both = (found[0].common("rising") | found[0].common("falling")) & (theory.time > 1)
        label = "theory, first seed"
        axes.plot(theory.variance[both], theory.time[both], ".", color="0.35", markersize=2.5, label=label)
    axes.loglog()
    axes.legend(fontsize=7.5, loc="lower left", framealpha=0.8)


def _orders(found: Mapping[str, Any]) -> Figure:
    """Emergence against variance with fitted lines, one panel for each row and column of the study."""
    rows, columns = found["rows"], found["columns"]
    figure = Figure(figsize=(10 if len(columns) > 2 else 9, 6), layout="constrained")
    grid = figure.subplots(len(rows), len(columns), sharex=True, sharey=True, squeeze=False)
    for line, (row, row_name) in zip(grid, rows.items(), strict=True):
        for axes, column in zip(line, columns, strict=True):
            _order(axes, found["panels"][row, column])
        line[0].set_ylabel(f"{row_name}\nemergence, updates", fontsize=9)
    for axes, name in zip(grid[0], columns.values(), strict=True):
        axes.set_title(name, fontsize=10)
    for axes in grid[-1]:
        axes.set_xlabel("variance of the mode", fontsize=9)
    marks = [_entry(label=way, marker=_MARKER[way], color=_COLOR[way]) for way in WAYS]
    waits = _entry(label="not yet", marker="v", color="0.4", fillstyle="none")
    line = Line2D([], [], color="black", linewidth=1, label="fitted law")
    figure.legend(handles=[*marks, waits, line], loc="outside upper center", ncols=4, fontsize=8, frameon=False)
    return figure


def _entry(**style: Any) -> Line2D:
    """A marker for a legend."""
    return Line2D([], [], linestyle="", markersize=4, **style)


def _order(axes: Axes, found: Sequence[Ordering]) -> None:
    axes.loglog()
    axes.tick_params(labelsize=7)
    said = []
    for one in found:
        style: dict[str, Any] = {
            "color": _COLOR[one.way],
            "marker": _MARKER[one.way],
            "markersize": 2.6,
            "linestyle": "",
        }
        variance, law, crossed = one.found.variance, one.law, one.found.crossed(one.way)
        waiting = one.found.eligible(one.way) & ~crossed
        axes.plot(variance[crossed], one.found.time[crossed], alpha=0.7, **style)
        held = np.full(int(waiting.sum()), _WAITING * one.last_step)
        axes.plot(variance[waiting], held, alpha=0.5, fillstyle="none", **style)
        said.append(f"{one.way}: {one.crossed} crossed")
        if law.determinable:
            ends = np.array([variance[crossed].min(), variance[crossed].max()])
            axes.plot(ends, law.prefactor * ends**-law.exponent, color="black", linewidth=1)
            half = (law.high - law.low) / 2
            said[-1] = f"{one.way}: $\\alpha$ {law.exponent:z.2f} $\\pm$ {half:.2f},\n{one.verdict}"
    modes = found[0].found
    gray = modes.variance[modes.status == STATUS.index("gray zone")]
    if len(gray) and gray.min() > 0:
        axes.axvspan(gray.min(), gray.max(), color="0.92", zorder=0)
    axes.text(0.03, 0.03, "\n".join(said), transform=axes.transAxes, fontsize=6.5)


def _exponent(found: Mapping[str, Any]) -> Figure:
    """Exponents with their intervals on the left, errors of the overlay on the right; one line per step."""
    figure = Figure(figsize=(10, 6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[2, 1])
    rungs = found["rungs"]
    places = {key: -i - (0.6 if rung.step in CHANGES else 0.0) for i, (key, rung) in enumerate(rungs.items())}
    for criterion, shift in zip(CRITERIA, (0.14, -0.14), strict=True):
        common = found["by"][criterion]["common"]
        for key, rung in rungs.items():
            law, at = rung.measured(criterion, modes=common), places[key] + shift
            if not law.determinable:
                text = f"no exponent: {law.reason}" if shift > 0 else ""
                left.text(0.02, places[key], text, fontsize=7, color="0.4")
                continue
            half = [[law.exponent - law.low], [law.high - law.exponent]]
            left.errorbar(law.exponent, at, xerr=half, fmt="o", color=_COLOR[criterion], markersize=4.5, capsize=2)
            theory = rung.theory(criterion, common) or rung.overlay(criterion, common)
            if theory is not None and theory.determinable:
                mark = "+" if rung.dynamics is None else "x"
                left.plot(theory.exponent, at, mark, color="0.15", markersize=6, markeredgewidth=1.2, zorder=3)
        left.plot([], [], "o", color=_COLOR[criterion], label=f"{criterion} threshold")
    left.plot([], [], "x", color="0.15", label="theory of the step")
    left.plot([], [], "+", color="0.15", label="overlay, if the step has no theory")
    left.set_xlim(left=0)
    right.plot(
        [r.about["goodness_of_fit"]["rms"] for r in rungs.values()],
        list(places.values()),
        "s",
        color="0.2",
        label="overlay",
    )
    nothing = [r.about["goodness_of_fit"]["baseline"] for r in rungs.values()]
    right.plot(
        nothing, list(places.values()), "|", color="0.55", markersize=9, markeredgewidth=1.6, label="nothing learnt"
    )
    right.set_xscale("log")
    for axes in (left, right):
        axes.axhline((places["mlp"] + places[CHANGES[0].key]) / 2, color="0.75", linewidth=0.8)
        axes.grid(axis="x", color="0.92")
        axes.legend(fontsize=7.5, framealpha=0.9)
    steps = [rung.step for rung in rungs.values()]
    names = [f"{'' if step is LADDER[0] else '+ ' if step in LADDER else 'MLP, '}{step.short}" for step in steps]
    left.set_yticks(list(places.values()), names)
    left.set_xlabel("exponent of the rising modes common to all steps to the MLP, 95 %")
    left.set_title("One change at a time; below the line: away from the MLP", loc="left", fontsize=10)
    right.set_xlabel("rms error of log variance")
    right.set_title("What the overlay misses", loc="left", fontsize=10)
    return figure


def _predictions(found: Mapping[str, Any]) -> Figure:
    """Variances exchanged, data whitened, shares of a class."""
    figure = Figure(figsize=(10, 3.9), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    _exchanged(left, found["swaps"])
    _whitened(middle, found["white"]["modes"])
    _shares(right, found["classes"])
    return figure


def _exchanged(axes: Axes, swaps: Mapping[str, Any]) -> None:
    for marker, data in zip("os", swaps.values(), strict=True):
        before, after = data["measured"].before, data["measured"].after
        for side, color in enumerate((_RED, _BLUE)):
            axes.plot(before[:, side], after[:, side], marker, color=color, markersize=4, alpha=0.8)
            # Where the direction would be if it took over the time of the other.
            axes.plot(before[:, side], before[:, 1 - side], "+", color="0.2", markersize=6)
    _plain_log(axes, "xy")
    low, high = min(axes.get_xlim()[0], axes.get_ylim()[0]), max(axes.get_xlim()[1], axes.get_ylim()[1])
    axes.plot([low, high], [low, high], "-", color=_GRAY, linewidth=1)
    handles = [
        _entry(color=_RED, marker="o", label="had the larger variance"),
        _entry(color=_BLUE, marker="o", label="had the smaller variance"),
        _entry(color="0.2", marker="+", label="times exchanged exactly"),
        Line2D([], [], color=_GRAY, linewidth=1, label="times unchanged"),
        *(_entry(color=_GRAY, marker=marker, label=name) for marker, name in zip("os", swaps, strict=True)),
    ]
    axes.legend(handles=handles, fontsize=6.5, framealpha=0.85)
    axes.set_xlabel("emergence of a direction, updates")
    axes.set_ylabel("the same direction, variances exchanged")
    axes.set_title("Exchanged variances", loc="left", fontsize=10)


def _whitened(axes: Axes, found: Mapping[str, Sequence[ModeEmergence]]) -> None:
    for edit, name, color in (("plain", "variances 4/k^0.75", _BLUE), ("white", "whitened", _RED)):
        for number, one in enumerate(found[edit]):
            time = np.sort(one.time[one.crossed("rising")])
            share = np.arange(1, len(time) + 1) / max(len(time), 1)
            axes.plot(time, share, drawstyle="steps-post", color=color, linewidth=1.2, label="" if number else name)
    _plain_log(axes, "x")
    axes.set_xlabel("updates")
    axes.set_ylabel("share of the modes that have emerged")
    axes.legend(fontsize=7, framealpha=0.85)
    axes.set_title("White data", loc="left", fontsize=10)


def _shares(axes: Axes, found: Mapping[str, Any]) -> None:
    ratios: Mapping[float, Estimate] = found["ratios"]
    known = {share: one for share, one in ratios.items() if one.determinable}
    value = np.array([one.value for one in known.values()])
    ends = np.array([[one.value - one.low, one.high - one.value] for one in known.values()]).reshape(-1, 2).T
    ends = np.where(np.isfinite(ends), ends, 0)
    axes.errorbar(list(known), value, ends, fmt="o", color=_RED, label="measured [95 %]")
    bounds, theory = found["bounds"], found["theory"]
    if bounds:
        axes.plot(list(bounds), list(bounds.values()), "^", color=_RED, fillstyle="none", label="above this")
    axes.plot(list(theory), list(theory.values()), "--", color=_BLUE, label="classes learnt independently")
    axes.axhline(1, color=_GRAY, linewidth=1)
    _plain_log(axes, "xy")
    axes.invert_xaxis()
    axes.set_xticks(list(ratios), [f"{share:g}" for share in ratios])
    axes.set_xlabel("share of the class of higher variance")
    axes.set_ylabel("its median emergence over the other's")
    axes.legend(fontsize=7, framealpha=0.85)
    axes.set_title("Classes out of balance", loc="left", fontsize=10)


def _plain_log(axes: Axes, which: str) -> None:
    """Logarithmic axes with plain numbers that do not crowd."""
    for name in which:
        getattr(axes, f"set_{name}scale")("log")
        axis = getattr(axes, f"{name}axis")
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_locator(NullLocator())


FIGURES: dict[str, Callable[[Mapping[str, Any]], Figure]] = {
    "gaussian": _gaussian,
    "patches": _orders,
    "images": _orders,
    "exponent": _exponent,
    "predictions": _predictions,
}
"""Draws a study from what the page says of it."""
