"""Generated and expected variance by scale, from the Fourier modes of a history."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spectral_lightning.spectra.history import SpectralHistory

__all__ = ["Scales", "within"]

Array = NDArray[np.float64]

_WITHIN = 0.1  # of the expected variance
_MISSING = 0.6  # of it, below which structure is missing


def within(ratio: Array, error: Array) -> NDArray[np.bool_]:
    """Whether a ratio of generated to expected variance is not off by more than 10 % and two standard errors."""
    return np.asarray(np.abs(ratio - 1) <= np.maximum(_WITHIN, 2 * error))


@dataclass(frozen=True)
class Scales:
    """Ratio of generated to expected variance in bands of similar wavelength, the longest first.

    A band pools the modes with the same whole number of cycles along the longest side, weighted by their coordinates. The
    expected variance is the sampler's fixed point.

    Attributes:
        wavelength: pixels per cycle, ``[B]``; infinite for the mean.
        ratio: generated over expected variance, ``[B]``.
        error: standard error of the ratio, 0 if unknown, ``[B]``.
    """

    wavelength: Array
    ratio: Array
    error: Array

    @classmethod
    def of(cls, history: SpectralHistory, row: int) -> Scales | None:
        """The bands of one record; None for modes without a wavelength."""
        if "wavelength" not in history or not np.isfinite(history["wavelength"]).any():
            return None
        frequency, measured = 1 / history["wavelength"], history.row(row)
        count = history["multiplicity"] if "multiplicity" in history else np.ones_like(frequency)
        _, band = np.unique(np.round(frequency / frequency[frequency > 0].min()), return_inverse=True)

        def total(values: Array) -> Array:
            return np.bincount(band, values).astype(np.float64)

        expected = total(count * history.fixed_point)
        error = np.nan_to_num(measured.get("standard_error", np.zeros_like(frequency)))
        used = expected > 0
        with np.errstate(divide="ignore", invalid="ignore"):
            return cls(
                (total(count) / total(count * frequency))[used],
                (total(count * measured["variance"]) / expected)[used],
                (np.sqrt(total((count * error) ** 2)) / expected)[used],
            )

    @property
    def _right(self) -> NDArray[np.bool_]:
        """Bands within 10 % of the expected variance; the mean is no structure and counts as one."""
        return within(self.ratio, self.error) | np.isinf(self.wavelength)

    @property
    def count(self) -> int:
        """Bands learnt: the longest ones up to the first that is off by more than 10 % and two standard errors."""
        return len(self._right) if self._right.all() else int(self._right.argmin())

    @property
    def finest(self) -> float:
        """Wavelength of the finest band learnt, in pixels; NaN if there is none but the mean."""
        found = self.wavelength[: self.count]
        return float(found[-1]) if np.isfinite(found).any() else math.nan

    @property
    def biases(self) -> dict[str, float]:
        """Normalised biases, ratio - 1: at the smallest scale, and means over bands, by the names used for weather models.

        ``mean_abs_norm_bias = positive_norm_bias - negative_norm_bias``, where each sums the biases of one sign over the number
        of all bands.
        """
        bias = self.ratio - 1
        positive, negative = float(np.maximum(bias, 0).mean()), float(np.minimum(bias, 0).mean())
        return {
            "smallest_scale_norm_bias": float(bias[-1]),
            "mean_abs_norm_bias": positive - negative,
            "positive_norm_bias": positive,
            "negative_norm_bias": negative,
        }

    def sentence(self) -> str:
        """What is wrong from which scale on; empty if nothing is."""
        ratio = self.ratio[~self._right]
        if not len(ratio):
            return ""
        wrong = "is off"
        if np.isnan(ratio).all():
            wrong = "is not measured"
        elif (ratio > 1).all():
            wrong = "is too strong"
        elif (ratio < 1).all():
            wrong = "is missing" if ratio.mean() < _MISSING else "is too weak"
        where = f"finer than {self.finest:.2g} pixels" if math.isfinite(self.finest) else "of every size"
        return f"structure {where} {wrong}"
