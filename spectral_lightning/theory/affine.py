"""Affine denoisers whose weights need not commute, and convolutions: what families that need the data's moments share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectral_lightning.arguments import finite
from spectral_lightning.sampling import Sampler
from spectral_lightning.theory.data import GaussianData, GaussianField
from spectral_lightning.theory.dynamics import Curves, LearningDynamics, checked
from spectral_lightning.theory.objective import Objective
from spectral_lightning.theory.solving.generation import flow_propagator, sampled_propagator
from spectral_lightning.theory.solving.regression import AffineRegression, Blocks

__all__ = ["AffineCurves", "Bias", "CircularConvolution", "ConvolutionCurves"]

Array = NDArray[np.float64]
Field = NDArray[Any]
Bias = Literal["shared", "per_pixel"]

_CELLS = 2**21  # complex numbers held at a time: 32 MB


class AffineCurves(Curves):
    """Curves of an affine denoiser on the mean and the covariance of its data, block by block.

    The generated distribution comes from integrating the affine flow ``dz/du = z - W z - b``, ``u = log sigma``, whose
    weights need not commute, or from the steps of a given :class:`~spectral_lightning.sampling.Sampler`.

    Args:
        family: the family.
        blocks: moments of the data.
        regression: the learning problem of the weights and the bias on these data.
        size: axes of the blocks in matrices and vectors; none for a single block.
    """

    def __init__(
        self, family: LearningDynamics, blocks: Blocks, regression: AffineRegression, size: tuple[int, ...] = ()
    ) -> None:
        super().__init__(family, blocks.variance.reshape(-1))
        self.blocks, self.regression, self.size = blocks, regression, size

    def stable_learning_rate(self, sigma: ArrayLike) -> float:
        """Largest learning rate at which descent converges at all these noise levels."""
        rates = self.regression.rates(checked(sigma=sigma)[0].reshape(-1))
        return float(2 * self.objective.learning_rate / rates.max())

    def weight(self, time: ArrayLike, sigma: ArrayLike, initial_gain: ArrayLike | None = None) -> Array:
        """Gain ``Re u_k' W u_k`` of the denoiser along each mode; see :meth:`Curves.weight`."""
        return _shaped(self.blocks.along(self._at(time, sigma, initial_gain)[0]), time, sigma)

    def loss(self, time: ArrayLike, sigma: ArrayLike, initial_gain: ArrayLike | None = None) -> Array:
        """Expected squared error; see :meth:`Curves.loss`.

        ``tr[(W - I) Sigma (W - I)' + sigma^2 W W'] + |W mu + b - mu|^2``.
        """
        weight, bias = self._at(time, sigma, initial_gain)
        data = self.blocks
        off = weight - np.eye(weight.shape[-1])
        miss = (off @ data.mean[..., None])[..., 0] + bias
        level = np.asarray(sigma, np.float64).reshape(-1, 1, 1, 1)
        error = off @ data.covariance @ np.swapaxes(off.conj(), -1, -2)
        error = error + level**2 * (weight @ np.swapaxes(weight.conj(), -1, -2))
        total = np.trace(error.real, axis1=-2, axis2=-1) + (np.abs(miss) ** 2).sum(axis=-1)
        return _shaped(total.sum(axis=-1), time, sigma)

    def kl_divergence(
        self, time: ArrayLike, sampler: Sampler | None = None, initial_gain: ArrayLike | None = None
    ) -> Array:
        """KL(generated || data) in nats along each mode, ``[*time, mode]``, with the distance of the means.

        ``(r - 1 - log r) / 2 + |m~ - m|^2 / (2 lambda)``, ``r = lambda~ / lambda``; infinite for a null mode. The modes of
        the samples may be correlated; see :meth:`joint_kl_divergence`.
        """
        spread = super().kl_divergence(time, sampler, initial_gain)
        if not (self.regression.coupled or np.any(self.regression.bias)):
            return spread  # no bias at any time, so both means are zero
        mean, _ = self._distribution(time, sampler, initial_gain)
        off = np.einsum("bik,...bi->...bk", self.blocks.modes.conj(), mean - self.blocks.mean)
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = np.where(off == 0, 0.0, np.abs(off) ** 2 / (2 * self.blocks.variance))
        return spread + _shaped(distance.reshape(len(distance), -1), time)

    def joint_kl_divergence(self, time: ArrayLike, sampler: Sampler | None = None) -> Array:
        """KL(generated || data) of the whole Gaussians in nats, including correlations between modes, ``[*time]``."""
        _, covariance = self._distribution(time, sampler)
        with np.errstate(divide="ignore"):
            apart = np.log(self.blocks.along(covariance)).sum(axis=-1)
            together = np.linalg.slogdet(covariance)[1].sum(axis=-1)
        correlations = _shaped((apart - together) / 2, time)
        return np.asarray(self.kl_divergence(time, sampler).sum(axis=-1) + correlations, np.float64)

    @property
    def longest_descent(self) -> float:
        """Largest number of descent steps that :meth:`emergence_time` follows: until the slowest mode has settled."""
        return float(max(2.0, self._time_range()[1]))

    def affine(self, time: Array, sigma: Array, gain: Array | None = None) -> tuple[Field, Field]:
        """Weights ``[time, sigma, block, d, d]`` and bias ``[time, sigma, block, d]`` of the denoiser.

        ``gain``, ``[sigma, mode]``, replaces the family's own gain before training.
        """
        return self.regression.at(time, sigma, None if gain is None else self.blocks.aligned(gain))

    def _at(self, time: ArrayLike, sigma: ArrayLike, initial_gain: ArrayLike | None = None) -> tuple[Field, Field]:
        t, s = (a.reshape(-1) for a in checked(time=time, sigma=sigma))
        gain = None if initial_gain is None else self._gain(initial_gain, sigma).reshape(len(s), -1)
        return self.affine(t, s, gain)

    def _distribution(
        self, time: ArrayLike, sampler: Sampler | None, initial_gain: ArrayLike | None = None
    ) -> list[Field]:
        """Mean ``[flat time, block, d]`` and covariance ``[flat time, block, d, d]`` of the generated samples."""
        gain = self._level_gains(initial_gain, sampler)
        return self._chunked(partial(self._moments, sampler=sampler, gain=gain), checked(time=time)[0].reshape(-1))

    def _moments(self, time: Array, sampler: Sampler | None, gain: Array | None) -> tuple[Field, Field]:
        def affine(sigma: Array) -> tuple[Field, Field]:
            return self.affine(time, sigma, gain)

        if sampler is None:
            low, start = self.objective.sigma_min, self.objective.sigma_max
            end = flow_propagator(affine, low, start, self.family.nodes)
        else:
            start, end = sampler.start, sampled_propagator(affine, sampler)
        linear = start * end[..., :-1]
        return end[..., -1], linear @ np.swapaxes(linear.conj(), -1, -2)

    def _variances(self, time: Array, sampler: Sampler | None, gain: Array | None) -> tuple[Array]:
        """Generated variance of all modes, ``[time, mode]``."""
        return (self.blocks.along(self._moments(time, sampler, gain)[1]),)

    def _log_variance(self, time: Array, mode: NDArray[np.int64], sampler: Sampler | None, gain: Array | None) -> Array:
        # A grid of times serves all modes at once; in root finding every mode has its own time.
        flat = time[:, 0] if time.ndim == 2 else time
        table = self._chunked(partial(self._variances, sampler=sampler, gain=gain), flat)[0]
        with np.errstate(divide="ignore"):
            return np.log(np.maximum(table[:, mode[0]] if time.ndim == 2 else table[np.arange(len(time)), mode], 0.0))

    def _chunked(self, method: Callable[[Array], tuple[Field, ...]], time: Array) -> list[Field]:
        """Results of ``method`` over a time axis, in pieces that bound the memory."""
        data = self.blocks.covariance
        # The quadrature holds all its nodes, the integrator a panel.
        depth = self.family.nodes if data.shape[-1] == 1 else 32
        rows = max(1, _CELLS // (depth * data.size))
        parts = [method(time[first : first + rows]) for first in range(0, max(1, len(time)), rows)]
        return [np.concatenate(pieces) for pieces in zip(*parts, strict=True)]

    def _unfolded(self, flat: Field, *axes: ArrayLike) -> Field:
        """Undo the flattening of the leading axes and of the blocks behind them."""
        blocks = flat.shape[len(axes) + 1 :]
        return _shaped(flat.reshape(flat.shape[: len(axes)] + self.size + blocks), *axes)

    def _time_range(self) -> tuple[float, float]:
        """From well before the fastest weight moves to after the slowest has settled; narrow, as each time costs a flow."""
        rates = self.regression.rates(np.geomspace(self.objective.sigma_min, self.objective.sigma_max, 33))
        return float(1e-6 / rates.max()), float(100 / rates[rates > 0].min())


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
        """The field, its blocks of channels by frequency, the frequencies that a bias has, and how fast the bias learns.

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


def _shaped(flat: Field, *axes: ArrayLike) -> Field:
    """Undo the flattening of the leading axes."""
    return flat.reshape(sum((np.shape(axis) for axis in axes), ()) + flat.shape[len(axes) :])
