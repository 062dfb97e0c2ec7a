"""Where a local convolution ends that is trained for ever, from the stored power spectrum of the data alone."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from spectral_lightning.sampling import Sampler
from spectral_lightning.spectra import SpectralHistory
from spectral_lightning.theory import LocalConvolution

__all__ = ["circular_modes", "local_limit"]

Array = NDArray[np.float64]


def circular_modes(history: SpectralHistory) -> NDArray[np.int64]:
    """Cycles along both axes of every mode of a history in single Fourier modes, ``[K, 2]``."""
    waves = [re.findall(r"-?\d+", label) for label in history.metadata["modes"]]
    return np.asarray(waves, np.int64)


def local_limit(history: SpectralHistory, side: int, kernel_size: int) -> Array:
    """Variance that the sampler makes of the best kernel at every noise level, ``[K]``.

    The best kernel depends on the patch covariance of circular patches alone, which is a part of the autocovariance, the
    Fourier transform of the power spectrum.

    Args:
        history: of grey images of ``side x side`` pixels in single Fourier modes.
        side: of the images.
        kernel_size: of the convolution, along both axes.
    """
    waves = circular_modes(history)
    power = np.zeros((side, side))
    for wave in (waves % side, -waves % side):  # k and -k are one mode
        power[wave[:, 0], wave[:, 1]] = history.target
    autocovariance = np.fft.ifft2(power).real
    place = np.stack(np.unravel_index(np.arange(side**2), (side, side)), axis=-1)
    lags = (place[:, None] - place[None]) % side
    stationary = autocovariance[lags[..., 0], lags[..., 1]]
    theory = LocalConvolution(1.0, kernel_size).bind(None, stationary, size=(side, side))
    sampler = Sampler(grid=(*history["levels"].tolist(), 0.0))
    limit = theory.generated_variance([np.inf], None, sampler)[0]
    return np.asarray(limit[(waves[:, 0] % side) * side + waves[:, 1] % side])
