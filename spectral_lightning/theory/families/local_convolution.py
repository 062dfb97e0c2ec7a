"""One convolution with a kernel smaller than the image per noise level (WP Prop. 5.4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectral_lightning.arguments import positive_integer
from spectral_lightning.sampling import Sampler
from spectral_lightning.theory.convolution import CircularConvolution
from spectral_lightning.theory.preconditioning import Preconditioning
from spectral_lightning.theory.solving.blocks import Blocks
from spectral_lightning.theory.solving.circular import autocovariance, kernel_offsets, phases
from spectral_lightning.theory.solving.regression import AffineRegression

__all__ = ["LocalConvolution"]

Array = NDArray[np.float64]
Field = NDArray[Any]


class LocalConvolution(CircularConvolution):
    """Independent circular convolutions of width K < N per noise level: long waves are learnt together.

    ``w(tau) = w* + exp(-2 N eta tau (sigma^2 I + S)) (w(0) - w*)``, ``w* = (sigma^2 I + S)^-1 S e0``,

    with S the covariance of circular patches averaged over positions and e0 their centre; with channels a patch holds all
    of them and e0 is one column per channel. A shared bias extends the patch by a constant feature and relaxes with N eta
    as the kernel; without a bias the kernel learns second moments. The gain at a Fourier mode is the real part of the
    kernel's transfer function (of one channel complex only where the initial kernel is not mirror-symmetric); the
    generated spectrum follows from the flow with it, which is integrated for several channels, because their transfer
    matrices do not commute between noise levels. Its limit is *not* the data's spectrum: a local kernel cannot hold it.
    Thresholds of :meth:`emergence_time` therefore use that limit.

    How nearly together the modes emerge: on fields with a spectrum of 1/k or 1/k^2, those of 8 pixels and longer within
    1.3 of each other for K = 3, Q = 0 and the geometric criterion (full width: as their variances, up to 935 at N = 256).
    All modes down to 2 pixels spread 1.5 to 1.9 times as far as the eigenvalues of S, which on a smooth field is far: 30
    (full width: 61) at N = 16 and 153 (935) at N = 64 for 1/k^2.

    Assumptions: circular boundary, odd K, weights independent between noise levels, full-batch gradients of the expected
    loss summed over pixels and channels. The data need not be stationary, but one bias per pixel needs a mean that is
    the same at all pixels.

    Reference: WP proposition 5.4; channels, bias, preconditioning and noise density are beyond WP.

    Args:
        learning_rate: eta, of a loss summed over pixels and channels.
        kernel_size: K, odd, along every axis.
        init: initial gain Q, a kernel of ``Q`` at its centre and zero elsewhere (of F under preconditioning), or any
            kernel ``[C, C, *K]``.
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
        >>> theory = LocalConvolution(1e-3, kernel_size=3).bind(None, np.eye(8))
        >>> theory.kernel(np.inf, 1.0)[0, 0].round(6)
        array([0. , 0.5, 0. ])
    """

    target_is_data = False

    def __init__(
        self,
        learning_rate: float,
        kernel_size: int,
        init: float | list[Any] | Array = 0.0,
        bias: Literal["shared", "per_pixel"] | None = None,
        init_bias: float = 0.0,
        preconditioning: Preconditioning | None = None,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        noise_density: Callable[[Any], Any] | None = None,
        discrete: bool = False,
        nodes: int = 200,
    ) -> None:
        kernel = np.asarray(init, np.float64)
        gain = float(kernel) if kernel.ndim == 0 else 0.0
        super().__init__(
            learning_rate,
            gain,
            bias,
            init_bias,
            preconditioning,
            sigma_min,
            sigma_max,
            noise_density,
            discrete,
            nodes,
        )
        self.kernel_size = positive_integer("kernel_size", kernel_size)
        if kernel_size % 2 == 0:
            raise ValueError(f"`kernel_size` must be odd, got {kernel_size!r}. An even kernel has no centre.")
        self.init_kernel = None if kernel.ndim == 0 else kernel

    def _learning(self, blocks: Blocks, mean: Array) -> AffineRegression:
        dims, channels = len(self.size), self.channels
        if self.kernel_size > min(self.size):
            raise ValueError(f"`kernel_size` must be at most {min(self.size)}, the image's, got {self.kernel_size!r}.")
        spread = np.ptp(mean.reshape(channels, -1), axis=1).max()
        if self.bias_kind == "per_pixel" and spread > 1e-9 * np.abs(mean).max():
            raise ValueError(
                "`mean` must be the same at all pixels for a local convolution with one bias per pixel, got a range of "
                f"{spread:.3g}. Use bias='shared' or FullWidthConvolution."
            )
        offsets = kernel_offsets(self.kernel_size, dims)
        taps = len(offsets)
        lags = tuple(np.moveaxis((offsets[:, None] - offsets[None]) % self.size, -1, 0))
        patch = autocovariance(blocks.covariance, self.size)[lags]
        patch = np.moveaxis(patch, (2, 3), (0, 2)).reshape(channels * taps, channels * taps)
        centre = np.zeros((channels, channels, taps))
        centre[np.arange(channels), np.arange(channels), taps // 2] = 1.0
        select = centre.reshape(channels, -1)
        carried = np.zeros(channels) if self.bias_kind is None else mean.reshape(channels, -1).mean(axis=1)
        return AffineRegression(
            self._layer,
            (patch + patch.T) / 2,
            np.repeat(carried, taps),
            select,
            self._start(select),
            np.full(channels, self.init_bias),
            float(self.pixels),
            {None: 0.0, "shared": float(self.pixels), "per_pixel": 1.0}[self.bias_kind],
        )

    def kernel(self, time: ArrayLike, sigma: ArrayLike) -> Array:
        """Kernel ``w_oi(a)`` of the denoiser, offsets a from ``-(K - 1)/2``, ``[*time, *sigma, C, C, *K]``."""
        kernel = self._shaped(self._parameters(time, sigma)[0], time, sigma)
        return kernel.reshape(*kernel.shape[:-1], self.channels, *(self.kernel_size,) * len(self.size))

    def bias(self, time: ArrayLike, sigma: ArrayLike) -> Array:
        """Bias of the denoiser, the same at all pixels, ``[*time, *sigma, C]``; zeros without one."""
        return self._shaped(self._parameters(time, sigma)[1], time, sigma)

    def _parameters(self, time: ArrayLike, sigma: ArrayLike) -> tuple[Array, Array]:
        return self.regression.at(*(a.reshape(-1) for a in self._checked(time=time, sigma=sigma)))

    @property
    def _phases(self) -> Field:
        return phases(kernel_offsets(self.kernel_size, len(self.size)), self.size)

    def _start(self, select: Array) -> Array:
        """Weights of F before training, one row per channel."""
        if self.init_kernel is None:
            return self.init * select
        shape = (self.channels, self.channels, *(self.kernel_size,) * len(self.size))
        if self.init_kernel.shape != shape or not np.isfinite(self.init_kernel).all():
            raise ValueError(
                f"`init` must be a number or a finite kernel of shape {shape}, got shape {self.init_kernel.shape}."
            )
        return self.init_kernel.reshape(select.shape)

    def _affine(self, time: Array, sigma: Array, gain: Array | None) -> tuple[Field, Field]:
        if gain is not None:
            raise ValueError("`initial_gain` must be left out: gains per mode do not fix a local kernel. Pass `init`.")
        kernel, bias = self.regression.at(time, sigma)
        folded = kernel.reshape(*kernel.shape[:-1], self.channels, -1)
        transfer = np.moveaxis(folded @ self._phases, -1, 2)
        wave = np.zeros((*transfer.shape[:3], self.channels), transfer.dtype)
        wave[:, :, 0] = np.sqrt(self.pixels) * bias
        return transfer, wave

    def _variances(self, time: Array, sampler: Sampler | None, gain: Array | None) -> tuple[Array]:
        if self.channels > 1 or gain is not None:
            return super()._variances(time, sampler, gain)
        mode = np.tile(np.arange(self.pixels), (len(time), 1))
        return (self._single_channel(time, mode, sampler),)

    def _variance_at(self, time: Array, mode: NDArray[np.int64], sampler: Sampler | None, gain: Array | None) -> Array:
        if self.channels > 1 or gain is not None:
            return super()._variance_at(time, mode, sampler, gain)
        return self._single_channel(time, mode[:, None], sampler)[:, 0]

    def _single_channel(self, time: Array, mode: NDArray[np.int64], sampler: Sampler | None) -> Array:
        """Generated variance at modes ``[time, ..]`` of a single channel, whose transfer functions commute."""
        x, share = np.polynomial.legendre.leggauss(self.nodes)
        low, high = np.log(self.sigma_min), np.log(self.sigma_max)
        sigma = np.exp((high - low) / 2 * x + (high + low) / 2) if sampler is None else np.asarray(sampler.levels)
        kernel = self.regression.at(time, sigma)[0][:, :, 0]
        psi = np.moveaxis(np.einsum("tsa,atm->tsm", kernel, self._phases[:, mode], optimize=True), 1, 0)
        if sampler is None:
            return np.asarray(np.exp(2 * high - (high - low) * np.tensordot(share, 1 - psi.real, axes=(0, 0))))
        index = {level: i for i, level in enumerate(sampler.levels)}
        start = np.full(psi.shape[1:], sampler.start, psi.dtype)
        return np.asarray(np.abs(sampler(lambda z, level: psi[index[level]] * z, start)) ** 2)
