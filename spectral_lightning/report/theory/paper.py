"""Counterparts of the theory's figures in Wang & Pehlevan 2025 (WP).

Figures 2, 5, 6, 7 and 8 show what the captions of WP say; variances, learning rate and times are ours where a caption
does not give them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from spectral_lightning.emergence import StaysWithin
from spectral_lightning.report.theory.curves import TheoryCurves
from spectral_lightning.report.theory.figures import TheoryFigure, curves_figure, emergence_grid
from spectral_lightning.theory import FlowMatching, ModewiseDynamics, Objective, OneLayer, SymmetricTwoLayer

__all__ = ["flow_velocities", "scaling", "two_families"]

OBJECTIVE = Objective(1e-3)
VARIANCES = np.array([10, 3, 1, 0.3, 0.1, 0.03, 0.01, 0.001])  # WP figure 7
CRITERIA = ("geometric", StaysWithin(0.1))  # the second, so that curves are drawn to where they have settled
SCALING = np.geomspace(1e2, 1e-3, 20)
INITS = (0.0, 0.1, 0.5, 0.6, 1.0)  # WP figures 6 and 8
FLOW_TIMES = (0.1, 0.5, 0.9, 0.99)  # WP figure 7


def two_families(init: float, title: str) -> TheoryFigure:
    """WP figures 2 and 5: one layer and two symmetric layers from one gain; weight at sigma = 1, variance, emergence."""
    families = {"one layer": OneLayer(OBJECTIVE, init), "symmetric two layer": SymmetricTwoLayer(OBJECTIVE, init)}
    drawn = []
    for name, family in families.items():
        solved = family.on(VARIANCES)
        drawn.append(TheoryCurves(solved, name, weights={"sigma = 1": partial(solved.weight, sigma=1.0)}))
    return curves_figure(drawn, title, CRITERIA)


def flow_velocities(title: str) -> TheoryFigure:
    """WP figure 7: one layer of flow matching from Q = 0.1; velocity weights at four flow times, variance."""
    solved = FlowMatching(OBJECTIVE, 0.1).on(VARIANCES)
    weights = {f"t = {t:g}": partial(solved.velocity_weight, flow_time=t) for t in FLOW_TIMES}
    drawn = TheoryCurves(solved, "flow matching, Q = 0.1", weights=weights, model="velocity")
    return curves_figure([drawn], title, CRITERIA)


def scaling(families: Mapping[str, Callable[[Objective, float], ModewiseDynamics]], title: str) -> TheoryFigure:
    """WP figures 6 and 8: emergence time against variance for five initial gains and two criteria."""

    def panel(name: str, q: float, family: ModewiseDynamics) -> tuple[str, TheoryCurves]:
        return f"Q = {q:g}", TheoryCurves(family.on(SCALING), f"{name}, Q={q:g}")

    rows = [
        (f"{name}, {criterion}", criterion, [panel(name, q, make(OBJECTIVE, q)) for q in INITS])
        for criterion in ("harmonic", "geometric")
        for name, make in families.items()
    ]
    return emergence_grid(rows, title)
