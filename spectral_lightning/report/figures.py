"""Figures of a run, as ``matplotlib.figure.Figure`` objects without global state."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from spectral_lightning.emergence import STATUS, EmergenceLaw, PowerLaw
from spectral_lightning.prediction import Comparison
from spectral_lightning.spectra import SpectralHistory

__all__ = ["emergence_figure", "gain_figure", "group_figure", "overlay_figure"]

Array = NDArray[np.float64]

_COLOR = {"rising": "#b2432f", "falling": "#2b5c8a"}
_MARKER = {"rising": "^", "falling": "v"}
_95 = 1.96
_FEW = 10  # classes that one set of discrete colours distinguishes
# Fixed margins: a layout engine would draw everything twice, and drawing is most of a figure's cost.
_WHOLE = (0.115, 0.1, 0.865, 0.83)
_WITH_BAR = ((0.085, 0.1, 0.76, 0.77), (0.872, 0.1, 0.02, 0.77))
_TWO_WITH_BAR = ((0.06, 0.115, 0.375, 0.8), (0.48, 0.115, 0.375, 0.8), (0.88, 0.115, 0.016, 0.8))


def overlay_figure(
    history: SpectralHistory, prediction: SpectralHistory | None, modes: Sequence[int], text: str = ""
) -> Figure:
    """Variance of generated samples against optimizer updates, the prediction dashed, the targets on the right.

    Dots are measurements. Lines connect them, or their smoothed values if each measures a slice of a block of latents.

    Args:
        history: the measurement.
        prediction: the predicted history; None or empty draws the measurement alone.
        modes: the modes to draw, counted from 0.
        text: shown below the title.
    """
    figure = Figure(figsize=(8.5, 5.6))
    axes, bar = (figure.add_axes(box) for box in _WITH_BAR)
    shown = history.target[list(modes)]
    color, end = _by_variance(shown), max(float(history.steps[-1]), 1.0)
    smooth = history.smoothed()
    for k, lam in zip(modes, shown, strict=True):
        shade = color.to_rgba(np.asarray(lam))
        axes.plot(history.steps, history.variance[:, k], "o", color=shade, markersize=2.6)
        axes.plot(smooth.steps, smooth.variance[:, k], "-", color=shade, linewidth=0.9)
        if prediction is not None and len(prediction):
            axes.plot(prediction.steps, prediction.variance[:, k], "--", color=shade, linewidth=1.5)
        axes.plot(end * 1.25, history.fixed_point[k], marker="<", color=shade, markersize=5, clip_on=False)
    _step_axis(axes, end)
    axes.set_yscale("log")
    axes.set_ylabel("variance of generated samples along the mode")
    figure.text(0.085, 0.955, "What has been learnt, mode by mode", fontsize=12)
    figure.text(0.085, 0.88, text, fontsize=7.5, color="0.35")
    label = "measured" if smooth is history else "measured; line smoothed over the slices of a block"
    handles = [_handle(label, marker="o", markersize=3, linewidth=0.9)]
    if prediction is not None and len(prediction):
        handles.append(_handle("theory", linestyle="--", linewidth=1.5))
    handles.append(_handle("target (sampler's fixed point)", marker="<", linestyle="", markersize=5))
    axes.legend(handles=handles, loc="best", fontsize=8, framealpha=0.8)
    figure.colorbar(color, cax=bar, label="variance of the data along the mode")
    return figure


def emergence_figure(comparison: Comparison, last_step: int) -> Figure:
    """Emergence step against data variance on log-log axes, with the fitted laws; modes that have not crossed at the top.

    Bars are 95 % intervals from the errors of the variances.

    Args:
        comparison: measured and, if available, predicted emergence.
        last_step: step of the last measurement; modes not yet crossed are drawn just above it.
    """
    figure = Figure(figsize=(8.5, 5.6))
    axes = figure.add_axes(_WHOLE)
    measured = comparison.measured
    for way, color in _COLOR.items():
        crossed, waiting = measured.crossed(way), measured.able(way) & ~measured.crossed(way)
        never = measured.eligible(way) & ~measured.able(way)
        law, marker = comparison.measured_law(way), _MARKER[way]
        if crossed.any():
            x, y = measured.variance[crossed], measured.time[crossed]
            spread = y * np.expm1(np.minimum(_95 * measured.error[crossed], 3.0))
            axes.errorbar(
                x, y, np.stack([y - y**2 / (y + spread), spread]), fmt="none", ecolor=color, elinewidth=0.6, alpha=0.5
            )
            label = _wrapped(f"{way}: $\\alpha$ = {law}" if law.determinable else f"{way}: {law}")
            axes.plot(x, y, marker, color=color, markersize=5, alpha=0.85, label=label)
            _line(axes, law, x, color, "-")
        for modes, shape, text in ((waiting, marker, "not yet crossed"), (never, "x", "stopped short, never will")):
            if modes.any():
                x, y = measured.variance[modes], np.full(int(modes.sum()), max(last_step, 1) * 1.3)
                axes.plot(x, y, shape, color=color, markersize=4, alpha=0.35, label=f"{way}, {text}: {len(x)}")
        _draw_prediction(axes, comparison, way)
    gray = measured.variance[measured.status == STATUS.index("gray zone")]
    if len(gray) and gray.min() > 0:
        axes.axvspan(gray.min(), gray.max(), color="0.9", zorder=0, label=f"gray zone: {len(gray)} modes")
    title = f"When each mode emerged ({measured.criterion} threshold), by step {last_step}"
    _emergence_axes(axes, "variance of the data along the mode, $\\lambda$", title)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, loc="best", framealpha=0.85)
    return figure


def group_figure(groups: Mapping[str, Comparison], last_step: int) -> Figure:
    """Emergence step against the variance of each class's data, one colour per class.

    Upward triangles are rising modes, downward triangles falling ones. The legend counts crossed and eligible modes.

    Args:
        groups: emergence of every class, by name.
        last_step: step of the last measurement.
    """
    figure = Figure(figsize=(8.5, 5.6))
    axes = figure.add_axes(_WHOLE)
    shades = matplotlib.colormaps["tab10" if len(groups) <= _FEW else "turbo"].resampled(max(len(groups), _FEW))
    handles = []
    for index, (name, comparison) in enumerate(groups.items()):
        measured, color = comparison.measured, shades(index)
        crossed = eligible = 0
        for way, marker in _MARKER.items():
            found = measured.crossed(way)
            crossed, eligible = crossed + int(found.sum()), eligible + int(measured.eligible(way).sum())
            if found.any():
                axes.plot(
                    measured.variance[found], measured.time[found], marker, color=color, markersize=4.5, alpha=0.8
                )
        text = f"class {name}: {crossed} of {eligible} modes"
        handles.append(Line2D([], [], color=color, marker="s", linestyle="", label=text))
    title = f"When each mode of each class emerged, by step {last_step}"
    _emergence_axes(axes, "variance of the class's data along the mode, $\\lambda$", title)
    axes.legend(handles=handles, fontsize=8, loc="best", framealpha=0.85, ncols=1 + (len(groups) > _FEW))
    return figure


def gain_figure(history: SpectralHistory, prediction: SpectralHistory | None, modes: Sequence[int]) -> Figure:
    """Gain of the denoiser along each mode: left, against noise level now; right, against steps at one noise level.

    The right panel uses the level nearest to the geometric mean of the modes' standard deviations.

    Args:
        history: a measurement with the field ``gain``.
        prediction: the predicted history; its gains, if any, are drawn dashed.
        modes: the modes to draw, counted from 0.
    """
    figure = Figure(figsize=(10.5, 4.8))
    now, over, bar = (figure.add_axes(box) for box in _TWO_WITH_BAR)
    levels, variance, gain = history["levels"], history.target[list(modes)], history["gain"]
    color, end = _by_variance(variance), max(float(history.steps[-1]), 1.0)
    level = int(np.abs(np.log(levels) - np.log(variance).mean() / 2).argmin())
    dense = np.geomspace(levels.min(), levels.max(), 200)
    predicted = prediction["gain"] if prediction is not None and "gain" in prediction else None
    for k, lam in zip(modes, variance, strict=True):
        shade = color.to_rgba(np.asarray(lam))
        now.plot(dense, lam / (lam + dense**2), color=shade, linewidth=0.7, alpha=0.6)
        now.plot(levels, gain[-1, :, k], "o", color=shade, markersize=3)
        over.plot(history.steps, gain[:, level, k], "o-", color=shade, markersize=2.6, linewidth=0.9)
        over.plot(end * 1.25, lam / (lam + levels[level] ** 2), "<", color=shade, markersize=5, clip_on=False)
        if predicted is not None and prediction is not None:
            now.plot(levels, predicted[-1, :, k], "--", color=shade, linewidth=1.3)
            over.plot(prediction.steps, predicted[:, level, k], "--", color=shade, linewidth=1.3)
    now.set_xscale("log")
    now.set_xlabel("noise level $\\sigma$")
    now.set_ylabel("gain of the denoiser along the mode, $\\psi$")
    now.set_title(f"at step {int(history.steps[-1])}", loc="left", fontsize=11)
    _step_axis(over, end)
    over.set_title(f"at $\\sigma$ = {levels[level]:.3g}", loc="left", fontsize=11)
    for axes in (now, over):
        axes.set_ylim(min(-0.05, float(gain.min()) * 1.05), max(1.05, float(gain[:, :, list(modes)].max()) * 1.05))
    handles = [
        _handle("measured", marker="o", linestyle="", markersize=4),
        _handle("exact, $\\lambda/(\\lambda+\\sigma^2)$", linewidth=0.7),
    ]
    if predicted is not None:
        handles.insert(1, _handle("theory", linestyle="--", linewidth=1.3))
    now.legend(handles=handles, loc="lower left", fontsize=8, framealpha=0.8)
    figure.colorbar(color, cax=bar, label="variance of the data along the mode")
    return figure


def _draw_prediction(axes: Axes, comparison: Comparison, way: str) -> None:
    predicted, law = comparison.predicted, comparison.predicted_law(way)
    if predicted is None or law is None or not predicted.crossed(way).any():
        return
    crossed = predicted.crossed(way)
    label = _wrapped(f"theory, {way}: $\\alpha$ = {law}" if law.determinable else f"theory, {way}")
    x, y = predicted.variance[crossed], predicted.time[crossed]
    axes.plot(x, y, _MARKER[way], color=_COLOR[way], markersize=5, fillstyle="none", alpha=0.5, label=label)
    _line(axes, law, predicted.variance[comparison.common(way)], _COLOR[way], ":")


def _line(axes: Axes, law: EmergenceLaw | PowerLaw, variance: Array, color: str, style: str) -> None:
    if law.determinable:
        ends = np.array([variance.min(), variance.max()])
        axes.plot(ends, law.prefactor * ends**-law.exponent, style, color=color, linewidth=1.2)


def _wrapped(text: str) -> str:
    """Lines that a legend has room for."""
    return textwrap.fill(text, 60)


def _emergence_axes(axes: Axes, variance: str, title: str) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(variance)
    axes.set_ylabel("emergence, optimizer updates")
    axes.set_title(title, loc="left", fontsize=12)


def _step_axis(axes: Axes, end: float) -> None:
    axes.set_xscale("symlog", linthresh=1, linscale=0.4)
    axes.set_xlim(-0.1, end * 1.3)
    axes.set_xlabel("optimizer updates (0, then logarithmic)")


def _by_variance(variance: Array) -> ScalarMappable:
    return ScalarMappable(LogNorm(variance.min(), variance.max()), matplotlib.colormaps["viridis"].reversed())


def _handle(label: str, **style: Any) -> Line2D:
    """Legend entry without a mode's colour."""
    return Line2D([], [], color="0.3", label=label, **style)
