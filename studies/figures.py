"""The figures of the page, one per study."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter
from PIL import Image

from spectral_lightning.emergence import STATUS
from spectral_lightning.spectra.files import replacing
from studies.exponents import CHANGES, CRITERIA, LADDER
from studies.statistics import WAYS, Ordering
from studies.trainings import NAMES

__all__ = ["FIGURES", "save"]

Found = Mapping[str, Any]

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


def _named(axes: Axes, title: str, x: str, y: str = "") -> None:
    """Title on the left and names of the axes."""
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def _entry(**style: Any) -> Line2D:
    """A marker for a legend."""
    return Line2D([], [], **{"linestyle": "", "markersize": 4, **style})


def _grid(rows: Mapping[Any, str], columns: Mapping[Any, str], draw: Callable[[Axes, Any, Any], None]) -> Figure:
    """Emergence against variance, one panel for each row and column."""
    figure = Figure(figsize=(10 if len(columns) > 2 else 9, 6), layout="constrained")
    grid = figure.subplots(len(rows), len(columns), sharex=True, sharey=True, squeeze=False)
    for i, (row, row_name) in enumerate(rows.items()):
        for j, (column, name) in enumerate(columns.items()):
            draw(grid[i, j], row, column)
            grid[0, j].set_title(name, fontsize=10)
            grid[-1, j].set_xlabel("variance of the mode", fontsize=9)
        grid[i, 0].set_ylabel(f"{row_name}\nemergence, updates", fontsize=9)
    return figure


def _gaussian(found: Found) -> Figure:
    """A column for each dimension, a row for each criterion, a marker for each seed."""

    def draw(axes: Axes, criterion: str, dim: int) -> None:
        _seeds(axes, {way: found["cases"][dim, way, criterion] for way in WAYS})

    return _grid({c: f"{c} threshold" for c in CRITERIA}, {dim: f"d = {dim}" for dim in found["seeds"]}, draw)


def _seeds(axes: Axes, cases: Mapping[str, Found]) -> None:
    for way, case in cases.items():
        shown = ", ".join(
            f"{law.exponent:.2f}" if law.determinable else "curved" if law.local else "-" for law in case["measured"]
        )
        for number, one in enumerate(case["compared"]):
            crossed, label = one.measured.crossed(way), f"{way}: $\\alpha$ = {shown}" if number == 0 else None
            x, y = one.measured.variance[crossed], one.measured.time[crossed]
            axes.plot(x, y, "o^s"[number], color=_COLOR[way], markersize=3, alpha=0.7, label=label)
    first = cases["rising"]["compared"][0]
    if first.predicted is not None:
        # The theory may have a mode at its threshold from the start.
        both = (first.common("rising") | first.common("falling")) & (first.predicted.time > 1)
        x, y = first.predicted.variance[both], first.predicted.time[both]
        axes.plot(x, y, ".", color="0.35", markersize=2.5, label="theory, first seed")
    axes.loglog()
    axes.legend(fontsize=7.5, loc="lower left", framealpha=0.8)


def _orders(rows: str, columns: Sequence[str], found: Found) -> Figure:
    """The orders of a study with fitted lines."""
    networks = {key: NAMES["networks"][key] for key in columns}
    figure = _grid(NAMES[rows], networks, lambda axes, row, column: _order(axes, found["panels"][row, column]))
    marks = [_entry(label=way, marker=_MARKER[way], color=_COLOR[way]) for way in WAYS]
    waits = _entry(label="not yet", marker="v", color="0.4", fillstyle="none")
    never = _entry(label="never", marker="x", color="0.4")
    line = _entry(label="fitted law", linestyle="-", color="black", linewidth=1)
    figure.legend(handles=[*marks, waits, never, line], loc="outside upper center", ncols=5, fontsize=8, frameon=False)
    return figure


def _order(axes: Axes, found: Sequence[Ordering]) -> None:
    axes.loglog()
    axes.tick_params(labelsize=7)
    said = []
    for one in found:
        style: dict[str, Any] = {
            "color": _COLOR[one.way],
            "marker": _MARKER[one.way],
            "linestyle": "",
            "markersize": 2.6,
        }
        variance, law, crossed = one.found.variance, one.law, one.found.crossed(one.way)
        waiting, never = one.found.able(one.way) & ~crossed, one.found.eligible(one.way) & ~one.found.able(one.way)
        axes.plot(variance[crossed], one.found.time[crossed], alpha=0.7, **style)
        held = np.full(int(waiting.sum()), _WAITING * one.last_step)
        axes.plot(variance[waiting], held, alpha=0.5, fillstyle="none", **style)
        held = np.full(int(never.sum()), _WAITING * one.last_step)
        axes.plot(variance[never], held, alpha=0.5, **style | {"marker": "x"})
        said.append(f"{one.way}: {law.count} of {law.total} crossed")
        if law.determinable:
            ends = np.array([variance[crossed].min(), variance[crossed].max()])
            axes.plot(ends, law.prefactor * ends**-law.exponent, color="black", linewidth=1)
            half = (law.high - law.low) / 2
            said[-1] = f"{one.way}: $\\alpha$ {law.exponent:z.2f} $\\pm$ {half:.2f},\n{one.verdict}"
        elif law.local:
            small, large = law.local
            said[-1] = f"{one.way}: curved, $\\alpha$ {small.exponent:z.2f} to {large.exponent:z.2f},\n{one.verdict}"
    modes = found[0].found
    gray = modes.variance[modes.status == STATUS.index("gray zone")]
    if len(gray) and gray.min() > 0:
        axes.axvspan(gray.min(), gray.max(), color="0.92", zorder=0)
    axes.text(0.03, 0.03, "\n".join(said), transform=axes.transAxes, fontsize=6.5)


def _exponent(found: Found) -> Figure:
    """Exponents with their intervals on the left, errors of the overlay on the right; one line per step."""
    figure = Figure(figsize=(10, 6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[2, 1])
    names = {key: f"+ {short}" for key, (short, _) in LADDER.items()} | {"linear": "linear"}
    names |= {key: f"MLP, {short}" for key, (short, _) in CHANGES.items()}
    places = {key: -i - (0.6 if key in CHANGES else 0.0) for i, key in enumerate(names)}
    for criterion, shift in zip(CRITERIA, (0.14, -0.14), strict=True):
        common = found["by"][criterion]["common"]
        for key, rung in found["by"][criterion]["rungs"].items():
            law, at = rung.measured(common), places[key] + shift
            if not law.determinable:
                text = f"no exponent: {law.reason}" if shift > 0 else ""
                left.text(0.02, places[key], text, fontsize=7, color="0.4")
                continue
            half = [[law.exponent - law.low], [law.high - law.exponent]]
            left.errorbar(law.exponent, at, xerr=half, fmt="o", color=_COLOR[criterion], markersize=4.5, capsize=2)
            theory = rung.theory(common) or rung.overlay(common)
            if theory is not None and theory.determinable:
                mark = "+" if rung.table is None else "x"
                left.plot(theory.exponent, at, mark, color="0.15", markersize=6, markeredgewidth=1.2, zorder=3)
        left.plot([], [], "o", color=_COLOR[criterion], label=f"{criterion} threshold")
    left.plot([], [], "x", color="0.15", label="theory of the step")
    left.plot([], [], "+", color="0.15", label="overlay, if the step has no theory")
    left.set_xlim(left=0)
    fits, rows = [rung.stored.overlay["goodness_of_fit"] for rung in found["rungs"].values()], list(places.values())
    right.plot([fit["rms"] for fit in fits], rows, "s", color="0.2", label="overlay")
    style: dict[str, Any] = {"color": "0.55", "markersize": 9, "markeredgewidth": 1.6, "label": "unchanged variances"}
    right.plot([fit["baseline"] for fit in fits], rows, "|", **style)
    right.set_xscale("log")
    for axes in (left, right):
        axes.axhline((places["mlp"] + places["mlp_sgd"]) / 2, color="0.75", linewidth=0.8)
        axes.grid(axis="x", color="0.92")
    figure.legend(loc="outside upper center", ncols=6, fontsize=8, frameon=False)
    left.set_yticks(rows, list(names.values()))
    about = "exponent of the rising modes common to all steps to the MLP, 95 %"
    _named(left, "One change at a time; below the line: away from the MLP", about)
    _named(right, "Error of the overlay", "rms error of log variance")
    return figure


def _predictions(found: Found) -> Figure:
    """Variances exchanged, data whitened, shares of a class."""
    figure = Figure(figsize=(10, 3.9), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    _exchanged(left, found["swaps"])
    _whitened(middle, found["white"]["rows"])
    _shares(right, found["classes"])
    return figure


def _exchanged(axes: Axes, swaps: Found) -> None:
    for marker, data in zip("os", swaps.values(), strict=True):
        before, after = data["measured"]["before"], data["measured"]["after"]
        for side, color in enumerate((_RED, _BLUE)):
            axes.plot(before[:, side], after[:, side], marker, color=color, markersize=4, alpha=0.8)
            # Where the direction would be if it emerged at the other's time.
            axes.plot(before[:, side], before[:, 1 - side], "+", color="0.2", markersize=6)
    _plain_log(axes, "xy")
    low, high = min(axes.get_xlim()[0], axes.get_ylim()[0]), max(axes.get_xlim()[1], axes.get_ylim()[1])
    axes.plot([low, high], [low, high], "-", color=_GRAY, linewidth=1)
    handles = [
        _entry(color=_RED, marker="o", label="had the larger variance"),
        _entry(color=_BLUE, marker="o", label="had the smaller variance"),
        _entry(color="0.2", marker="+", label="times exchanged exactly"),
        _entry(color=_GRAY, linestyle="-", linewidth=1, label="times unchanged"),
        *(_entry(color=_GRAY, marker=marker, label=name) for marker, name in zip("os", swaps, strict=True)),
    ]
    axes.legend(handles=handles, fontsize=6.5, framealpha=0.85)
    _named(axes, "Exchanged variances", "emergence of a direction, updates", "the same direction, variances exchanged")


def _whitened(axes: Axes, rows: Mapping[str, Sequence[Found]]) -> None:
    for edit, name, color in (("plain", "variances 4/k^0.75", _BLUE), ("white", "whitened", _RED)):
        for number, row in enumerate(rows[edit]):
            time = np.sort(row["time"][np.isfinite(row["time"])])
            share = np.arange(1, len(time) + 1) / max(len(time), 1)
            axes.plot(time, share, drawstyle="steps-post", color=color, linewidth=1.2, label="" if number else name)
    _plain_log(axes, "x")
    axes.legend(fontsize=7, framealpha=0.85)
    _named(axes, "White data", "updates", "share of the modes that have emerged")


def _shares(axes: Axes, found: Found) -> None:
    known = {share: one for share, one in found["ratios"].items() if one.determinable}
    value = np.array([one.value for one in known.values()])
    ends = np.array([[one.value - one.low, one.high - one.value] for one in known.values()]).reshape(-1, 2).T
    axes.errorbar(
        list(known), value, np.where(np.isfinite(ends), ends, 0), fmt="o", color=_RED, label="measured [95 %]"
    )
    bounds, theory = found["bounds"], found["theory"]
    if bounds:
        axes.plot(list(bounds), list(bounds.values()), "^", color=_RED, fillstyle="none", label="above this")
    axes.plot(list(theory), list(theory.values()), "--", color=_BLUE, label="classes learnt independently")
    axes.axhline(1, color=_GRAY, linewidth=1)
    _plain_log(axes, "xy")
    axes.invert_xaxis()
    axes.set_xticks(list(theory), [f"{share:g}" for share in theory])
    axes.legend(fontsize=7, framealpha=0.85)
    about = "share of the class of higher variance", "its median emergence over the other's"
    _named(axes, "Classes out of balance", *about)


def _plain_log(axes: Axes, which: str) -> None:
    """Logarithmic axes with plain numbers that do not crowd."""
    for name in which:
        getattr(axes, f"set_{name}scale")("log")
        axis = getattr(axes, f"{name}axis")
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_locator(NullLocator())


FIGURES: dict[str, Callable[[Found], Figure]] = {
    "gaussian": _gaussian,
    "patches": partial(_orders, "bases", tuple(NAMES["networks"])),
    "images": partial(_orders, "images", ("mlp", "unet")),
    "exponent": _exponent,
    "predictions": _predictions,
}
"""Draws a study from its results."""
