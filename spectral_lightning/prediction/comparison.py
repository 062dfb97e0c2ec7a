"""Compares measured and predicted emergence under the same rules."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spectral_lightning.emergence import ModeEmergence, PowerLaw, emergence
from spectral_lightning.spectra.history import SpectralHistory

__all__ = ["Comparison", "compare"]


@dataclass(frozen=True)
class Comparison:
    """Measured and predicted emergence: same modes, steps, criterion and gray zone.

    Attributes:
        measured: emergence in the measured history.
        predicted: emergence in the predicted history; None without a prediction.
    """

    measured: ModeEmergence
    predicted: ModeEmergence | None = None

    def common(self, way: str) -> NDArray[np.bool_]:
        """Mask of the modes of one direction that crossed in both."""
        if self.predicted is None:
            return np.zeros_like(self.measured.crossed(way))
        return np.asarray(self.measured.crossed(way) & self.predicted.crossed(way))

    def measured_law(self, way: str, common: bool = False) -> PowerLaw:
        """The measured law; if ``common``, only over modes that crossed in both."""
        return self.measured.law(way, self.common(way) if common else None)

    def predicted_law(self, way: str) -> PowerLaw | None:
        """The predicted law over the modes that crossed in both; None without a prediction."""
        return None if self.predicted is None else self.predicted.law(way, self.common(way))


def compare(
    history: SpectralHistory,
    prediction: SpectralHistory | None = None,
    criterion: str | float = "geometric",
    gray_factor: float = 2.0,
) -> Comparison:
    """Emergence in a measured history and in its prediction, with the sampler's fixed point as target.

    Both use the measurement's direction, gray zone and time window. The threshold lies between each history's initial
    variance and the fixed point. A measurement by slices of a block of latents is smoothed first, see
    :meth:`~spectral_lightning.spectra.SpectralHistory.smoothed`.

    Args:
        history: the measurement; its first row precedes training.
        prediction: the predicted history of the same modes.
        criterion: as for :func:`~spectral_lightning.emergence.threshold`.
        gray_factor: as for :func:`~spectral_lightning.emergence.gray_zone`.
    """
    history = history.smoothed()

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
