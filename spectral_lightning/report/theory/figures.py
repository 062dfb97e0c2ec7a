"""Figures of the theory with the tables of what they draw: weights, generated variances and emergence times."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from spectral_lightning.report.files import write_csv
from spectral_lightning.report.theory.curves import WAYS, Criterion, ModeTimes, TheoryCurves, criterion_name

__all__ = [
    "CURVE_COLUMNS",
    "EMERGENCE",
    "TIME",
    "TheoryFigure",
    "curve_rows",
    "curves_figure",
    "draw_modes",
    "draw_variance",
    "emergence_grid",
    "name_axes",
    "panel_grid",
]

Array = NDArray[np.float64]
Row = Sequence[Any]

CURVE_COLUMNS = ("family", "quantity", "level", "variance", "time", "value")
EMERGENCE_COLUMNS = ("family", "criterion", "variance", "initial", "target", "direction", "time")
TIME = "training time $\\tau$, gradient-flow steps"
EMERGENCE = "emergence time $\\tau^*$, steps"
_COLUMNS, _DPI = 3, 110
_LOOK = {"rising": ("^", "#b2432f"), "falling": ("v", "#2b5c8a")}


@dataclass(frozen=True)
class TheoryFigure:
    """A figure with the tables of what it draws.

    Attributes:
        figure: the drawing.
        tables: columns and rows by the ending of the file's name.
    """

    figure: Figure
    tables: Mapping[str, tuple[Row, Iterable[Row]]]

    def save(self, directory: Path, name: str) -> list[Path]:
        """Write ``name.png`` and ``name_TABLE.csv``; return the paths, the figure's first."""
        directory.mkdir(parents=True, exist_ok=True)
        paths = [directory / f"{name}.png"]
        self.figure.savefig(paths[0], dpi=_DPI)
        for ending, (columns, rows) in self.tables.items():
            paths.append(directory / f"{name}_{ending}.csv")
            write_csv(paths[-1], columns, rows)
        return paths


def curves_figure(
    families: Sequence[TheoryCurves], title: str, criteria: Sequence[Criterion], text: str = "", num_times: int = 200
) -> TheoryFigure:
    """For each family its weights, one panel per level, its generated variances and its emergence times.

    Args:
        families: on one spectrum.
        title: of the figure.
        criteria: of emergence; the first is drawn, and times extend beyond the emergence by each of them.
        text: printed below the title.
        num_times: number of training times.
    """
    panels = sum(len(curves.weights) + 2 for curves in families)
    variance = np.concatenate([curves.variance for curves in families])
    figure, grid, color = panel_grid(-(-panels // _COLUMNS), _COLUMNS, variance, title)
    axes, rows, emerged = iter(grid), list[Row](), list[Row]()
    for curves in families:
        times = [curves.times(criterion) for criterion in criteria]
        time, name = curves.span(times, num_times), f"{curves.label}: " if len(families) > 1 else ""
        for level, weight in curves.weights.items():
            panel, table = next(axes), weight(time)[:, curves.modes]
            draw_modes(panel, curves, time, table, weight(np.inf)[curves.modes], color)
            head = f"{name}weight at " + level.replace("sigma", r"$\sigma$")
            name_axes(panel, head, ylabel=f"gain of the {curves.model} on the mode")
            rows += curve_rows(curves.label, "weight", level, curves.variance, time, table)
        rows += draw_variance(next(axes), curves, time, color, name)
        _draw_emergence(next(axes), times[0], f"{name}emergence, {criterion_name(criteria[0])}")
        emerged += [row for entry in times for row in _emergence_rows(curves, entry)]
    for panel in axes:
        panel.set_axis_off()
    figure.text(0.01, 0.96, text, fontsize=6.5, va="top", color="0.35")
    return TheoryFigure(figure, {"curves": (CURVE_COLUMNS, rows), "emergence": (EMERGENCE_COLUMNS, emerged)})


def emergence_grid(
    rows: Sequence[tuple[str, Criterion, Sequence[tuple[str, TheoryCurves]]]], title: str
) -> TheoryFigure:
    """Emergence time against variance in a table of panels.

    Args:
        rows: the name of each row, its criterion and its panels, each a title and the family.
        title: of the figure.
    """
    width = max(len(panels) for *_, panels in rows)
    inches = 2.9 * width + 0.5, 2.5 * len(rows) + 0.6
    figure = Figure(figsize=inches)
    edges = {"left": 0.9 / inches[0], "right": 1 - 0.1 / inches[0]}
    edges |= {"bottom": 0.5 / inches[1], "top": 1 - 0.65 / inches[1], "wspace": 0.05, "hspace": 0.18}
    grid = figure.subplots(len(rows), width, squeeze=False, sharex=True, sharey=True, gridspec_kw=edges)
    table: list[Row] = []
    for line, (name, criterion, panels) in zip(grid, rows, strict=True):
        for axes, (head, curves) in zip(line, panels, strict=True):
            times = curves.times(criterion)
            _draw_emergence(axes, times, head)
            axes.label_outer()
            table += _emergence_rows(curves, times)
        line[0].set_ylabel(f"{name}\n{EMERGENCE}")
    figure.text(0.01, 0.985, title, fontsize=12, va="top")
    return TheoryFigure(figure, {"emergence": (EMERGENCE_COLUMNS, table)})


def panel_grid(
    rows: int, columns: int, variance: Array, title: str, of: str = "data along the mode"
) -> tuple[Figure, list[Axes], ScalarMappable]:
    """A figure with equal panels, row by row, a title and the colours of modes by variance, dark for large."""
    width, height = 4.4 * columns + 1.0, 3.6 * rows + 0.4
    # Fixed margins: a layout engine would draw everything twice, and drawing is most of a figure's cost.
    figure = Figure(figsize=(width, height))
    edges = {"left": 0.85 / width, "right": 1 - 1.15 / width, "bottom": 0.55 / height, "top": 1 - 0.7 / height}
    grid = figure.subplots(rows, columns, squeeze=False, gridspec_kw={**edges, "wspace": 0.3, "hspace": 0.34})
    bar = figure.add_axes((1 - 0.95 / width, edges["bottom"], 0.17 / width, edges["top"] - edges["bottom"]))
    low, high = float(variance.min()), float(variance.max())
    norm = LogNorm(low, high if high > low else 1.01 * low)
    color = ScalarMappable(norm, matplotlib.colormaps["viridis"].reversed())
    figure.colorbar(color, cax=bar, label=f"variance of the {of}, $\\lambda$")
    figure.text(0.01, 0.99, title, fontsize=12, va="top")
    return figure, list(grid.ravel()), color


def draw_modes(axes: Axes, curves: TheoryCurves, time: Array, table: Array, end: Array, color: ScalarMappable) -> None:
    """Draw a table ``[time, mode]``, one line per mode, with their ends marked on the right."""
    for k, lam in enumerate(curves.variance):
        shade = color.to_rgba(np.asarray(lam))
        axes.plot(time, table[:, k], color=shade, linewidth=1.2)
        axes.plot(1.015, end[k], "<", color=shade, markersize=4, clip_on=False, transform=axes.get_yaxis_transform())
    name = "gradient-descent steps" if curves.solved.objective.discrete else TIME
    axes.set(xscale="log", xlabel=name, xlim=(time[0], time[-1]))


def draw_variance(axes: Axes, curves: TheoryCurves, time: Array, color: ScalarMappable, name: str = "") -> list[Row]:
    """Draw the generated variance of every mode, with the end of learning on the right; return the rows drawn."""
    table = curves.generated(time)
    draw_modes(axes, curves, time, table, curves.ends()[1], color)
    head = f"{name}generated variance ($\\triangleleft$ target)"
    name_axes(axes, head, yscale="log", ylabel="variance of generated samples")
    return curve_rows(curves.label, "generated variance", "", curves.variance, time, table)


def curve_rows(label: str, quantity: str, level: str, variance: Array, time: Array, table: Array) -> list[Row]:
    """A table ``[time, mode]`` in rows of :data:`CURVE_COLUMNS`."""
    return [
        (label, quantity, level, lam, t, value)
        for k, lam in enumerate(variance)
        for t, value in zip(time, table[:, k], strict=True)
    ]


def name_axes(axes: Axes, title: str, legend: float | None = None, **settings: str) -> None:
    """Set the title of a panel, the names and scales of its axes, and the size of its legend."""
    axes.set(**settings)
    if legend is not None:
        axes.legend(fontsize=legend)
    axes.set_title(title, loc="left", fontsize=10)


def _emergence_rows(curves: TheoryCurves, times: ModeTimes) -> list[Row]:
    ways = [("gray zone", *WAYS)[way] for way in times.way]
    columns = zip(times.variance, *curves.ends(), ways, times.time, strict=True)
    return [(curves.label, criterion_name(times.criterion), *row) for row in columns]


def _draw_emergence(axes: Axes, times: ModeTimes, head: str) -> None:
    """Draw emergence time against variance, with the laws; modes of the gray zone are open circles."""
    known = np.isfinite(times.time) & (times.time > 0)
    gray = known & (times.way == 0)
    for way in WAYS:
        shown, law, (marker, color) = known & (times.way == WAYS[way]), times.law(way), _LOOK[way]
        if shown.any():
            label = f"{way}: $\\alpha$ = {law.exponent:z.2f}" if law.determinable else way
            axes.plot(times.variance[shown], times.time[shown], marker, color=color, markersize=4.5, label=label)
        if law.determinable:
            ends = np.array([times.variance[shown].min(), times.variance[shown].max()])
            axes.plot(ends, law.prefactor * ends**-law.exponent, "-", color=color, linewidth=1)
    if gray.any():
        points = times.variance[gray], times.time[gray]
        axes.plot(*points, "o", color="0.6", fillstyle="none", markersize=4, label="gray zone")
    name_axes(axes, head, xscale="log", yscale="log", xlabel="variance of the data, $\\lambda$", ylabel=EMERGENCE)
    if known.any():
        axes.legend(fontsize=7.5, loc="best", framealpha=0.8)
    else:
        axes.text(0.5, 0.5, "nothing emerges", transform=axes.transAxes, ha="center", color="0.4")
