"""One convolution as wide as the image per noise level (WP Prop. 5.3)."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectral_lightning.arguments import finite
from spectral_lightning.sampling import Sampler
from spectral_lightning.theory.affine import Bias, CircularConvolution, ConvolutionCurves
from spectral_lightning.theory.data import GaussianData, GaussianField
from spectral_lightning.theory.families.one_layer import OneLayer
from spectral_lightning.theory.modewise import ModeCurves
from spectral_lightning.theory.objective import Objective
from spectral_lightning.theory.solving.regression import AffineRegression

__all__ = ["FullWidthConvolution", "FullWidthCurves"]

Array = NDArray[np.float64]


class FullWidthConvolution(CircularConvolution):
    """Independent circular convolutions as wide as the image per noise level, N times faster than one layer.

    ``T_k(tau) = T*_k + (T_k(0) - T*_k) exp(-2 N eta tau (Sigma_k + sigma^2 I))``, ``T*_k = Sigma_k (Sigma_k + sigma^2)^-1``

    with ``Sigma_k`` the C x C spectral matrix of frequency k: :class:`OneLayer` along its eigenvectors, at the rate N eta.
    A mean is learnt by the bias, which relaxes with N eta if all pixels share it and with eta if each has its own, and
    couples to the kernel at its frequencies (as in :class:`NonCenteredOneLayer`, per frequency). Without a
    bias the kernel learns second moments, and the curves' ``variance`` holds these.

    Assumptions: circular boundary, kernel of full width, weights independent between noise levels, full-batch gradients
    of the expected loss summed over pixels and channels. The data need not be stationary.

    Reference: WP proposition 5.3; channels, bias, preconditioning and noise density are beyond WP.

    Args:
        objective: learning rate, preconditioning, and how the loss, summed over pixels and channels, is descended.
        init: initial gain Q, a kernel of ``Q`` at its centre and zero elsewhere (of F under preconditioning).
        bias: None, ``"shared"`` by all pixels, or one ``"per_pixel"``; it starts at ``init_bias``.
        init_bias: bias before training.

    Raises:
        ValueError: for an argument out of range; from the curves, for descent that diverges.

    Example:
        >>> curves = FullWidthConvolution(Objective(1e-3)).on(GaussianData(np.eye(8)))
        >>> curves.kernel(np.inf, 1.0)[0, 0].round(6)
        array([0.5, 0. , 0. , 0. , 0. , 0. , 0. , 0. ])
    """

    def __init__(
        self, objective: Objective, init: float = 0.0, bias: Bias | None = None, init_bias: float = 0.0
    ) -> None:
        super().__init__(objective, bias, init_bias)
        self.init = finite("init", init)

    def on(self, data: GaussianData | GaussianField) -> FullWidthCurves:
        """The curves on images of these moments."""
        field, blocks, carried, speed = self._moments(data)
        pixels, eye = field.pixels, np.eye(field.channels)
        start = np.zeros(blocks.mean.shape)
        start[0] = self.init_bias * np.sqrt(pixels)
        weight = np.broadcast_to(self.init * eye, blocks.covariance.shape)
        regression = AffineRegression(self.objective, blocks, eye, weight, start, float(pixels), speed * carried)
        return FullWidthCurves(self, field, blocks, regression)


class FullWidthCurves(ConvolutionCurves):
    """Curves of a full-width convolution; those of one layer along each mode unless a mean couples to the kernel.

    Without a mean the modes emerge N times earlier than those of :class:`OneLayer`.
    """

    family: FullWidthConvolution

    def kernel(self, time: ArrayLike, sigma: ArrayLike) -> Array:
        """Kernel ``w_oi(a)`` of the denoiser, offsets a from 0 upwards, ``[*time, *sigma, C, C, *size]``."""
        dims = len(self.size)
        spectrum = np.moveaxis(self.transfer(time, sigma), (-2, -1), (-2 - dims, -1 - dims))
        return np.asarray(np.fft.fftn(spectrum, axes=tuple(range(-dims, 0))).real / self.pixels, np.float64)

    def bias(self, time: ArrayLike, sigma: ArrayLike) -> Array:
        """Bias of the denoiser at every pixel, ``[*time, *sigma, C, *size]``; zeros without one."""
        return self._pixels(self._at(time, sigma)[1], time, sigma)

    @cached_property
    def _one_layer(self) -> ModeCurves:
        """One layer along the modes. Discrete descent takes N as a density, so that errors show the user's eta."""
        given, pixels = self.objective, self.pixels

        def density(sigma: Any) -> Any:
            return pixels * (sigma * 0 + 1 if given.noise_density is None else given.noise_density(sigma))

        faster = {"noise_density": density} if given.discrete else {"learning_rate": pixels * given.learning_rate}
        return OneLayer(replace(given, **faster), self.family.init).on(self.variance)

    def _log_variance(self, time: Array, mode: NDArray[np.int64], sampler: Sampler | None, gain: Array | None) -> Array:
        if self.regression.coupled:
            return super()._log_variance(time, mode, sampler, gain)
        return self._one_layer._log_variance(time, mode, sampler, gain)

    def _times(self) -> Array:
        return super()._times() if self.regression.coupled else self._one_layer._times()
