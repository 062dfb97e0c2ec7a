"""Figures of a run, as ``matplotlib.figure.Figure`` objects without global state."""

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

from spectral_lightning.emergence import STATUS, PowerLaw
from spectral_lightning.prediction import Comparison
from spectral_lightning.spectra import SpectralHistory

__all__ = ["emergence_figure", "overlay_figure"]

Array = NDArray[np.float64]

_COLOR = {"rising": "#b2432f", "falling": "#2b5c8a"}
_MARKER = {"rising": "^", "falling": "v"}


def overlay_figure(
    history: SpectralHistory, prediction: SpectralHistory | None, modes: Sequence[int], text: str = ""
) -> Figure:
    """Variance of generated samples against optimizer updates, the prediction dashed, the targets on the right.

    Args:
        history: the measurement.
        prediction: the predicted history; None or empty draws the measurement alone.
        modes: the modes to draw, counted from 0.
        text: shown below the title.
    """
    # Fixed margins: a layout engine would draw everything twice, and drawing is most of a figure's cost.
    figure = Figure(figsize=(8.5, 5.6))
    axes, bar = figure.add_axes((0.085, 0.1, 0.76, 0.77)), figure.add_axes((0.872, 0.1, 0.02, 0.77))
    shown = history.target[list(modes)]
    color = ScalarMappable(LogNorm(shown.min(), shown.max()), matplotlib.colormaps["viridis"].reversed())
    end = max(float(history.steps[-1]), 1.0)
    for k, lam in zip(modes, shown, strict=True):
        shade = color.to_rgba(np.asarray(lam))
        axes.plot(history.steps, history.variance[:, k], "o-", color=shade, markersize=2.6, linewidth=0.9)
        if prediction is not None and len(prediction):
            axes.plot(prediction.steps, prediction.variance[:, k], "--", color=shade, linewidth=1.5)
        axes.plot(end * 1.25, history.fixed_point[k], marker="<", color=shade, markersize=5, clip_on=False)
    _step_axis(axes, end * 1.3)
    axes.set_yscale("log")
    axes.set_ylabel("variance of generated samples along the mode")
    figure.text(0.085, 0.955, "What has been learnt, mode by mode", fontsize=12)
    figure.text(0.085, 0.88, text, fontsize=7.5, color="0.35")
    handles = [Line2D([], [], color="0.3", marker="o", markersize=3, linewidth=0.9, label="measured")]
    if prediction is not None and len(prediction):
        handles.append(Line2D([], [], color="0.3", linestyle="--", linewidth=1.5, label="theory"))
    handles.append(
        Line2D([], [], color="0.3", marker="<", linestyle="", markersize=5, label="target (sampler's fixed point)")
    )
    axes.legend(handles=handles, loc="best", fontsize=8, framealpha=0.8)
    figure.colorbar(color, cax=bar, label="variance of the data along the mode")
    return figure


def emergence_figure(comparison: Comparison, last_step: int) -> Figure:
    """Emergence step against data variance on log-log axes, with the fitted laws; modes not yet crossed at the top.

    Args:
        comparison: measured and, if available, predicted emergence.
        last_step: step of the last measurement; modes not yet crossed are drawn just above it.
    """
    figure = Figure(figsize=(8.5, 5.6))
    axes = figure.add_axes((0.085, 0.1, 0.895, 0.83))
    measured = comparison.measured
    for way, color in _COLOR.items():
        crossed, waiting = measured.crossed(way), measured.eligible(way) & ~measured.crossed(way)
        law, marker = comparison.measured_law(way), _MARKER[way]
        if crossed.any():
            x, y = measured.variance[crossed], measured.time[crossed]
            label = f"{way}: $\\alpha$ = {law}" if law.determinable else f"{way}: {law}"
            axes.plot(x, y, marker, color=color, markersize=5, alpha=0.85, label=label)
            _line(axes, law, x, color, "-")
        if waiting.any():
            x, y = measured.variance[waiting], np.full(int(waiting.sum()), max(last_step, 1) * 1.3)
            axes.plot(x, y, marker, color=color, markersize=4, alpha=0.35, label=f"{way}, not yet crossed: {len(x)}")
        _draw_prediction(axes, comparison, way)
    gray = measured.variance[measured.status == STATUS.index("gray zone")]
    if len(gray) and gray.min() > 0:
        axes.axvspan(gray.min(), gray.max(), color="0.9", zorder=0, label=f"gray zone: {len(gray)} modes")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("variance of the data along the mode, $\\lambda$")
    axes.set_ylabel("emergence, optimizer updates")
    axes.set_title(
        f"When each mode emerged ({measured.criterion} threshold), by step {last_step}", loc="left", fontsize=12
    )
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, loc="best", framealpha=0.85)
    return figure


def _draw_prediction(axes: Axes, comparison: Comparison, way: str) -> None:
    predicted, law = comparison.predicted, comparison.predicted_law(way)
    if predicted is None or law is None or not predicted.crossed(way).any():
        return
    crossed = predicted.crossed(way)
    label = (
        f"theory, {way}: $\\alpha$ = {law.exponent:.2f} over {law.count} modes"
        if law.determinable
        else f"theory, {way}"
    )
    x, y = predicted.variance[crossed], predicted.time[crossed]
    axes.plot(x, y, _MARKER[way], color=_COLOR[way], markersize=5, fillstyle="none", alpha=0.5, label=label)
    _line(axes, law, predicted.variance[comparison.common(way)], _COLOR[way], ":")


def _line(axes: Axes, law: PowerLaw, variance: Array, color: str, style: str) -> None:
    if law.determinable:
        ends = np.array([variance.min(), variance.max()])
        axes.plot(ends, law.prefactor * ends**-law.exponent, style, color=color, linewidth=1.2)


def _step_axis(axes: Axes, end: float) -> None:
    axes.set_xscale("symlog", linthresh=1, linscale=0.4)
    axes.set_xlim(-0.1, end)
    axes.set_xlabel("optimizer updates (0, then logarithmic)")
