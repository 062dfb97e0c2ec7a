"""One convolution as wide as the image per noise level (WP Prop. 5.3)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectral_lightning.emergence import StaysWithin
from spectral_lightning.sampling import Sampler
from spectral_lightning.theory.convolution import CircularConvolution
from spectral_lightning.theory.families.one_layer import OneLayer
from spectral_lightning.theory.solving.blocks import Blocks
from spectral_lightning.theory.solving.regression import AffineRegression

__all__ = ["FullWidthConvolution"]

Array = NDArray[np.float64]
Field = NDArray[Any]


class FullWidthConvolution(CircularConvolution):
    """Independent circular convolutions as wide as the image per noise level, N times faster than one layer.

    ``T_k(tau) = T*_k + (T_k(0) - T*_k) exp(-2 N eta tau (Sigma_k + sigma^2 I))``, ``T*_k = Sigma_k (Sigma_k + sigma^2)^-1``

    with ``Sigma_k`` the C x C spectral matrix of frequency k: :class:`OneLayer` along its eigenvectors with N eta for eta.
    A mean is learnt by the bias, which relaxes with N eta if all pixels share it and with eta if each has its own, and
    couples to the kernel at the frequencies it has (the whole of :class:`NonCenteredOneLayer` per frequency). Without a
    bias the kernel learns second moments, and :attr:`variance` holds these.

    Assumptions: circular boundary, kernel of full width, weights independent between noise levels, full-batch gradients
    of the expected loss summed over pixels and channels. The data need not be stationary.

    Reference: WP proposition 5.3; channels, bias, preconditioning and noise density are beyond WP.

    Args:
        learning_rate: eta, of a loss summed over pixels and channels.
        init: initial gain Q, a kernel of ``Q`` at its centre and zero elsewhere (of F under preconditioning).
        bias: None, ``"shared"`` by all pixels, or one ``"per_pixel"``; it starts at ``init_bias``.
        init_bias: bias before training.
        preconditioning: how the layer becomes a denoiser and how its loss is weighted; none if not given.
        sigma_min: where the exact flow ends.
        sigma_max: where the exact flow starts.
        noise_density: multiplies the rates at each noise level, as for :class:`OneLayer`.
        discrete: gradient descent with ``time`` counting steps, instead of gradient flow.
        nodes: noise levels at which the exact flow evaluates the weights.

    Raises:
        ValueError: for an argument out of range; from the methods, before data are bound and for descent that diverges.

    Example:
        >>> theory = FullWidthConvolution(1e-3).bind(None, np.eye(8))
        >>> theory.kernel(np.inf, 1.0)[0, 0].round(6)
        array([0.5, 0. , 0. , 0. , 0. , 0. , 0. , 0. ])
    """

    def _learning(self, blocks: Blocks, mean: Array) -> AffineRegression:
        channels, pixels = self.channels, self.pixels
        start = np.zeros((pixels, channels))
        start[0] = self.init_bias * np.sqrt(pixels)
        bias_speed = np.zeros(pixels)
        if self.bias_kind == "shared":
            bias_speed[0] = pixels
        elif self.bias_kind == "per_pixel":
            bias_speed[:] = 1.0
        weight = np.broadcast_to(self.init * np.eye(channels), (pixels, channels, channels))
        return AffineRegression(
            self._layer, blocks.covariance, blocks.mean, np.eye(channels), weight, start, float(pixels), bias_speed
        )

    def kernel(self, time: ArrayLike, sigma: ArrayLike) -> Array:
        """Kernel ``w_oi(a)`` of the denoiser, offsets a from 0 upwards, ``[*time, *sigma, C, C, *size]``."""
        dims = len(self.size)
        spectrum = np.moveaxis(self.transfer(time, sigma), (-2, -1), (-2 - dims, -1 - dims))
        return np.asarray(np.fft.fftn(spectrum, axes=tuple(range(-dims, 0))).real / self.pixels, np.float64)

    def bias(self, time: ArrayLike, sigma: ArrayLike) -> Array:
        """Bias of the denoiser at every pixel, ``[*time, *sigma, C, *size]``; zeros without one."""
        dims = len(self.size)
        wave = np.moveaxis(self._unfolded(self._at(time, sigma, None)[1], time, sigma), -1, -1 - dims)
        return np.asarray(np.fft.ifftn(wave, axes=tuple(range(-dims, 0)), norm="ortho").real, np.float64)

    def emergence_time(
        self,
        variance: ArrayLike | None = None,
        criterion: str | float | StaysWithin = "geometric",
        sampler: Sampler | None = None,
        initial_gain: ArrayLike | None = None,
    ) -> Array:
        """As :meth:`BoundDynamics.emergence_time`; N times earlier than that of :class:`OneLayer` for zero mean."""
        if self.regression.coupled:
            return super().emergence_time(variance, criterion, sampler, initial_gain)
        self._check_bound(variance)
        return self._mode_by_mode().emergence_time(self.variance, criterion, sampler, initial_gain)

    def _mode_by_mode(self) -> OneLayer:
        """The one layer along the modes. Discrete descent takes N as a density, so that errors show the user's eta."""
        factor, pixels, density = 1, self.pixels, self.noise_density
        if self.discrete:
            given = density

            def density(sigma: Any) -> Any:
                return pixels * (sigma * 0 + 1 if given is None else given(sigma))
        else:
            factor = pixels
        return OneLayer(
            factor * self.learning_rate,
            self.init,
            self.preconditioning,
            self.sigma_min,
            self.sigma_max,
            density,
            self.discrete,
            self.nodes,
        )

    def _variances(self, time: Array, sampler: Sampler | None, gain: Array | None) -> tuple[Array]:
        if self.regression.coupled:
            return super()._variances(time, sampler, gain)
        return (self._mode_by_mode().generated_variance(time, self.variance, sampler, gain),)

    def _affine(self, time: Array, sigma: Array, gain: Array | None) -> tuple[Field, Field]:
        start = None if gain is None else self.blocks.aligned(gain)
        return self.regression.at(time, sigma, start)
