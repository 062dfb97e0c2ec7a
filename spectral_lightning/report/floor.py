"""The figure of the loss over its linear floor."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from numpy.typing import NDArray

from spectral_lightning.report.ratio import training_ratio
from spectral_lightning.spectra import SpectralHistory

__all__ = ["floor_figure"]

Array = NDArray[np.float64]

_RANGE = 4.0  # largest ratio, and inverse of the smallest, that colours distinguish
_HELD_OUT, _CLASS, _TRAINING = "#1b6b4a", "#7a4fa3", "#c77f1a"


def floor_figure(history: SpectralHistory) -> Figure:
    """Loss over its linear floor by noise level and step as heat maps, and against noise level at the last step.

    Blue is below 1: the denoiser knows more than mean and covariance. Red is above 1. The upper heat map shows held-out
    data, the lower one the training's own passes, which memorisation lowers too; one that holds nothing is left out.

    Args:
        history: a measurement with the field ``bins``.
    """
    kinds = [
        kind
        for kind, field in (("held-out data", "over_floor"), ("training passes", "training_error"))
        if field in history
    ]
    maps = {kind: found for kind in kinds if np.isfinite((found := _map(history, kind))[1]).any()}
    figure = Figure(figsize=(11, 5.2))
    norm, shades = LogNorm(1 / _RANGE, _RANGE), matplotlib.colormaps["RdBu_r"]
    ends = [edge for levels, _ in maps.values() for edge in _edges(levels)[[0, -1]]]
    height = (0.76 - 0.1 * (len(maps) - 1)) / max(len(maps), 1)
    for place, (kind, (levels, ratio)) in enumerate(maps.items()):
        axes = figure.add_axes((0.065, 0.11 + (len(maps) - 1 - place) * (height + 0.1), 0.41, height))
        x, y = _edges_of_steps(history.steps), _edges(levels)
        axes.set_facecolor("0.92")
        axes.pcolormesh(x, y, np.ma.masked_invalid(ratio.T), norm=norm, cmap=shades)
        axes.set_yscale("log")
        axes.set_ylim(min(ends), max(ends))
        _step_axis(axes, x)
        axes.set_ylabel("noise level $\\sigma$")
        axes.set_title(_TITLES[kind], loc="left", fontsize=10)
        if place == len(maps) - 1:
            axes.set_xlabel("optimizer updates (0, then logarithmic)")
    bar = figure.add_axes((0.49, 0.11, 0.014, 0.76))
    ticks = [0.25, 0.5, 0.75, 1, 1.5, 2, 4]
    colours = figure.colorbar(ScalarMappable(norm, shades), cax=bar, extend="both", label="loss / linear floor")
    colours.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    bar.yaxis.set_minor_locator(NullLocator())
    _profile(figure.add_axes((0.62, 0.11, 0.36, 0.76)), history)
    figure.text(0.065, 0.945, "What the denoiser knows beyond mean and covariance", fontsize=12)
    return figure


_TITLES = {
    "held-out data": "held-out data",
    "training passes": "training passes (memorisation lowers them too)",
}


def _map(history: SpectralHistory, kind: str) -> tuple[Array, Array]:
    """Levels, ascending, and ratios ``[step, level]``."""
    if kind == "held-out data":
        order = np.argsort(history["levels"])
        return history["levels"][order], history["over_floor"][:, order]
    ratio = training_ratio(history["training_error"], history["training_linear_error"], history["training_count"])
    seen = np.flatnonzero(np.isfinite(ratio).any(0))
    span = slice(seen[0], seen[-1] + 1) if len(seen) else slice(0, 2)
    return history["bins"][span], ratio[:, span]


def _profile(axes: Axes, history: SpectralHistory) -> None:
    """The last measurement against noise level."""
    row, low, high = history.row(-1), 0.9, 1.1
    axes.axhline(1, color="0.35", linewidth=1)

    def draw(levels: Array, ratio: Array, deviation: Array | None, style: str, color: str, label: str) -> None:
        nonlocal low, high
        shown = np.isfinite(ratio)
        if shown.any():
            error: Any = None if deviation is None else 1.96 * deviation[shown]
            axes.errorbar(
                levels[shown], ratio[shown], error, fmt=style, color=color, markersize=5, capsize=2.5, label=label
            )
            low, high = min(low, float(ratio[shown].min())), max(high, float(ratio[shown].max()))

    ratio = training_ratio(row["training_error"], row["training_linear_error"], row["training_count"])
    draw(history["bins"], ratio, None, "-", _TRAINING, "training passes")
    if "over_floor" in row:
        draw(history["levels"], row["over_floor"], row["over_floor_error"], "o", _HELD_OUT, "held-out data")
    if "over_class_floor" in row:
        label = "held-out data, floor within classes"
        draw(history["levels"], row["over_class_floor"], row["over_class_floor_error"], "s", _CLASS, label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(max(low, 1e-2) / 1.25, min(high, 30) * 1.25)
    axes.yaxis.set_major_locator(FixedLocator([0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10, 20]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("noise level $\\sigma$")
    axes.set_ylabel("loss / linear floor")
    axes.set_title(f"at step {int(row['step'])}, with 95 % intervals", loc="left", fontsize=10)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, loc="best", framealpha=0.85)


def _step_axis(axes: Axes, edges: Array) -> None:
    axes.set_xscale("symlog", linthresh=1, linscale=0.4)
    axes.set_xlim(edges[0], edges[-1])


def _edges_of_steps(steps: NDArray[np.int64]) -> Array:
    """Boundaries between steps: halfway in the logarithm, and at 1/2 below step 1."""
    x = np.maximum(steps.astype(np.float64), 0.5**2)
    inner = np.sqrt(x[1:] * x[:-1])
    return np.array([0.0, *inner, max(x[-1], 1.0) * (1.15 if len(x) > 1 else 1.0)])


def _edges(levels: Array) -> Array:
    """Boundaries between levels, halfway in the logarithm."""
    log = np.log(levels)
    middle = (log[1:] + log[:-1]) / 2
    half = (middle[0] - log[0], log[-1] - middle[-1]) if len(middle) else (0.3, 0.3)
    return np.exp([log[0] - half[0], *middle, log[-1] + half[1]])
