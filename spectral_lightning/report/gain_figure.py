"""Figure of the denoiser's gains, as a ``matplotlib.figure.Figure`` without global state."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from spectral_lightning.spectra import SpectralHistory

__all__ = ["gain_figure"]


def gain_figure(history: SpectralHistory, prediction: SpectralHistory | None, modes: Sequence[int]) -> Figure:
    """Gain of the denoiser along each mode: left, against noise level now; right, against steps at one noise level.

    The right panel uses the level nearest to the geometric mean of the modes' standard deviations.

    Args:
        history: a measurement with the field ``gain``.
        prediction: the predicted history; its gains, if any, are drawn dashed.
        modes: the modes to draw, counted from 0.
    """
    figure = Figure(figsize=(10.5, 4.8))
    now, over, bar = (figure.add_axes(box) for box in _BOXES)
    levels, variance, gain = history["levels"], history.target[list(modes)], history["gain"]
    color = ScalarMappable(LogNorm(variance.min(), variance.max()), matplotlib.colormaps["viridis"].reversed())
    level = int(np.abs(np.log(levels) - np.log(variance).mean() / 2).argmin())
    dense = np.geomspace(levels.min(), levels.max(), 200)
    predicted = prediction["gain"] if prediction is not None and "gain" in prediction else None
    for k, lam in zip(modes, variance, strict=True):
        shade = color.to_rgba(np.asarray(lam))
        now.plot(dense, lam / (lam + dense**2), color=shade, linewidth=0.7, alpha=0.6)
        now.plot(levels, gain[-1, :, k], "o", color=shade, markersize=3)
        over.plot(history.steps, gain[:, level, k], "o-", color=shade, markersize=2.6, linewidth=0.9)
        end = max(float(history.steps[-1]), 1.0) * 1.25
        over.plot(end, lam / (lam + levels[level] ** 2), "<", color=shade, markersize=5, clip_on=False)
        if predicted is not None and prediction is not None:
            now.plot(levels, predicted[-1, :, k], "--", color=shade, linewidth=1.3)
            over.plot(prediction.steps, predicted[:, level, k], "--", color=shade, linewidth=1.3)
    now.set_xscale("log")
    now.set_xlabel("noise level $\\sigma$")
    now.set_ylabel("gain of the denoiser along the mode, $\\psi$")
    now.set_title(f"at step {int(history.steps[-1])}", loc="left", fontsize=11)
    over.set_xscale("symlog", linthresh=1, linscale=0.4)
    over.set_xlim(-0.1, max(float(history.steps[-1]), 1.0) * 1.3)
    over.set_xlabel("optimizer updates (0, then logarithmic)")
    over.set_title(f"at $\\sigma$ = {levels[level]:.3g}", loc="left", fontsize=11)
    for axes in (now, over):
        axes.set_ylim(min(-0.05, float(gain.min()) * 1.05), max(1.05, float(gain[:, :, list(modes)].max()) * 1.05))
    now.legend(handles=_handles(predicted is not None), loc="lower left", fontsize=8, framealpha=0.8)
    figure.colorbar(color, cax=bar, label="variance of the data along the mode")
    return figure


_BOXES = ((0.06, 0.115, 0.375, 0.8), (0.48, 0.115, 0.375, 0.8), (0.88, 0.115, 0.016, 0.8))


def _handles(theory: bool) -> list[Line2D]:
    measured = Line2D([], [], color="0.3", marker="o", linestyle="", markersize=4, label="measured")
    exact = Line2D([], [], color="0.3", linewidth=0.7, label="exact, $\\lambda/(\\lambda+\\sigma^2)$")
    dashed = Line2D([], [], color="0.3", linestyle="--", linewidth=1.3, label="theory")
    return [measured, *([dashed] if theory else []), exact]
