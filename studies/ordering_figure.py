"""Emergence against variance for several trainings in several bases, on common axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from spectral_lightning.emergence import STATUS
from studies.ordering import Ordering

__all__ = ["ordering_figure"]

_COLOR = {"rising": "#b2432f", "falling": "#2b5c8a"}
_MARKER = {"rising": "^", "falling": "v"}
_WAITING = 1.5  # times the last step: where modes that have not crossed are drawn


def ordering_figure(
    panels: Mapping[tuple[str, str], Sequence[Ordering]],
    rows: Mapping[str, str],
    columns: Mapping[str, str],
    size: tuple[float, float] = (10, 6),
) -> Figure:
    """One panel per row and column: points, fitted lines, and in a corner the exponents and what they say.

    Args:
        panels: rising and falling modes by row and column.
        rows: their keys and what to call them.
        columns: their keys and what to call them.
        size: in inches.
    """
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(rows), len(columns), sharex=True, sharey=True, squeeze=False)
    for axes_of, (row, row_name) in zip(grid, rows.items(), strict=True):
        for axes, column in zip(axes_of, columns, strict=True):
            _panel(axes, panels[row, column])
        axes_of[0].set_ylabel(f"{row_name}\nemergence, updates", fontsize=9)
    for axes, name in zip(grid[0], columns.values(), strict=True):
        axes.set_title(name, fontsize=10)
    for axes in grid[-1]:
        axes.set_xlabel("variance of the mode", fontsize=9)
    figure.legend(handles=_handles(), loc="outside upper center", ncols=4, fontsize=8, frameon=False)
    return figure


def _panel(axes: Axes, found: Sequence[Ordering]) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.tick_params(labelsize=7)
    for one in found:
        _points(axes, one)
    of = found[0].found
    gray = of.variance[of.status == STATUS.index("gray zone")]
    if len(gray) and gray.min() > 0:
        axes.axvspan(gray.min(), gray.max(), color="0.92", zorder=0)
    axes.text(0.03, 0.03, "\n".join(_said(one) for one in found), transform=axes.transAxes, fontsize=6.5)


def _points(axes: Axes, one: Ordering) -> None:
    color, marker = _COLOR[one.way], _MARKER[one.way]
    crossed = one.found.crossed(one.way)
    waiting = one.found.eligible(one.way) & ~crossed
    axes.plot(one.found.variance[crossed], one.found.time[crossed], marker, color=color, markersize=2.6, alpha=0.7)
    held = np.full(int(waiting.sum()), _WAITING * one.last_step)
    axes.plot(one.found.variance[waiting], held, marker, color=color, markersize=2.6, alpha=0.5, fillstyle="none")
    if one.law.determinable:
        x = one.found.variance[crossed]
        ends = np.array([x.min(), x.max()])
        axes.plot(ends, one.law.prefactor * ends**-one.law.exponent, color="black", linewidth=1)


def _said(one: Ordering) -> str:
    if not one.law.determinable:
        return f"{one.way}: {one.crossed} crossed"
    half = (one.law.high - one.law.low) / 2
    return f"{one.way}: $\\alpha$ {one.law.exponent:z.2f} $\\pm$ {half:.2f},\n{one.verdict}"


def _handles() -> list[Line2D]:
    marks = [Line2D([], [], marker=_MARKER[w], color=_COLOR[w], linestyle="", markersize=4, label=w) for w in _COLOR]
    waits = Line2D([], [], marker="v", color="0.4", fillstyle="none", linestyle="", markersize=4, label="not yet")
    return [*marks, waits, Line2D([], [], color="black", linewidth=1, label="fitted law")]
