"""Figures of the theory: weights, generated variances and emergence times of its families."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from spectral_lightning.emergence import PowerLaw
from spectral_lightning.report.theory.curves import WAYS, ModeTimes, TheoryCurves, criterion_name

__all__ = [
    "curves_figure",
    "draw_emergence",
    "draw_variance",
    "draw_weight",
    "emergence_grid",
    "panel_grid",
    "time_label",
    "variance_colors",
]

Array = NDArray[np.float64]

_COLUMNS = 3
_COLOR = {"rising": "#b2432f", "falling": "#2b5c8a"}
_MARKER = {"rising": "^", "falling": "v"}


def curves_figure(families: Sequence[TheoryCurves], title: str, text: str = "") -> Figure:
    """For each family its weights, one panel per noise level, its generated variances and its emergence times.

    Args:
        families: curves on one spectrum.
        title: of the figure.
        text: said below the title.
    """
    panels = [(curves, panel) for curves in families for panel in range(len(curves.levels) + 2)]
    figure, grid, bar = panel_grid(-(-len(panels) // _COLUMNS), _COLUMNS)
    color = variance_colors(np.concatenate([curves.variance for curves in families]))
    for axes, (curves, panel) in zip(grid, panels, strict=False):
        if panel < len(curves.levels):
            draw_weight(axes, curves, panel, color)
        elif panel == len(curves.levels):
            draw_variance(axes, curves, color)
        else:
            draw_emergence(axes, curves.times[0])
        if len(families) > 1:
            axes.set_title(f"{curves.label}: {axes.get_title(loc='left')}", loc="left", fontsize=10)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    figure.colorbar(color, cax=bar, label="variance of the data along the mode, $\\lambda$")
    figure.text(0.01, 0.99, title, fontsize=12, va="top")
    figure.text(0.01, 0.96, text, fontsize=6.5, va="top", color="0.35")
    return figure


def panel_grid(rows: int, columns: int) -> tuple[Figure, list[Axes], Axes]:
    """A figure with equal panels, row by row, and room for a colour bar on the right and a title above."""
    width, height = 4.4 * columns + 1.0, 3.6 * rows + 0.4
    # Fixed margins: a layout engine would draw everything twice, and drawing is what a figure costs.
    figure = Figure(figsize=(width, height))
    edges = {"left": 0.85 / width, "right": 1 - 1.15 / width, "bottom": 0.55 / height, "top": 1 - 0.7 / height}
    grid = figure.subplots(rows, columns, squeeze=False, gridspec_kw={**edges, "wspace": 0.3, "hspace": 0.34})
    bar = figure.add_axes((1 - 0.95 / width, edges["bottom"], 0.17 / width, edges["top"] - edges["bottom"]))
    return figure, list(grid.ravel()), bar


def emergence_grid(rows: Sequence[tuple[str, Sequence[tuple[str, ModeTimes]]]], title: str) -> Figure:
    """Emergence time against variance in a table of panels.

    Args:
        rows: name of each row and its panels, each a title and the emergence times of one family by one criterion.
        title: of the figure.
    """
    width = max(len(panels) for _, panels in rows)
    inches = 2.9 * width + 0.5, 2.5 * len(rows) + 0.6
    figure = Figure(figsize=inches)
    edges = {"left": 0.9 / inches[0], "right": 1 - 0.1 / inches[0]}
    edges |= {"bottom": 0.5 / inches[1], "top": 1 - 0.65 / inches[1], "wspace": 0.05, "hspace": 0.18}
    grid = figure.subplots(len(rows), width, squeeze=False, sharex=True, sharey=True, gridspec_kw=edges)
    for line, (name, panels) in zip(grid, rows, strict=True):
        for axes, (head, times) in zip(line, panels, strict=True):
            draw_emergence(axes, times, head)
            axes.label_outer()
        line[0].set_ylabel(f"{name}\nemergence time $\\tau^*$, steps")
    figure.text(0.01, 0.985, title, fontsize=12, va="top")
    return figure


def variance_colors(variance: Array) -> ScalarMappable:
    """The colours of modes by their variance, dark for large."""
    low, high = float(variance.min()), float(variance.max())
    return ScalarMappable(LogNorm(low, high if high > low else 1.01 * low), matplotlib.colormaps["viridis"].reversed())


def draw_weight(axes: Axes, curves: TheoryCurves, level: int, color: ScalarMappable) -> None:
    """Gain of every mode at one noise level, with the optimum on the right."""
    for k, lam in enumerate(curves.variance):
        shade = color.to_rgba(np.asarray(lam))
        axes.plot(curves.time, curves.weight[:, level, k], color=shade, linewidth=1.2)
        _end_mark(axes, curves.optimum[level, k], shade)
    _time_axis(axes, curves)
    axes.set_ylabel(f"gain of the {curves.model} on the mode")
    axes.set_title(f"weight at {curves.levels[level]}", loc="left", fontsize=10)


def draw_variance(axes: Axes, curves: TheoryCurves, color: ScalarMappable) -> None:
    """Generated variance of every mode, with what learning ends at on the right."""
    for k, lam in enumerate(curves.variance):
        shade = color.to_rgba(np.asarray(lam))
        axes.plot(curves.time, curves.generated[:, k], color=shade, linewidth=1.2)
        _end_mark(axes, curves.target[k], shade)
    _time_axis(axes, curves)
    axes.set_yscale("log")
    axes.set_ylabel("variance of generated samples")
    axes.set_title("generated variance ($\\triangleleft$ target)", loc="left", fontsize=10)


def draw_emergence(axes: Axes, times: ModeTimes, head: str = "") -> None:
    """Emergence time against variance, with the laws; modes of the gray zone are open circles."""
    known = np.isfinite(times.time) & (times.time > 0)
    gray = known & (times.way == 0)
    axes.plot(times.variance[gray], times.time[gray], "o", color="0.6", fillstyle="none", markersize=4)
    handles = []
    for way in WAYS:
        shown, law = known & times.chosen(way), times.law(way)
        axes.plot(times.variance[shown], times.time[shown], _MARKER[way], color=_COLOR[way], markersize=4.5)
        _draw_law(axes, law, times.variance[shown], _COLOR[way])
        if shown.any():
            label = f"{way}: $\\alpha$ = {law.exponent:z.2f}" if law.determinable else way
            handles.append(Line2D([], [], color=_COLOR[way], marker=_MARKER[way], markersize=4.5, label=label))
    if gray.any():
        handles.append(
            Line2D([], [], color="0.6", marker="o", fillstyle="none", linestyle="", markersize=4, label="gray zone")
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("variance of the data, $\\lambda$")
    axes.set_ylabel("emergence time $\\tau^*$, steps")
    axes.set_title(head or f"emergence, {criterion_name(times.criterion)}", loc="left", fontsize=10)
    if handles:
        axes.legend(handles=handles, fontsize=7.5, loc="best", framealpha=0.8)
    else:
        axes.text(0.5, 0.5, "nothing emerges", transform=axes.transAxes, ha="center", color="0.4")


def time_label(*, discrete: bool) -> str:
    """What the time axis shows."""
    return "gradient-descent steps" if discrete else "training time $\\tau$, gradient-flow steps"


def _draw_law(axes: Axes, law: PowerLaw, variance: Array, color: str) -> None:
    if law.determinable:
        ends = np.array([variance.min(), variance.max()])
        axes.plot(ends, law.prefactor * ends**-law.exponent, "-", color=color, linewidth=1)


def _end_mark(axes: Axes, value: float, shade: object) -> None:
    axes.plot(1.015, value, "<", color=shade, markersize=4, clip_on=False, transform=axes.get_yaxis_transform())


def _time_axis(axes: Axes, curves: TheoryCurves) -> None:
    axes.set_xscale("log")
    axes.set_xlim(curves.time[0], curves.time[-1])
    axes.set_xlabel(time_label(discrete=curves.discrete))
