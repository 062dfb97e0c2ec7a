"""Exponent and error of the overlay, step by step from the linear network to the MLP."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studies.ladder import Rungs, common
from studies.rungs import CHANGES, CRITERIA

__all__ = ["figure"]

_COLOR = {"geometric": "#b2432f", "harmonic": "#2b5c8a"}


def figure(found: Rungs) -> Figure:
    """Exponents with their intervals on the left, errors on the right; one line per step."""
    made = Figure(figsize=(10, 6), layout="constrained")
    left, right = made.subplots(1, 2, sharey=True, width_ratios=[2, 1])
    places = {key: -i - (0.6 if rung.step in CHANGES else 0.0) for i, (key, rung) in enumerate(found.items())}
    _exponents(left, found, places)
    _errors(right, found, places)
    border = (places["mlp"] + places[CHANGES[0].key]) / 2
    for axes in (left, right):
        axes.axhline(border, color="0.75", linewidth=0.8)
        axes.grid(axis="x", color="0.92")
        axes.legend(fontsize=7.5, framealpha=0.9)
    left.set_yticks(list(places.values()), [rung.step.short for rung in found.values()])
    return made


def _exponents(axes: Axes, found: Rungs, places: dict[str, float]) -> None:
    for criterion, shift in zip(CRITERIA, (0.14, -0.14), strict=True):
        shared = common(found, criterion)
        for key, rung in found.items():
            fit, at = rung.measured(criterion, modes=shared), places[key] + shift
            if not fit.determinable:
                axes.text(0.02, places[key], f"no exponent: {fit.reason}" if shift > 0 else "", fontsize=7, color="0.4")
                continue
            half = [[fit.exponent - fit.low], [fit.high - fit.exponent]]
            axes.errorbar(fit.exponent, at, xerr=half, fmt="o", color=_COLOR[criterion], markersize=4.5, capsize=2)
            theory = rung.theory(criterion, shared) or rung.overlay(criterion, shared)
            if theory is not None and theory.determinable:
                mark = "+" if rung.dynamics is None else "x"
                axes.plot(theory.exponent, at, mark, color="0.15", markersize=6, markeredgewidth=1.2, zorder=3)
        axes.plot([], [], "o", color=_COLOR[criterion], label=f"{criterion} threshold")
    axes.plot([], [], "x", color="0.15", linestyle="", label="theory of the step")
    axes.plot([], [], "+", color="0.15", linestyle="", label="overlay, where there is none")
    axes.set_xlim(left=0)
    axes.set_xlabel("exponent of the rising modes common to all steps to the MLP, 95 %")
    axes.set_title("One change at a time; below the line: away from the MLP", loc="left", fontsize=10)


def _errors(axes: Axes, found: Rungs, places: dict[str, float]) -> None:
    for key, rung in found.items():
        axes.plot(rung.goodness["rms"], places[key], "s", color="0.2", markersize=5)
        axes.plot(rung.goodness["baseline"], places[key], "|", color="0.55", markersize=9, markeredgewidth=1.6)
    axes.plot([], [], "s", color="0.2", label="overlay")
    axes.plot([], [], "|", color="0.55", linestyle="", label="nothing learnt")
    axes.set_xscale("log")
    axes.set_xlabel("rms error of log variance")
    axes.set_title("What the overlay misses", loc="left", fontsize=10)
