"""Figure of emergence by class, as a ``matplotlib.figure.Figure`` without global state."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from spectral_lightning.prediction import Comparison

__all__ = ["group_figure"]

_MARKER = {"rising": "^", "falling": "v"}


def group_figure(groups: Mapping[str, Comparison], last_step: int) -> Figure:
    """Emergence step against the variance of each class's data, one colour per class.

    Upward triangles are rising modes, downward triangles falling ones. The legend counts crossed and eligible modes.

    Args:
        groups: emergence of every class, by name.
        last_step: step of the last measurement.
    """
    figure = Figure(figsize=(8.5, 5.6))
    axes = figure.add_axes((0.085, 0.1, 0.895, 0.83))
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
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("variance of the class's data along the mode, $\\lambda$")
    axes.set_ylabel("emergence, optimizer updates")
    axes.set_title(f"When each mode of each class emerged, by step {last_step}", loc="left", fontsize=12)
    axes.legend(handles=handles, fontsize=8, loc="best", framealpha=0.85, ncols=1 + (len(groups) > _FEW))
    return figure


_FEW = 10
