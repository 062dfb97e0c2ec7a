"""The subcommands that draw the theory: ``theory``, ``exponents`` and ``paper-figures``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jsonargparse import lazy_instance  # type: ignore[attr-defined]
from rich.console import Console
from rich.table import Table

from spectral_lightning.emergence import StaysWithin
from spectral_lightning.report.theory.curves import (
    CURVE_COLUMNS,
    EMERGENCE_COLUMNS,
    WAYS,
    Criterion,
    TheoryCurves,
    criterion_name,
    on_spectrum,
    power_law,
    write_csv,
)
from spectral_lightning.report.theory.exponents import exponent_rows, exponent_table, slope
from spectral_lightning.report.theory.figures import curves_figure
from spectral_lightning.report.theory.paper import FIGURES, PaperFigure
from spectral_lightning.report.theory.propositions import convolution, non_centered
from spectral_lightning.sampling import Sampler
from spectral_lightning.theory import LearningDynamics, OneLayer

__all__ = ["draw_paper_figures", "draw_theory", "print_exponents"]

_DEFAULT: LearningDynamics = lazy_instance(OneLayer, objective={"learning_rate": 1e-3}, init=0.1)
_RECIPE: dict[str, Callable[[], PaperFigure]] = {**FIGURES, "convolution": convolution, "non_centered": non_centered}
_DPI = 110


def draw_theory(
    family: LearningDynamics = _DEFAULT,
    out: str = "theory",
    spectrum: list[float] | None = None,
    lowest: float = 1e-3,
    highest: float = 1e2,
    modes: int = 20,
    mean: float = 0.0,
    sigma: list[float] | None = None,
    criteria: list[float | str] | None = None,
    stays_within: float = 0.1,
    sampler: Sampler | None = None,
    num_times: int = 200,
) -> None:
    """Draw weights, generated variances and emergence times of a family, and print its table of exponents.

    Written are ``theory.png``, ``theory_curves.csv`` and ``theory_emergence.csv``. For example::

        spectral-lightning theory --family SymmetricTwoLayer --family.init 0.5 --out two_layers
        spectral-lightning theory --family.objective.preconditioning.kind edm --sampler.num_steps 20
        spectral-lightning theory --family LocalConvolution --family.kernel_size 3 --family.init 0

    Args:
        family: class of the theory; its own arguments follow as ``--family.NAME``, and ``--family.help CLASS`` lists them.
        out: directory to write to.
        spectrum: variances of the data's modes; a power law from ``lowest`` to ``highest`` if not given. Convolutions take
            them as those of the waves of 0, 1, 2, .. periods on a circle of pixels.
        lowest: smallest variance of the power law.
        highest: largest variance of the power law.
        modes: number of variances of the power law.
        mean: of every coordinate of the data, for families that learn one.
        sigma: noise levels whose weights are drawn; 0.1, 1, 10 and 80 if not given.
        criteria: of emergence, names or fractions of the target; geometric, harmonic and arithmetic if not given. The first
            is drawn.
        stays_within: also tell when a variance is within this share of its target for good.
        sampler: a discrete sampler in place of the exact flow.
        num_times: number of training times.

    Raises:
        ValueError: for an empty spectrum or list of criteria, and as the family's own methods.
    """
    given = power_law(lowest, highest, modes) if spectrum is None else spectrum
    asked: list[Criterion] = [*(["geometric", "harmonic", "arithmetic"] if criteria is None else criteria)]
    if not asked:
        raise ValueError("`criteria` must hold at least one criterion, got []. Choose 'geometric'.")
    solved = on_spectrum(family, given, mean)
    levels = (0.1, 1.0, 10.0, 80.0) if sigma is None else sigma
    asked.append(StaysWithin(stays_within))
    curves = TheoryCurves.of(solved, levels, asked, sampler, num_times=num_times)
    curves = curves.subset(np.arange(len(given)))  # on a circle, waves k and -k are alike
    directory = Path(out)
    tables = {
        "curves": (CURVE_COLUMNS, curves.curve_rows()),
        "emergence": (EMERGENCE_COLUMNS, curves.emergence_rows()),
    }
    through = "exact flow" if sampler is None else sampler.describe()
    figure = PaperFigure(curves_figure([curves], f"{type(family).__name__}, {through}", curves.label), tables)
    console = Console()
    console.print(_laws(curves, through))
    _save(directory, "theory", figure, console)


def print_exponents(out: str | None = None) -> None:
    """Print how the exponent of emergence depends on what is asked, for one and the same data.

    Rows are families, initial gains, preconditioning and noise densities, each by the geometric and the harmonic
    criterion, of modes that rise and modes that fall.

    Args:
        out: file to write the table to as CSV; only printed if not given.
    """
    rows = exponent_rows()
    Console().print(exponent_table(rows))
    if out is not None:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        columns = ("dynamics", "criterion", "increasing", "modes increasing", "decreasing", "modes decreasing")
        cells = (
            (r.dynamics, r.criterion, -r.rising.exponent, r.rising.count, -r.falling.exponent, r.falling.count)
            for r in rows
        )
        write_csv(Path(out), columns, cells)


def draw_paper_figures(out: str = "paper_figures", only: list[str] | None = None) -> None:
    """Draw the counterparts of figures 2, 5, 6, 7 and 8 of Wang & Pehlevan 2025, and two of propositions.

    ``figure_2``, ``figure_5``: one layer and two symmetric layers from a small and a large gain; ``figure_6``: their
    emergence for five gains and two criteria; ``figure_7``, ``figure_8``: the same for flow matching; ``convolution``:
    full-width and local kernels; ``non_centered``: a mean learnt beside the covariance. Each is a PNG with its data as CSV.

    Args:
        out: directory to write to.
        only: names of the figures to draw; all if not given.

    Raises:
        ValueError: for an unknown name.
    """
    names = list(_RECIPE) if only is None else only
    unknown = [name for name in names if name not in _RECIPE]
    if unknown:
        raise ValueError(f"`only` must hold names from {', '.join(map(repr, _RECIPE))}, got {unknown[0]!r}.")
    console = Console()
    for name in names:
        _save(Path(out), name, _RECIPE[name](), console)


def _laws(curves: TheoryCurves, through: str) -> Table:
    table = Table(title="Slope of log emergence time on log variance", caption=f"{curves.label}, {through}")
    for column in ("criterion", "increasing", "modes", "R2", "decreasing", "modes", "R2"):
        table.add_column(column, justify="left" if column == "criterion" else "right", no_wrap=True)
    for entry in curves.times:
        cells = []
        for law in map(entry.law, WAYS):
            count = f"{law.count}" if law.count == law.total else f"{law.count} of {law.total}"
            cells += [slope(law), count, f"{law.r2:.3f}" if law.determinable else "-"]
        table.add_row(criterion_name(entry.criterion), *cells)
    return table


def _save(directory: Path, name: str, drawn: PaperFigure, console: Console) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    drawn.figure.savefig(directory / f"{name}.png", dpi=_DPI)
    for ending, (columns, rows) in drawn.tables.items():
        write_csv(directory / f"{name}_{ending}.csv", columns, rows)
    console.print(f"Figure:  {directory / name}.png", soft_wrap=True, highlight=False)
    files = ", ".join(f"{name}_{ending}.csv" for ending in drawn.tables)
    console.print(f"Data:    {files}", soft_wrap=True, highlight=False)
