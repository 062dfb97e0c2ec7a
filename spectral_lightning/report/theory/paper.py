"""Counterparts of the theory's figures in Wang & Pehlevan 2025 (WP), and of two propositions shown there by others.

Figures 2, 5, 6, 7 and 8 show what the captions of WP say; variances, learning rate and times are ours where a caption
does not give them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from spectral_lightning.emergence import StaysWithin
from spectral_lightning.report.theory.curves import CURVE_COLUMNS, EMERGENCE_COLUMNS, ModeTimes, TheoryCurves
from spectral_lightning.report.theory.figures import curves_figure, emergence_grid
from spectral_lightning.theory import FlowMatching, LearningDynamics, Objective, OneLayer, SymmetricTwoLayer

__all__ = ["FIGURES", "PaperFigure", "figure_2", "figure_5", "figure_6", "figure_7", "figure_8"]

Array = NDArray[np.float64]

OBJECTIVE = Objective(1e-3)
VARIANCES = np.array([10, 3, 1, 0.3, 0.1, 0.03, 0.01, 0.001])  # WP figure 7
CRITERIA = ("geometric", StaysWithin(0.1))  # the second, so that curves are drawn to where they have settled
SCALING = np.geomspace(1e2, 1e-3, 20)
INITS = (0.0, 0.1, 0.5, 0.6, 1.0)  # WP figures 6 and 8
FLOW_TIMES = (0.1, 0.5, 0.9, 0.99)  # WP figure 7


@dataclass(frozen=True)
class PaperFigure:
    """A figure with the tables of what it draws.

    Attributes:
        figure: the drawing.
        tables: columns and rows by the ending of the file's name.
    """

    figure: Figure
    tables: Mapping[str, tuple[Sequence[str], Iterable[Sequence[Any]]]]


def figure_2() -> PaperFigure:
    """WP figure 2: one layer and two symmetric layers from Q = 0.1; weight at sigma = 1, variance, emergence."""
    return _two_families(0.1, "Counterpart of WP figure 2: learning from a small initial gain, Q = 0.1")


def figure_5() -> PaperFigure:
    """WP figure 5: the same from Q = 0.5, where small variances have to fall and do so by another law."""
    return _two_families(0.5, "Counterpart of WP figure 5: learning from a large initial gain, Q = 0.5")


def figure_6() -> PaperFigure:
    """WP figure 6: emergence time against variance for five initial gains, two families and two criteria."""
    families: dict[str, Callable[[float], LearningDynamics]] = {
        "one layer": lambda q: OneLayer(OBJECTIVE, q),
        "symmetric two layer": lambda q: SymmetricTwoLayer(OBJECTIVE, q),
    }
    return _scaling(families, "Counterpart of WP figure 6: the law depends on the initial gain and on the criterion")


def figure_7() -> PaperFigure:
    """WP figure 7: one layer of flow matching from Q = 0.1; velocity weights at four flow times, variance."""
    theory = FlowMatching(OBJECTIVE, 0.1).on(VARIANCES)
    curves = TheoryCurves.of(theory, criteria=CRITERIA, label="flow matching, Q = 0.1")
    curves = replace(
        curves,
        levels=tuple(f"t = {t:g}" for t in FLOW_TIMES),
        weight=theory.velocity_weight(curves.time, FLOW_TIMES),
        optimum=theory.velocity_weight(np.inf, FLOW_TIMES),
        model="velocity",
    )
    return _of_curves([curves], "Counterpart of WP figure 7: one layer of flow matching, Q = 0.1, gain of the velocity")


def figure_8() -> PaperFigure:
    """WP figure 8: as figure 6, for one layer of flow matching."""
    families: dict[str, Callable[[float], LearningDynamics]] = {"flow matching": lambda q: FlowMatching(OBJECTIVE, q)}
    return _scaling(families, "Counterpart of WP figure 8: one layer of flow matching")


FIGURES: dict[str, Callable[[], PaperFigure]] = {
    "figure_2": figure_2,
    "figure_5": figure_5,
    "figure_6": figure_6,
    "figure_7": figure_7,
    "figure_8": figure_8,
}


def _two_families(init: float, title: str) -> PaperFigure:
    families = {"one layer": OneLayer(OBJECTIVE, init), "symmetric two layer": SymmetricTwoLayer(OBJECTIVE, init)}
    return _of_curves(
        [TheoryCurves.of(f.on(VARIANCES), criteria=CRITERIA, label=name) for name, f in families.items()], title
    )


def _of_curves(families: Sequence[TheoryCurves], title: str) -> PaperFigure:
    return PaperFigure(
        curves_figure(families, title),
        {
            "curves": (CURVE_COLUMNS, [row for curves in families for row in curves.curve_rows()]),
            "emergence": (EMERGENCE_COLUMNS, [row for curves in families for row in curves.emergence_rows()]),
        },
    )


def _scaling(families: dict[str, Callable[[float], LearningDynamics]], title: str) -> PaperFigure:
    rows: list[tuple[str, list[tuple[str, ModeTimes]]]] = []
    table: list[Sequence[Any]] = []
    for criterion in ("harmonic", "geometric"):
        for name, make in families.items():
            curves = [
                TheoryCurves.of(make(q).on(SCALING), (), (criterion,), label=f"{name}, Q={q:g}", num_times=2)
                for q in INITS
            ]
            rows.append(
                (f"{name}, {criterion}", [(f"Q = {q:g}", c.times[0]) for q, c in zip(INITS, curves, strict=True)])
            )
            table += [row for c in curves for row in c.emergence_rows()]
    return PaperFigure(emergence_grid(rows, title), {"emergence": (EMERGENCE_COLUMNS, table)})
