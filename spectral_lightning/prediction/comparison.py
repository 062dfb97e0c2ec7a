"""Compares measured and predicted emergence under the same rules."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from spectral_lightning.emergence import (
    RULES,
    Criterion,
    EmergenceLaw,
    ModeEmergence,
    PowerLaw,
    emergence,
    fit_power_law,
)
from spectral_lightning.spectra.history import SpectralHistory

__all__ = ["Comparison", "compare"]


@dataclass(frozen=True)
class Comparison:
    """Measured and predicted emergence: same modes, steps, thresholds and gray zone.

    Attributes:
        measured: emergence in the measured history.
        predicted: emergence in the predicted history; None without a prediction.
    """

    measured: ModeEmergence
    predicted: ModeEmergence | None = None
    _laws: dict[str, EmergenceLaw] = field(default_factory=dict, init=False, repr=False, compare=False)

    def common(self, way: str) -> NDArray[np.bool_]:
        """Mask of the modes of one direction that crossed in both."""
        if self.predicted is None:
            return np.zeros_like(self.measured.crossed(way))
        return np.asarray(self.measured.crossed(way) & self.predicted.crossed(way))

    def measured_law(self, way: str) -> EmergenceLaw:
        """The measured law of one direction, kept: a fit takes about half a second."""
        if way not in self._laws:
            self._laws[way] = self.measured.law(way)
        return self._laws[way]

    def predicted_law(self, way: str) -> PowerLaw | None:
        """The line through the predicted times of the modes that crossed in both; None without a prediction."""
        if self.predicted is None:
            return None
        common = self.common(way)
        variance, time = self.predicted.variance[common], self.predicted.time[common]
        return fit_power_law(variance, time, min_modes=RULES.min_modes, min_decades=RULES.min_decades)


def compare(
    history: SpectralHistory,
    prediction: SpectralHistory | None = None,
    criterion: Criterion = "geometric",
    gray_factor: float = 2.0,
) -> Comparison:
    """Emergence in a measured history and in its prediction, with the sampler's fixed point as target.

    Both use the measurement's thresholds, direction, gray zone and time window. The standard errors of the measurement weigh
    its records and give every time an error. A measurement by slices of a block of latents is smoothed first, see
    :meth:`~spectral_lightning.spectra.SpectralHistory.smoothed`.

    Args:
        history: the measurement; its first row precedes training.
        prediction: the predicted history of the same modes.
        criterion: as for :func:`~spectral_lightning.emergence.threshold`.
        gray_factor: as for :func:`~spectral_lightning.emergence.gray_zone`.
    """
    history = history.smoothed()

    def of(table: SpectralHistory, like: ModeEmergence | None = None) -> ModeEmergence:
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
            error=table["standard_error"][within] if "standard_error" in table else None,
            level=None if like is None else like.threshold,
        )

    measured = of(history)
    return Comparison(measured, of(prediction, measured) if prediction is not None and len(prediction) else None)
