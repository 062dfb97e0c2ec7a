"""The table of exponents: how much they depend on what is asked, on data that are a power law by construction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from spectral_lightning.emergence import PowerLaw
from spectral_lightning.theory import LearningDynamics, Objective, OneLayer, Preconditioning, SymmetricTwoLayer

__all__ = ["ExponentRow", "exponent_rows", "exponent_table", "log_normal_density"]

Array = NDArray[np.float64]

P_MEAN, P_STD = -1.2, 1.2


@dataclass(frozen=True)
class ExponentRow:
    """Slopes of ``log tau*`` on ``log lambda`` of one family by one criterion.

    Attributes:
        dynamics: the family and its settings, in words.
        criterion: of emergence.
        rising: the law of the modes whose variance increases.
        falling: the law of those whose variance decreases.
    """

    dynamics: str
    criterion: str
    rising: PowerLaw
    falling: PowerLaw


def log_normal_density(variable: str) -> Callable[[Any], Any]:
    """EDM's density of training noise levels, ``log sigma ~ N(-1.2, 1.2^2)``.

    Args:
        variable: ``"log sigma"`` or ``"sigma"``: per unit of which it is a density.
    """

    def density(sigma: Any) -> Any:
        z = (np.log(sigma) - P_MEAN) / P_STD
        per_log = np.exp(-(z**2) / 2) / (P_STD * np.sqrt(2 * np.pi))
        return per_log if variable == "log sigma" else per_log / sigma

    return density


def exponent_rows() -> list[ExponentRow]:
    """The laws of 20 modes log-spaced in [1e-3, 1e2], without the gray zone (factor 2), through the exact flow.

    Reference: WP figure 6 shows the first rows' emergence times; preconditioning and noise densities are beyond WP.
    """
    lam = np.geomspace(1e-3, 1e2, 20)
    return [
        ExponentRow(name, criterion, laws["rising"], laws["falling"])
        for name, family, criteria in _families()
        for criterion in criteria
        for laws in [family.on(lam).exponent(criterion)]
    ]


def exponent_table(rows: list[ExponentRow]) -> Table:
    """The table as shown: slopes, so the exponents with a minus, and the number of modes behind each."""
    table = Table(
        title="Slope of log emergence time on log variance",
        caption="20 modes log-spaced in [1e-3, 1e2], root finding, exact flow, without the gray zone (factor 2)",
    )
    for column in ("dynamics", "criterion", "increasing", "modes", "decreasing", "modes"):
        table.add_column(column, justify="left" if column in ("dynamics", "criterion") else "right", no_wrap=True)
    last = ""
    for row in rows:
        if row.dynamics != last and last:
            table.add_section()
        cells = [cell for law in (row.rising, row.falling) for cell in (slope(law), str(law.count))]
        table.add_row(row.dynamics if row.dynamics != last else "", row.criterion, *cells)
        last = row.dynamics
    return table


def slope(law: PowerLaw) -> str:
    """The slope, or a dash where no law is determinable."""
    return f"{-law.exponent:z.3f}" if law.determinable else "-"


def _families() -> list[tuple[str, LearningDynamics, tuple[str, ...]]]:
    both = ("geometric", "harmonic")
    plain, edm = Objective(1.0), Objective(1.0, Preconditioning("edm", sigma_data=0.5))
    per_log, per_sigma = (replace(edm, noise_density=log_normal_density(v)) for v in ("log sigma", "sigma"))
    return [
        ("one layer, Q=0", OneLayer(plain, 0.0), ("geometric",)),
        ("one layer, Q=0.1", OneLayer(plain, 0.1), both),
        ("one layer, Q=0.5", OneLayer(plain, 0.5), both),
        ("one layer, Q=1", OneLayer(plain, 1.0), both),
        ("symmetric two layer, Q=0.1", SymmetricTwoLayer(plain, 0.1), both),
        ("EDM, q=0, no noise density", OneLayer(edm, 0.0), both),
        ("EDM, q=0, density of log sigma", OneLayer(per_log, 0.0), both),
        ("EDM, q=0, density per d sigma", OneLayer(per_sigma, 0.0), both),
    ]
