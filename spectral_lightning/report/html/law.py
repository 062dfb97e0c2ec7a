"""Emergence as the report shows it: the one place that knows the fields of a comparison and its laws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectral_lightning.emergence import STATUS, EmergenceLaw, PowerLaw
from spectral_lightning.prediction import compare
from spectral_lightning.spectra import SpectralHistory

__all__ = ["WAYS", "Emerged", "Law", "emerged"]

Array = NDArray[np.float64]

WAYS = ("rising", "falling")


@dataclass(frozen=True)
class Law:
    """What a law says, in words, and the line to draw.

    Attributes:
        way: ``"rising"`` or ``"falling"``.
        text: the law in words, or why there is none.
        exponent: with its interval; empty if there is none.
        x: variances at the ends of its line; empty if there is none.
        y: steps there.
    """

    way: str
    text: str
    exponent: str
    x: Array
    y: Array


@dataclass(frozen=True)
class Emerged:
    """Emergence of every mode of a run, and the laws.

    Attributes:
        criterion: of the thresholds.
        status: of every mode, in words.
        way: ``"rising"``, ``"falling"`` or nothing, for every mode.
        eligible: modes that have to cross.
        crossed: modes that have.
        time: steps at which they did, NaN for the others.
        predicted: the theory's steps; NaN without a theory.
        measured: laws by direction, of all modes.
        theory: the theory's laws of the modes that crossed in both tables; none without a theory.
    """

    criterion: str
    status: list[str]
    way: list[str]
    eligible: NDArray[np.bool_]
    crossed: NDArray[np.bool_]
    time: Array
    predicted: Array
    measured: dict[str, Law]
    theory: dict[str, Law]

    def modes(self, way: str, *status: str) -> NDArray[np.intp]:
        """Indices of the modes of one direction that have one of these statuses."""
        return np.array(
            [k for k, (w, s) in enumerate(zip(self.way, self.status, strict=True)) if w == way and s in status], int
        )


def emerged(history: SpectralHistory, prediction: SpectralHistory | None, settings: Mapping[str, Any]) -> Emerged:
    """Emergence in a history and its prediction, by the criterion of ``emergence.json``."""
    criterion, gray = settings.get("criterion", "geometric"), float(settings.get("gray_factor", 2.0))
    result = compare(history, prediction, criterion, gray)
    own, theory = result.measured, result.predicted
    eligible = own.eligible("rising") | own.eligible("falling")
    laws: dict[str, dict[str, Law]] = {"measured": {}, "theory": {}}
    for way in WAYS:
        crossed = own.variance[own.crossed(way)]
        laws["measured"][way] = _law(way, result.measured_law(way), crossed)
        predicted = result.predicted_law(way)
        if predicted is not None:
            shared = own.variance[result.common(way)]
            laws["theory"][way] = _law(way, predicted, shared)
    return Emerged(
        str(criterion),
        [STATUS[status] for status in own.status],
        [{1: "rising", -1: "falling"}.get(int(sign), "") for sign in own.direction],
        eligible,
        own.crossed("rising") | own.crossed("falling"),
        own.time,
        np.full_like(own.time, np.nan) if theory is None else theory.time,
        **laws,
    )


def _law(way: str, law: EmergenceLaw | PowerLaw, variance: Array) -> Law:
    if not law.determinable:
        return Law(way, str(law), "", np.empty(0), np.empty(0))
    ends = np.array([variance.min(), variance.max()])
    interval = f" [{law.low:.2f}, {law.high:.2f}]" if isinstance(law, EmergenceLaw) else ""
    return Law(way, str(law), f"{law.exponent:.2f}{interval}", ends, law.prefactor * ends**-law.exponent)
