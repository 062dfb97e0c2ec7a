"""What full-width and local convolutions share: binding, Fourier modes and the generated spectrum."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectral_lightning.sampling import Sampler
from spectral_lightning.theory.bound import BoundDynamics
from spectral_lightning.theory.preconditioning import Preconditioning
from spectral_lightning.theory.solving.blocks import Blocks
from spectral_lightning.theory.solving.circular import (
    checked_size,
    checked_spectrum,
    circular_blocks,
    mean_field,
    spectrum_of,
)
from spectral_lightning.theory.solving.regression import AffineRegression

__all__ = ["CircularConvolution"]

Array = NDArray[np.float64]
Field = NDArray[Any]

_BIASES = (None, "shared", "per_pixel")


class CircularConvolution(BoundDynamics):
    """Learning of a convolution with circular boundary, ``D(z)_o(x) = Sum_{i,a} w_oi(a) z_i(x + a) + b_o``.

    At Fourier mode k (unitary DFT) it acts as the matrix ``T(k) = Sum_a w(a) exp(2 pi i k.a / N)`` on the channels. The
    modes are the eigenvectors of the C x C Hermitian spectral matrix at each frequency; only the average of the
    covariance over shifts enters, so the data need not be stationary.

    Args:
        learning_rate: eta, of a loss summed over pixels and channels.
        init: initial gain Q, a kernel of ``Q`` at its centre and zero elsewhere.
        bias: None, ``"shared"`` by all pixels, or one ``"per_pixel"``; it starts at ``init_bias``.
        init_bias: bias before training.
        preconditioning: how the layer becomes a denoiser and how its loss is weighted; none if not given.
        sigma_min: where the exact flow ends.
        sigma_max: where the exact flow starts.
        noise_density: multiplies the rates at each noise level, as for :class:`OneLayer`.
        discrete: gradient descent with ``time`` counting steps, instead of gradient flow.
        nodes: noise levels at which the exact flow evaluates the weights.
    """

    def __init__(
        self,
        learning_rate: float,
        init: float = 0.0,
        bias: Literal["shared", "per_pixel"] | None = None,
        init_bias: float = 0.0,
        preconditioning: Preconditioning | None = None,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        noise_density: Callable[[Any], Any] | None = None,
        discrete: bool = False,
        nodes: int = 200,
    ) -> None:
        super().__init__(learning_rate, preconditioning, sigma_min, sigma_max, noise_density, discrete, nodes)
        for name, value in (("init", init), ("init_bias", init_bias)):
            if not np.isfinite(value):
                raise ValueError(f"`{name}` must be a finite number, got {value!r}.")
        if bias not in _BIASES:
            raise ValueError(f"`bias` must be one of None, 'shared', 'per_pixel', got {bias!r}.")
        if bias is None and init_bias != 0:
            raise ValueError(f"`init_bias` must be 0 without a bias, got {init_bias!r}. Or pass bias='shared'.")
        self.init, self.init_bias = float(init), float(init_bias)
        self.bias_kind: str | None = bias
        self.size: tuple[int, ...] = ()
        self.channels = 0

    def bind(
        self,
        mean: ArrayLike | None,
        covariance: ArrayLike,
        size: int | tuple[int, ...] | None = None,
        channels: int = 1,
    ) -> Self:
        """The same dynamics on data of this mean and covariance.

        Args:
            mean: per channel ``[C]``, or per coordinate ``[C * pixels]`` or ``[C, *size]``; None for zero.
            covariance: ``[C * pixels, C * pixels]``, coordinates ordered as ``[C, *size]``.
            size: ``(N,)`` or ``(H, W)``; all pixels on one axis if not given.
            channels: C.

        Raises:
            ValueError: for shapes that do not fit each other, or a covariance that is not symmetric and positive
                semidefinite.
        """
        size = checked_size(size, len(np.atleast_1d(covariance)), channels)
        if np.shape(covariance) != (channels * int(np.prod(size)),) * 2:
            raise ValueError(f"`covariance` must be a square matrix, got shape {np.shape(covariance)}.")
        return self._bind(spectrum_of(covariance, size, channels), mean_field(mean, size, channels))

    def bind_spectrum(self, spectrum: ArrayLike, mean: ArrayLike | None = None) -> Self:
        """The same dynamics on data given by their spectral matrices.

        Args:
            spectrum: ``E x_k x_k'`` of the unitary DFT less the mean, at every frequency in the order of
                ``numpy.fft``: ``[N, C, C]`` or ``[H, W, C, C]``, Hermitian.
            mean: as for :meth:`bind`.

        Raises:
            ValueError: for matrices that are not Hermitian and positive semidefinite or not those of a real field.
        """
        matrices = checked_spectrum(spectrum)
        return self._bind(matrices, mean_field(mean, matrices.shape[:-2], matrices.shape[-1]))

    def _bind(self, spectrum: Field, mean: Array) -> Self:
        shaped = copy.copy(self)
        shaped.channels, shaped.size = mean.shape[0], mean.shape[1:]
        blocks = circular_blocks(spectrum, mean, self.bias_kind)
        return shaped._attach(blocks, shaped._learning(blocks, mean))

    @abstractmethod
    def _learning(self, blocks: Blocks, mean: Array) -> AffineRegression:
        """The learning problem on freshly bound data; ``mean`` is ``[channels, *size]``."""

    @property
    def pixels(self) -> int:
        """Number of pixels N: by how much sharing its weights speeds the convolution up."""
        return int(np.prod(self.size))

    @property
    def frequencies(self) -> NDArray[np.int64]:
        """Integer frequency of each mode along each axis, ``[mode, axis]``, in the order of :attr:`variance`."""
        self.blocks  # noqa: B018  raises the clear error where no data are bound
        axes = (np.rint(np.fft.fftfreq(n) * n).astype(np.int64) for n in self.size)
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(self.size))
        return np.repeat(grid, self.channels, axis=0)

    def transfer(self, time: ArrayLike, sigma: ArrayLike) -> Field:
        """Transfer matrix T of the denoiser at every frequency, ``[*time, *sigma, *size, C, C]``, complex."""
        return self._unfolded(self._at(time, sigma, None)[0], time, sigma)

    def generated_mean(self, time: ArrayLike, sampler: Sampler | None = None) -> Array:
        """Mean of the generated samples, ``[*time, C, *size]``."""
        wave = np.moveaxis(self._unfolded(self._distribution(time, sampler)[0], time), -1, -1 - len(self.size))
        axes = tuple(range(-len(self.size), 0))
        return np.asarray(np.fft.ifftn(wave, axes=axes, norm="ortho").real, np.float64)

    def generated_spectrum(self, time: ArrayLike, sampler: Sampler | None = None) -> Field:
        """Spectral matrices of the generated samples, less their mean, ``[*time, *size, C, C]``; the limit at infinity."""
        return self._unfolded(self._distribution(time, sampler)[1], time)

    def _distribution(self, time: ArrayLike, sampler: Sampler | None) -> list[Field]:
        flat = self._checked(time=time)[0].reshape(-1)
        return self._chunked(partial(self._moments, sampler=sampler, gain=None), flat)

    def _unfolded(self, flat: Field, *axes: ArrayLike) -> Field:
        """Undo the flattening of the leading axes and of the frequencies behind them."""
        lead = sum((np.shape(axis) for axis in axes), ())
        return flat.reshape(lead + self.size + flat.shape[len(axes) + 1 :])
