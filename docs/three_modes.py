"""Draw three annotated curves of a run for the README: `python docs/three_modes.py RUN OUT.png`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spectral_lightning.prediction import Comparison, compare
from spectral_lightning.report import latest_run
from spectral_lightning.report.summary import read_history
from spectral_lightning.spectra import SpectralHistory

COLORS = ["#b2432f", "#2b5c8a", "#5f9e6e"]


def draw(
    axes: Axes, history: SpectralHistory, prediction: SpectralHistory, comparison: Comparison, k: int, color: str
) -> None:
    """Draw one mode: measurement, prediction, target, and the circle where it emerges."""
    measured = comparison.measured
    steps = np.where(history.steps == 0, 0.5, history.steps)
    axes.plot(steps, history.variance[:, k], "o-", color=color, markersize=3, linewidth=1)
    axes.plot(np.where(prediction.steps == 0, 0.5, prediction.steps), prediction.variance[:, k], "--", color=color)
    axes.plot(steps[-1] * 1.35, history.fixed_point[k], "<", color=color, markersize=7, clip_on=False)
    axes.plot(
        measured.time[k], measured.threshold[k], "o", color=color, markersize=11, fillstyle="none", markeredgewidth=1.8
    )


def main(run: str, out: str) -> None:
    """Draw the mode of largest variance, and falling modes of large and of smallest variance."""
    files = latest_run(run)
    history, prediction = read_history(files), SpectralHistory.load(files / "prediction.npz")
    comparison = compare(history, prediction)
    figure = Figure(figsize=(8.5, 4.6))
    axes = figure.add_axes((0.085, 0.12, 0.89, 0.84))
    falling = np.flatnonzero(comparison.measured.crossed("falling"))
    modes = [0, falling[len(falling) // 20], falling[-1]]
    for k, color in zip(modes, COLORS, strict=True):
        draw(axes, history, prediction, comparison, int(k), color)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("optimizer updates (the first point is the untrained network)")
    axes.set_ylabel("variance of generated samples along the mode")
    time, level = comparison.measured.time, comparison.measured.threshold
    last, middle, end = int(modes[2]), int(modes[1]), float(history.steps[-1]) * 1.35
    row = int(prediction.steps.searchsorted(500))
    notes = [
        (
            "dots: measured on generated samples",
            (158, history.variance[history.steps.searchsorted(150), 0]),
            (0.62, 0.77),
        ),
        (
            "circle: emergence, half way (in log variance)\nfrom the start to the target",
            (time[0], level[0]),
            (0.45, 0.68),
        ),
        ("dashes: what the theory predicts", (prediction.steps[row], prediction.variance[row, last]), (0.62, 0.5)),
        (
            "triangle: target, the data's variance\nas the sampler renders it",
            (end, history.fixed_point[last]),
            (0.4, 0.06),
        ),
        (f"a direction of large variance, {history.target[0]:.3g}:\nlearnt first", (time[0], level[0]), (0.05, 0.9)),
        (f"smaller variance, {history.target[middle]:.2g}: learnt later", (time[middle], level[middle]), (0.6, 0.6)),
        (f"smallest variance, {history.target[last]:.1g}:\nlearnt last", (time[last], level[last]), (0.3, 0.25)),
    ]
    for text, point, place in notes:
        arrow = {"arrowstyle": "->", "color": "0.45"}
        axes.annotate(text, point, place, textcoords="axes fraction", arrowprops=arrow, fontsize=8.5, color="0.2")
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=130)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
