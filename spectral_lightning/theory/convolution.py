"""What full-width and local convolutions share: their settings, Fourier modes and the generated spectrum."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectral_lightning.arguments import finite
from spectral_lightning.sampling import Sampler
from spectral_lightning.theory.affine import AffineCurves
from spectral_lightning.theory.data import GaussianData, GaussianField
from spectral_lightning.theory.dynamics import LearningDynamics
from spectral_lightning.theory.objective import Objective
from spectral_lightning.theory.solving.regression import AffineRegression, Blocks

__all__ = ["Bias", "CircularConvolution", "ConvolutionCurves"]

Array = NDArray[np.float64]
Field = NDArray[Any]
Bias = Literal["shared", "per_pixel"]


class CircularConvolution(LearningDynamics):
    """A convolution with circular boundary, ``D(z)_o(x) = Sum_{i,a} w_oi(a) z_i(x + a) + b_o``.

    At Fourier mode k (unitary DFT) it acts as the matrix ``T(k) = Sum_a w(a) exp(2 pi i k.a / N)`` on the channels. The
    modes are the eigenvectors of the C x C Hermitian spectral matrix at each frequency; only the average of the
    covariance over shifts enters, so the data need not be stationary.

    Args:
        objective: learning rate, preconditioning, and how the loss, summed over pixels and channels, is descended.
        bias: None, ``"shared"`` by all pixels, or one ``"per_pixel"``.
        init_bias: bias before training.
    """

    solved_in = "fourier"
    needs_moments = True

    def __init__(self, objective: Objective, bias: Bias | None, init_bias: float) -> None:
        super().__init__(objective)
        self.bias, self.init_bias = bias, finite("init_bias", init_bias)
        if bias not in (None, "shared", "per_pixel"):
            raise ValueError(f"`bias` must be one of None, 'shared', 'per_pixel', got {bias!r}.")
        if bias is None and init_bias != 0:
            raise ValueError(f"`init_bias` must be 0 without a bias, got {init_bias!r}. Or pass bias='shared'.")

    def _moments(self, data: GaussianData | GaussianField) -> tuple[GaussianField, Blocks, NDArray[np.bool_], float]:
        """The field, its blocks of channels by frequency, whose mean a bias carries, and how fast the bias learns.

        A mean that no bias can carry counts as second moment.
        """
        field = data.field if isinstance(data, GaussianData) else data
        if not isinstance(field, GaussianField):
            raise TypeError(f"`data` must be GaussianData or a GaussianField for {self!r}, got {type(data).__name__}.")
        pixels, channels, axes = field.pixels, field.channels, tuple(range(1, field.mean.ndim))
        count, speed = {None: (0, 0.0), "shared": (1, float(pixels)), "per_pixel": (pixels, 1.0)}[self.bias]
        carried = np.arange(pixels) < count
        wave = np.fft.fftn(field.mean, axes=axes, norm="ortho").reshape(channels, pixels).T
        rest = np.where(carried[:, None], 0.0, wave)
        second = field.spectrum.reshape(pixels, channels, channels) + rest[:, :, None] * rest[:, None, :].conj()
        return field, Blocks(second, wave - rest), carried, speed


class ConvolutionCurves(AffineCurves):
    """Curves of a convolution, one mode per frequency and channel.

    Args:
        family: the convolution.
        field: the data.
        blocks: their moments, one block of channels per frequency.
        regression: the learning problem of the kernel and the bias.
    """

    family: CircularConvolution

    def __init__(
        self, family: CircularConvolution, field: GaussianField, blocks: Blocks, regression: AffineRegression
    ) -> None:
        super().__init__(family, blocks, regression, field.size)
        self.field, self.channels, self.pixels = field, field.channels, field.pixels

    @property
    def frequencies(self) -> NDArray[np.int64]:
        """Integer frequency of each mode along each axis, ``[mode, axis]``, in the order of :attr:`variance`."""
        return np.repeat(self.field.frequencies, self.channels, axis=0)

    def transfer(self, time: ArrayLike, sigma: ArrayLike) -> Field:
        """Transfer matrix T of the denoiser at every frequency, ``[*time, *sigma, *size, C, C]``, complex."""
        return self._unfolded(self._at(time, sigma)[0], time, sigma)

    def generated_mean(self, time: ArrayLike, sampler: Sampler | None = None) -> Array:
        """Mean of the generated samples, ``[*time, C, *size]``."""
        return self._pixels(self._distribution(time, sampler)[0], time)

    def generated_spectrum(self, time: ArrayLike, sampler: Sampler | None = None) -> Field:
        """Spectral matrices of the generated samples, less their mean, ``[*time, *size, C, C]``; the limit at infinity."""
        return self._unfolded(self._distribution(time, sampler)[1], time)

    def _pixels(self, waves: Field, *axes: ArrayLike) -> Array:
        """Vectors of channels at every frequency as images ``[.., C, *size]``."""
        dims = len(self.size)
        wave = np.moveaxis(self._unfolded(waves, *axes), -1, -1 - dims)
        return np.asarray(np.fft.ifftn(wave, axes=tuple(range(-dims, 0)), norm="ortho").real, np.float64)
