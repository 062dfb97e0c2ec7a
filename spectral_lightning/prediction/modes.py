"""A theory's predictions in the modes that are measured, whatever modes it is solved in."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from spectral_lightning.sampling import Sampler
from spectral_lightning.spectra import Basis, FourierBasis, overlap
from spectral_lightning.theory import GaussianData, LearningDynamics

__all__ = ["NaturalModes"]

Array = NDArray[np.float64]
Indices = NDArray[np.int64] | slice


class NaturalModes:
    """A family of the theory, solved in its own modes of the data and seen along those of a basis.

    Convolutions are solved in Fourier modes, every other family in the eigenmodes of the covariance: the natural modes. The
    predicted covariance has variances v along these and ``A v`` along the basis, with A the overlap of the two; a gain is
    the mean of the natural modes' gains weighted with A and their noisy variances. Both are exact. The data are those the
    basis was made from.

    Args:
        dynamics: the family.
        basis: the modes that are measured.

    Raises:
        ValueError: if the basis does not hold the modes of the data that the family is solved in.
    """

    def __init__(self, dynamics: LearningDynamics, basis: Basis) -> None:
        self.basis, self.dynamics = basis, dynamics
        self.natural: Basis = basis.data
        self._entry: Indices = slice(None)  # the family's mode of each natural one
        self._mode: Indices = slice(None)  # the natural mode of each of the family's, which hold both k and -k
        size: tuple[int, ...] | None = None
        channels = 1
        if dynamics.solved_in == "fourier":
            self.natural = fourier = _fourier(basis)
            self._entry, self._mode = fourier.theory_index.numpy(), fourier.mode_of_entry.numpy()
            size, channels = fourier.size, fourier.channels
        if dynamics.needs_moments:
            data = _whole(basis)
            self.curves = dynamics.on(GaussianData(_covariance(data).numpy(), data.mean.numpy(), size, channels))
        else:
            self.curves = dynamics.on(self.natural.variance.numpy())
        self._share = None if self.natural is basis else overlap(basis, self.natural).numpy()

    @property
    def own(self) -> bool:
        """Whether the basis is the family's own."""
        return self._share is None

    @property
    def takes_gain(self) -> bool:
        """Whether the prediction can start from a measured gain."""
        return self.dynamics.takes_gain

    def variance(self, time: Array, sampler: Sampler, gain: Array | None) -> Array:
        """Generated variance along the basis, ``[time, K]``, from the gain before training along :attr:`natural`."""
        table = self.curves.generated_variance(time, sampler, self._folded(gain))[:, self._entry]
        return table if self._share is None else table @ self._share.T

    def gain(self, time: Array, levels: Array, gain: Array | None) -> Array:
        """Gain of the denoiser along the basis, ``[time, level, K]``."""
        table = self.curves.weight(time, levels, self._folded(gain))[..., self._entry]
        if self._share is None:
            return table
        noisy = self.natural.variance.numpy() + np.square(levels)[:, None]
        return np.asarray((table * noisy) @ self._share.T / (noisy @ self._share.T))

    def _folded(self, gain: Array | None) -> Array | None:
        return None if gain is None else gain[:, self._mode]


def _fourier(basis: Basis) -> FourierBasis:
    if isinstance(basis, FourierBasis) and basis.bands is None:
        return basis
    data = _whole(basis)
    axes = basis.axes if isinstance(basis, FourierBasis) else None
    return FourierBasis.from_moments(data.mean, _covariance(data), basis.shape, axes=axes)


def _covariance(data: Basis) -> Tensor:
    return (data.vectors * data.variance) @ data.vectors.T


def _whole(basis: Basis) -> Basis:
    data = basis.data
    if data.vectors.shape[0] != data.vectors.shape[1]:
        raise ValueError(
            f"This theory needs all {data.vectors.shape[0]} modes of the data, got {data.vectors.shape[1]}. "
            "Leave `num_modes` of SpectralTracker out."
        )
    return data
