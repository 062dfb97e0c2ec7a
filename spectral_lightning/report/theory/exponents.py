"""The table of exponents: how much they depend on what is asked, on data that are a power law by construction."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from rich.table import Table

from spectral_lightning.diffusion import LogNormalNoise
from spectral_lightning.emergence import PowerLaw
from spectral_lightning.theory import ModewiseDynamics, Objective, OneLayer, Preconditioning, SymmetricTwoLayer

__all__ = ["Laws", "exponent_laws", "exponent_table", "slope"]

Laws = dict[tuple[str, str], dict[str, PowerLaw]]
"""By family and criterion: the laws of ``"rising"`` and ``"falling"`` modes."""


def exponent_laws() -> Laws:
    """The laws of 20 modes log-spaced in [1e-3, 1e2], without the gray zone (factor 2), through the exact flow.

    Reference: WP figure 6 shows the first rows' emergence times; preconditioning and noise densities are beyond WP.
    """
    variance = np.geomspace(1e-3, 1e2, 20)
    return {
        (name, criterion): family.on(variance).exponent(criterion)
        for name, family in _families().items()
        for criterion in ("geometric", "harmonic")
        if (name, criterion) != ("one layer, Q=0", "harmonic")  # it says nothing of the data: 2 sigma_0^2
    }


def exponent_table(laws: Laws) -> Table:
    """The table as shown: slopes, so the exponents with a minus, and the number of modes behind each."""
    table = Table(
        title="Slope of log emergence time on log variance",
        caption="20 modes log-spaced in [1e-3, 1e2], root finding, exact flow, without the gray zone (factor 2)",
    )
    for column in ("dynamics", "criterion", "increasing", "modes", "decreasing", "modes"):
        table.add_column(column, justify="left" if column in ("dynamics", "criterion") else "right", no_wrap=True)
    last = ""
    for (dynamics, criterion), ways in laws.items():
        if dynamics != last and last:
            table.add_section()
        cells = [cell for law in ways.values() for cell in (slope(law), str(law.count))]
        table.add_row(dynamics if dynamics != last else "", criterion, *cells)
        last = dynamics
    return table


def slope(law: PowerLaw) -> str:
    """The slope, or a dash if no law is determinable."""
    return f"{-law.exponent:z.3f}" if law.determinable else "-"


def _families() -> dict[str, ModewiseDynamics]:
    plain, edm = Objective(1.0), Objective(1.0, Preconditioning("edm", sigma_data=0.5))
    drawn = LogNormalNoise(-1.2, 1.2)  # EDM's distribution of training noise levels

    def per_sigma(sigma: Any) -> Any:
        return drawn.density(sigma) / sigma

    return {
        **{f"one layer, Q={q:g}": OneLayer(plain, q) for q in (0.0, 0.1, 0.5, 1.0)},
        "symmetric two layer, Q=0.1": SymmetricTwoLayer(plain, 0.1),
        "EDM, q=0, no noise density": OneLayer(edm),
        "EDM, q=0, density of log sigma": OneLayer(replace(edm, noise_density=drawn.density)),
        "EDM, q=0, density per d sigma": OneLayer(replace(edm, noise_density=per_sigma)),
    }
