"""The table of exponents: how much they depend on theory and criterion, on data with a log-spaced spectrum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from rich.table import Table

from spectral_lightning.emergence import PowerLaw
from spectral_lightning.theory import LogNormalDensity, Objective, OneLayer, Preconditioning, SymmetricTwoLayer

__all__ = ["Laws", "exponent_laws", "exponent_table"]

Laws = Mapping[tuple[str, ...], Mapping[str, PowerLaw]]
"""By family and criterion, or by criterion alone: the laws of ``"rising"`` and ``"falling"`` modes."""


def exponent_laws() -> Laws:
    """The laws of 20 modes log-spaced in [1e-3, 1e2], without the gray zone (factor 2), through the exact flow.

    Reference: WP figure 6 shows the first rows' emergence times; preconditioning and noise densities are beyond WP.
    """
    variance = np.geomspace(1e-3, 1e2, 20)
    plain, edm = Objective(1.0), Objective(1.0, Preconditioning("edm", sigma_data=0.5))
    drawn = LogNormalDensity(-1.2, 1.2)  # EDM's distribution of training noise levels

    def per_sigma(sigma: Any) -> Any:
        return drawn(sigma) / sigma

    families = {
        **{f"one layer, Q={q:g}": OneLayer(plain, q) for q in (0.0, 0.1, 0.5, 1.0)},
        "symmetric two layer, Q=0.1": SymmetricTwoLayer(plain, 0.1),
        "EDM, q=0, no noise density": OneLayer(edm),
        "EDM, q=0, density of log sigma": OneLayer(replace(edm, noise_density=drawn)),
        "EDM, q=0, density per d sigma": OneLayer(replace(edm, noise_density=per_sigma)),
    }
    return {
        (name, criterion): family.on(variance).exponent(criterion)
        for name, family in families.items()
        for criterion in ("geometric", "harmonic")
        if (name, criterion) != ("one layer, Q=0", "harmonic")  # it does not depend on the data: 2 sigma_0^2
    }


def exponent_table(heads: Sequence[str], rows: Laws, caption: str, *, fit: bool = False) -> Table:
    """A table of laws: slopes (the exponents with a minus sign), and the number of modes in each fit.

    Args:
        heads: titles of the columns of names; rows that share the first of several names are grouped.
        rows: the laws by these names.
        caption: below the table.
        fit: whether to show the share of the scatter that the line explains.
    """
    table = Table(title="Slope of log emergence time on log variance", caption=caption)
    ways = [head for way in ("increasing", "decreasing") for head in (way, "modes", "R2")[: 3 if fit else 2]]
    for head in (*heads, *ways):
        table.add_column(head, justify="left" if head in heads else "right", no_wrap=True)
    last = ""
    for (first, *rest), laws in rows.items():
        if rest and first != last and last:
            table.add_section()
        cells = [cell for law in laws.values() for cell in _cells(law)[: 3 if fit else 2]]
        table.add_row(first if first != last else "", *rest, *cells)
        last = first
    return table


def _cells(law: PowerLaw) -> tuple[str, str, str]:
    """The slope, the number of modes in the fit and R2, with a dash if no law is determinable."""
    count = f"{law.count}" if law.count == law.total else f"{law.count} of {law.total}"
    return (f"{-law.exponent:z.3f}", count, f"{law.r2:.3f}") if law.determinable else ("-", count, "-")
