"""Emergence measured and predicted, treated alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spectral_lightning.emergence import ModeEmergence, PowerLaw, emergence
from spectral_lightning.spectra.history.history import SpectralHistory

__all__ = ["Comparison", "compare"]


@dataclass(frozen=True)
class Comparison:
    """Emergence of the same modes, over the same steps, through the same criterion and gray zone.

    Attributes:
        measured: of the measured history.
        predicted: of the theory's, None where there is none.
    """

    measured: ModeEmergence
    predicted: ModeEmergence | None = None

    def common(self, way: str) -> NDArray[np.bool_]:
        """Modes of one direction that crossed in both."""
        if self.predicted is None:
            return np.zeros_like(self.measured.crossed(way))
        return np.asarray(self.measured.crossed(way) & self.predicted.crossed(way))

    def measured_law(self, way: str, common: bool = False) -> PowerLaw:
        """The measured law, over the modes that crossed in both only if ``common``."""
        return self.measured.law(way, self.common(way) if common else None)

    def predicted_law(self, way: str) -> PowerLaw | None:
        """The theory's law over the modes that crossed in both, None without a prediction."""
        return None if self.predicted is None else self.predicted.law(way, self.common(way))


def compare(
    history: SpectralHistory,
    prediction: SpectralHistory | None = None,
    criterion: str | float = "geometric",
    gray_factor: float = 2.0,
) -> Comparison:
    """Emergence of a history and of its prediction, with the sampler's fixed point as target.

    Direction, gray zone and time window are the measurement's for both; the threshold is taken between each table's own
    initial variance and the fixed point.

    Args:
        history: the measurement; its first row is before training.
        prediction: the theory's table of the same modes.
        criterion: as for :func:`~spectral_lightning.emergence.threshold`.
        gray_factor: as for :func:`~spectral_lightning.emergence.gray_zone`.
    """

    def of(table: SpectralHistory) -> ModeEmergence:
        initial = history.variance[0] if len(history) else None
        within = table.steps <= (history.last_step or 0)
        return emergence(
            table.steps[within],
            table.variance[within],
            history.target,
            history.fixed_point,
            criterion=criterion,
            gray_factor=gray_factor,
            null_variance=history.null_variance,
            initial=initial,
        )

    return Comparison(of(history), of(prediction) if prediction is not None and len(prediction) else None)
