"""The subcommands that draw the theory: ``theory``, ``exponents`` and ``paper-figures``.

Matplotlib is imported once there is something to draw: help and tables do not wait for it.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Protocol

from jsonargparse import lazy_instance  # type: ignore[attr-defined]
from rich.console import Console

from spectral_lightning.emergence import StaysWithin
from spectral_lightning.report.files import write_csv
from spectral_lightning.report.theory.curves import (
    WAYS,
    Criterion,
    TheoryCurves,
    criterion_name,
    on_spectrum,
    power_law,
)
from spectral_lightning.report.theory.exponents import Laws, exponent_laws, exponent_table
from spectral_lightning.sampling import Sampler
from spectral_lightning.theory import LearningDynamics, OneLayer

__all__ = ["draw_paper_figures", "draw_theory", "print_exponents"]

_DEFAULT: LearningDynamics = lazy_instance(OneLayer, objective={"learning_rate": 1e-3}, init=0.1)


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

    Writes ``theory.png``, ``theory_curves.csv`` and ``theory_emergence.csv``. For example::

        spectral-lightning theory --family SymmetricTwoLayer --family.init 0.5 --out two_layers
        spectral-lightning theory --family.objective.preconditioning.kind edm --sampler.num_steps 20
        spectral-lightning theory --family LocalConvolution --family.kernel_size 3 --family.init 0

    Args:
        family: class of the theory; its own arguments follow as ``--family.NAME``, and ``--family.help CLASS`` lists them.
        out: directory to write to.
        spectrum: variances of the data's modes; a power law from ``lowest`` to ``highest`` if not given. For convolutions
            these are the variances of waves with 0, 1, 2, .. periods on a circle of pixels.
        lowest: smallest variance of the power law.
        highest: largest variance of the power law.
        modes: number of variances of the power law.
        mean: of every coordinate of the data, for families that learn one.
        sigma: noise levels whose weights are drawn; 0.1, 1, 10 and 80 if not given.
        criteria: of emergence, names or fractions of the target; geometric, harmonic and arithmetic if not given. The first
            is drawn.
        stays_within: also find from when on a variance stays within this share of its target.
        sampler: a discrete sampler instead of the exact flow.
        num_times: number of training times.

    Raises:
        ValueError: for an empty spectrum or list of criteria, and as raised by the curves' methods.
    """
    given = power_law(lowest, highest, modes) if spectrum is None else spectrum
    asked: list[Criterion] = [*(["geometric", "harmonic", "arithmetic"] if criteria is None else criteria)]
    if not asked:
        raise ValueError("`criteria` must hold at least one criterion, got []. Choose 'geometric'.")
    asked.append(StaysWithin(stays_within))
    solved = on_spectrum(family, given, mean)
    levels = (0.1, 1.0, 10.0, 80.0) if sigma is None else sigma
    weights = {f"sigma = {level:g}": partial(solved.weight, sigma=level) for level in levels}
    # On a circle, waves k and -k have the same variance.
    curves = TheoryCurves(solved, repr(family), sampler, slice(len(given)), weights)
    through = "exact flow" if sampler is None else sampler.describe()
    title = f"{type(family).__name__}, {through}"
    console = Console()
    laws: Laws = {(criterion_name(c),): {way: curves.times(c).law(way) for way in WAYS} for c in asked}
    console.print(exponent_table(("criterion",), laws, f"{curves.label}, {through}", fit=True))
    from spectral_lightning.report.theory.figures import curves_figure  # noqa: PLC0415

    _save(out, "theory", curves_figure([curves], title, asked, curves.label, num_times), console)


def print_exponents(out: str | None = None) -> None:
    """Print how the exponent of emergence depends on the theory and the criterion, for the same data.

    Rows are families, initial gains, preconditioning and noise densities, each with the geometric and the harmonic
    criterion; columns are rising and falling modes.

    Args:
        out: file to write the table to as CSV; only printed if not given.
    """
    laws = exponent_laws()
    caption = "20 modes log-spaced in [1e-3, 1e2], root finding, exact flow, without the gray zone (factor 2)"
    Console().print(exponent_table(("dynamics", "criterion"), laws, caption))
    if out is not None:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        columns = ("dynamics", "criterion", "increasing", "modes increasing", "decreasing", "modes decreasing")
        cells = (
            (*key, *(x for law in ways.values() for x in (-law.exponent, law.count))) for key, ways in laws.items()
        )
        write_csv(Path(out), columns, cells)


def draw_paper_figures(out: str = "paper_figures", only: list[str] | None = None) -> None:
    """Draw the counterparts of figures 2, 5, 6, 7 and 8 of Wang & Pehlevan 2025, and two figures of propositions.

    ``figure_2``, ``figure_5``: one layer and two symmetric layers from a small and a large gain; ``figure_6``: their
    emergence for five gains and two criteria; ``figure_7``, ``figure_8``: the same for flow matching; ``convolution``:
    full-width and local kernels; ``non_centered``: a mean learnt with the covariance. Each is a PNG with its data as CSV.

    Args:
        out: directory to write to.
        only: names of the figures to draw; all if not given.

    Raises:
        ValueError: for an unknown name.
    """
    from spectral_lightning.report.theory.paper import FIGURES  # noqa: PLC0415

    names = list(FIGURES) if only is None else only
    unknown = [name for name in names if name not in FIGURES]
    if unknown:
        raise ValueError(f"`only` must hold names from {', '.join(map(repr, FIGURES))}, got {unknown[0]!r}.")
    for name in names:
        _save(out, name, FIGURES[name](), Console())


class _Drawn(Protocol):
    """A :class:`~spectral_lightning.report.theory.figures.TheoryFigure`, whose import would take as long as all the rest."""

    def save(self, directory: Path, name: str) -> list[Path]: ...


def _save(out: str, name: str, drawn: _Drawn, console: Console) -> None:
    figure, *data = drawn.save(Path(out), name)
    console.print(f"Figure:  {figure}", soft_wrap=True, highlight=False)
    console.print(f"Data:    {', '.join(path.name for path in data)}", soft_wrap=True, highlight=False)
