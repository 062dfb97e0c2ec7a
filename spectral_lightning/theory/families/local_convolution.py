"""One convolution with a kernel smaller than the image per noise level (WP Prop. 5.4)."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectral_lightning.arguments import finite, positive_integer
from spectral_lightning.sampling import Sampler
from spectral_lightning.theory.affine import Bias, CircularConvolution, ConvolutionCurves
from spectral_lightning.theory.data import GaussianData, GaussianField, lattice
from spectral_lightning.theory.dynamics import checked
from spectral_lightning.theory.objective import Objective
from spectral_lightning.theory.solving.generation import gauss_legendre, sampled_amplitude
from spectral_lightning.theory.solving.regression import AffineRegression, Blocks

__all__ = ["LocalConvolution", "LocalCurves"]

Array = NDArray[np.float64]
Field = NDArray[Any]


class LocalConvolution(CircularConvolution):
    """Independent circular convolutions of width K < N per noise level: long waves are learnt together.

    ``w(tau) = w* + exp(-2 N eta tau (sigma^2 I + S)) (w(0) - w*)``, ``w* = (sigma^2 I + S)^-1 S e0``,

    with S the covariance of circular patches averaged over positions and e0 their centre; with channels a patch holds all
    of them and e0 is one column per channel. A shared bias extends the patch by a constant feature and relaxes with N eta
    as the kernel; without a bias the kernel learns second moments. The gain at a Fourier mode is the real part of the
    kernel's transfer function, which for one channel is complex only if the initial kernel is not mirror-symmetric. For
    several channels the flow is integrated, because transfer matrices do not commute between noise levels. The limit of
    the generated spectrum is *not* the data's spectrum, which a local kernel cannot represent; thresholds of emergence use
    that limit.

    Latest over earliest emergence, for K = 3, Q = 0 and the geometric criterion on fields with a spectrum of 1/k or 1/k^2:
    at most 1.3 for waves of 8 pixels and longer (full width: the ratio of their variances, up to 935 at N = 256). For all
    waves down to 2 pixels it is 1.5 to 1.9 times the ratio of the eigenvalues of S, which is large on a smooth field: 30
    (full width: 61) at N = 16 and 153 (935) at N = 64 for 1/k^2.

    Assumptions: circular boundary, odd K, weights independent between noise levels, full-batch gradients of the expected
    loss summed over pixels and channels. The data need not be stationary, but one bias per pixel needs a mean that is
    the same at all pixels.

    Reference: WP proposition 5.4; channels, bias, preconditioning and noise density are beyond WP.

    Args:
        objective: learning rate, preconditioning, and how the loss, summed over pixels and channels, is descended.
        kernel_size: K, odd, along every axis.
        init: initial gain Q, a kernel of ``Q`` at its centre and zero elsewhere (of F under preconditioning), or any
            kernel ``[C, C, *K]``.
        bias: None, ``"shared"`` by all pixels, or one ``"per_pixel"``; it starts at ``init_bias``.
        init_bias: bias before training.

    Raises:
        ValueError: for an argument out of range or an ``initial_gain``: gains per mode do not fix a kernel; from the
            curves, for descent that diverges.

    Example:
        >>> curves = LocalConvolution(Objective(1e-3), kernel_size=3).on(GaussianData(np.eye(8)))
        >>> curves.kernel(np.inf, 1.0)[0, 0].round(6)
        array([0. , 0.5, 0. ])
    """

    takes_gain = False
    ends_at_data = False

    def __init__(
        self,
        objective: Objective,
        kernel_size: int = 3,
        init: float | list[Any] | Array = 0.0,
        bias: Bias | None = None,
        init_bias: float = 0.0,
    ) -> None:
        super().__init__(objective, bias, init_bias)
        self.init = finite("init", init) if np.ndim(init) == 0 else np.asarray(init, np.float64)
        self.kernel_size = positive_integer("kernel_size", kernel_size)
        if kernel_size % 2 == 0:
            raise ValueError(f"`kernel_size` must be odd, got {kernel_size!r}. An even kernel has no centre.")

    def on(self, data: GaussianData | GaussianField) -> LocalCurves:
        """The curves on images of these moments.

        Raises:
            ValueError: for images smaller than the kernel, another number of channels than the initial kernel has, and
                one bias per pixel where the mean is not the same at all pixels.
        """
        field, blocks, _, speed = self._moments(data)
        size, channels = field.size, field.channels
        if self.kernel_size > min(size):
            raise ValueError(f"`kernel_size` must be at most {min(size)}, the image's, got {self.kernel_size!r}.")
        means = field.mean.reshape(channels, -1)
        spread = np.ptp(means, axis=1).max()
        if self.bias == "per_pixel" and spread > 1e-9 * np.abs(means).max():
            raise ValueError(
                "`mean` must be the same at all pixels for a local convolution with one bias per pixel, got a range of "
                f"{spread:.3g}. Use bias='shared' or FullWidthConvolution."
            )
        shape = (channels, channels, *(self.kernel_size,) * len(size))
        if np.shape(self.init) not in ((), shape) or not np.isfinite(self.init).all():
            raise ValueError(
                f"`init` must be a number or a finite kernel of shape {shape}, got shape {np.shape(self.init)}."
            )
        phases = self.phases(field)
        taps = len(phases)
        patch = np.einsum("ak,kcd,bk->cadb", phases, blocks.covariance, phases.conj(), optimize=True).real
        patch = patch.reshape(channels * taps, channels * taps) / field.pixels
        mean = np.repeat(means.mean(axis=1) * (self.bias is not None), taps)
        select = np.kron(np.eye(channels), np.eye(taps)[taps // 2])
        start = self.init * select if np.ndim(self.init) == 0 else np.reshape(self.init, select.shape)
        bias = np.full(channels, self.init_bias)
        regression = AffineRegression(
            self.objective, Blocks((patch + patch.T) / 2, mean), select, start, bias, float(field.pixels), speed
        )
        return LocalCurves(self, field, blocks, regression)

    def phases(self, field: GaussianField) -> Field:
        """``exp(2 pi i k . a / N)`` for every tap a, row by row, and frequency k, ``[taps, pixels]``."""
        line = np.arange(self.kernel_size) - self.kernel_size // 2
        taps = lattice(*(line,) * len(field.size))
        return np.asarray(np.exp(2j * np.pi * (taps / field.size) @ field.frequencies.T))


class LocalCurves(ConvolutionCurves):
    """Curves of a local convolution, with its kernel."""

    family: LocalConvolution

    def kernel(self, time: ArrayLike, sigma: ArrayLike) -> Array:
        """Kernel ``w_oi(a)`` of the denoiser, offsets a from ``-(K - 1)/2``, ``[*time, *sigma, C, C, *K]``."""
        taps = (self.family.kernel_size,) * len(self.size)
        flat = self._parameters(time, sigma)[0]
        return flat.reshape(np.shape(time) + np.shape(sigma) + (self.channels, self.channels, *taps))

    def bias(self, time: ArrayLike, sigma: ArrayLike) -> Array:
        """Bias of the denoiser, the same at all pixels, ``[*time, *sigma, C]``; zeros without one."""
        return self._parameters(time, sigma)[1].reshape(np.shape(time) + np.shape(sigma) + (self.channels,))

    def affine(self, time: Array, sigma: Array, gain: Array | None = None) -> tuple[Field, Field]:
        """Transfer matrices and biases at every frequency, ``[time, sigma, frequency, C, C]`` and one axis less."""
        kernel, bias = self.regression.at(time, sigma)
        folded = kernel.reshape(*kernel.shape[:-1], self.channels, -1)
        transfer = np.moveaxis(folded @ self._phases, -1, 2)
        wave = np.zeros((*transfer.shape[:3], self.channels), transfer.dtype)
        wave[:, :, 0] = np.sqrt(self.pixels) * bias
        return transfer, wave

    def _parameters(self, time: ArrayLike, sigma: ArrayLike) -> tuple[Array, Array]:
        return self.regression.at(*(a.reshape(-1) for a in checked(time=time, sigma=sigma)))

    @cached_property
    def _phases(self) -> Field:
        return self.family.phases(self.field)

    def _variances(self, time: Array, sampler: Sampler | None, gain: Array | None) -> tuple[Array]:
        if self.channels > 1:
            return super()._variances(time, sampler, gain)
        return (self._single_channel(time, np.tile(np.arange(self.pixels), (len(time), 1)), sampler),)

    def _log_variance(self, time: Array, mode: NDArray[np.int64], sampler: Sampler | None, gain: Array | None) -> Array:
        if self.channels > 1 or time.ndim == 2:
            return super()._log_variance(time, mode, sampler, gain)
        with np.errstate(divide="ignore"):
            return np.log(self._single_channel(time, mode[:, None], sampler)[:, 0])

    def _single_channel(self, time: Array, mode: NDArray[np.int64], sampler: Sampler | None) -> Array:
        """Generated variance at modes ``[time, ..]`` of a single channel, whose transfer functions commute."""
        low, high = self.objective.sigma_min, self.objective.sigma_max
        levels, share = gauss_legendre(low, high, self.family.nodes)
        sigma = levels if sampler is None else np.asarray(sampler.levels)
        kernel = self.regression.at(time, sigma)[0][:, :, 0]
        psi = np.moveaxis(np.einsum("tsa,atm->tsm", kernel, self._phases[:, mode], optimize=True), 1, 0)
        if sampler is None:
            return np.asarray(high**2 * np.exp(-2 * np.tensordot(share, 1 - psi.real, axes=(0, 0))))
        return np.asarray(np.abs(sampled_amplitude(psi, sampler)) ** 2)
