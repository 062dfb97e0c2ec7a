"""A theory's predictions in the modes that are measured, whatever modes it is solved in."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spectral_lightning.prediction.start import Start
from spectral_lightning.sampling import Sampler
from spectral_lightning.spectra import Basis, FourierBasis, PCABasis, overlap
from spectral_lightning.spectra.moments import DENSE_DIM
from spectral_lightning.theory import GaussianData, GaussianField, LearningDynamics
from spectral_lightning.theory.modewise import ModeCurves

__all__ = ["NaturalModes"]

Array = NDArray[np.float64]
Indices = NDArray[np.int64] | slice


class NaturalModes:
    """A family of the theory, solved in its own modes of the data and seen along those of a basis.

    Convolutions are solved in Fourier modes, every other family in the eigenmodes of the covariance: the natural modes. Where
    the covariance is too large to keep, Fourier modes stand for its eigenmodes if they are known. The
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
            self.curves = dynamics.on(_moments(self.natural, size, channels))
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

    @property
    def takes_response(self) -> bool:
        """Whether the prediction can start from a measured response matrix, which needs all modes of the data."""
        whole = isinstance(self.natural, PCABasis) and len(self.natural.variance) == self.natural.dim
        return self.dynamics.takes_response and isinstance(self.curves, ModeCurves) and whole

    def variance(self, time: Array, sampler: Sampler, start: Start) -> Array:
        """Generated variance along the basis, ``[time, K]``."""
        if start.response is not None and start.gain is not None and isinstance(self.curves, ModeCurves):
            maps = (self.curves.sampled_map(float(t), sampler, start.response, start.gain) for t in time)
            return np.array([self._along(end) for end in maps]).reshape(len(time), -1)
        table = self.curves.generated_variance(time, sampler, self._folded(start.gain))[:, self._entry]
        return table if self._share is None else table @ self._share.T

    def rates(self, levels: Array) -> Array:
        """Relaxation rates of one layer at all levels and natural modes, ``[level, mode]``."""
        if not isinstance(self.curves, ModeCurves):
            raise TypeError(f"{self.dynamics!r} has no rates per mode.")
        return np.asarray(self.curves.family.rate(np.asarray(levels)[:, None], self.curves.variance))

    def _along(self, end: Array) -> Array:
        """Variances along the basis of samples ``P eps``, P in the natural modes, ``[K]``."""
        if self._share is None:
            return np.asarray(np.square(end).sum(axis=1))
        fields = self.natural.synthesize(torch.from_numpy(end.T))
        return np.asarray(self.basis.pool(self.basis.along(fields).square()).sum(0).numpy())

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
    for known in (basis, basis.data):
        if isinstance(known, FourierBasis) and known.bands is None:
            return known
    axes = basis.axes if isinstance(basis, FourierBasis) else None
    return FourierBasis.from_moments(basis.data.mean, _covariance(basis.data), basis.shape, axes=axes)


def _moments(natural: Basis, size: tuple[int, ...] | None, channels: int) -> GaussianData | GaussianField:
    """What is known of the data whose modes these are."""
    if size is not None and isinstance(natural.data, FourierBasis):
        return GaussianField(natural.data.spectral_matrices.numpy(), natural.mean.numpy())
    return GaussianData(_covariance(natural.data).numpy(), natural.mean.numpy(), size, channels)


def _covariance(data: Basis) -> Tensor:
    if not isinstance(data, PCABasis) or len(data.variance) < data.dim:
        kept = f"{len(data.variance)} {data.kind}"
        raise ValueError(
            f"This theory needs all {data.dim} modes of the data, got {kept}. Leave `num_modes` of SpectralTracker out; "
            f"above {DENSE_DIM:,} dimensions no basis has them all."
        )
    return (data.vectors * data.variance) @ data.vectors.T
