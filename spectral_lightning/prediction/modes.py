"""A theory's predictions in the modes that are measured, whatever modes it is solved in."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spectral_lightning.sampling import Sampler
from spectral_lightning.spectra import Basis, FourierBasis, overlap
from spectral_lightning.theory import (
    BoundDynamics,
    FullWidthConvolution,
    LearningDynamics,
    LocalConvolution,
    NonCenteredOneLayer,
)

__all__ = ["NaturalModes"]

Array = NDArray[np.float64]


class NaturalModes:
    """A family of the theory, solved in its own modes of the data and seen along those of a basis.

    Convolutions are solved in Fourier modes, every other family in the eigenmodes of the covariance. The covariance it
    predicts, diagonal there, has the variances ``A v`` along the basis, with the overlap A of the two; a gain is the
    mean of the natural modes' gains weighted with A and their noisy variances. Both are exact. Families that need the
    data themselves are bound to the data that the basis was made from.

    Args:
        dynamics: the family.
        basis: the modes that are measured.

    Raises:
        ValueError: if the data the basis was made from are not known well enough to solve the family on.
    """

    def __init__(self, dynamics: LearningDynamics, basis: Basis) -> None:
        self.basis = basis
        circular = isinstance(dynamics, FullWidthConvolution | LocalConvolution)
        self.natural: Basis = _fourier(basis) if circular else basis.data
        self.dynamics = _bound(dynamics, self.natural)
        self._share = None if self.natural is basis else overlap(basis, self.natural).numpy()

    @property
    def own(self) -> bool:
        """Whether the basis is the family's own."""
        return self._share is None

    @property
    def takes_gain(self) -> bool:
        """Whether the prediction can start from a measured gain; a local kernel is not fixed by its gains."""
        return not isinstance(self.dynamics, LocalConvolution)

    def variance(self, time: Array, sampler: Sampler, gain: Array | None) -> Array:
        """Generated variance along the basis, ``[time, K]``, from the gain before training along :attr:`natural`."""
        if isinstance(self.dynamics, BoundDynamics):
            table = self.dynamics.generated_variance(time, None, sampler, self._folded(gain))[:, self._entries]
        else:
            table = self.dynamics.generated_variance(time, self.natural.variance.numpy(), sampler, gain)
        return table if self._share is None else table @ self._share.T

    def gain(self, time: Array, levels: Array, gain: Array | None) -> Array:
        """Gain of the denoiser along the basis, ``[time, level, K]``."""
        natural = self.natural.variance.numpy()
        if isinstance(self.dynamics, BoundDynamics):
            table = self.dynamics.weight(time, levels, None, self._folded(gain))[..., self._entries]
        else:
            table = self.dynamics.weight(time, levels, natural, gain)
        if self._share is None:
            return table
        noisy = natural + np.square(levels)[:, None]
        return np.asarray((table * noisy) @ self._share.T / (noisy @ self._share.T))

    @property
    def _entries(self) -> NDArray[np.int64]:
        """Where each natural mode stands among the family's."""
        if isinstance(self.natural, FourierBasis):
            return np.asarray(self.natural.theory_index.numpy())
        return np.arange(len(self.natural.variance))

    def _folded(self, gain: Array | None) -> Array | None:
        """A gain along the natural modes in the order of the family's, where k and -k both stand."""
        if gain is None or not isinstance(self.natural, FourierBasis):
            return gain
        return np.asarray(gain[:, self.natural.mode_of_entry.numpy()])


def _fourier(basis: Basis) -> FourierBasis:
    if isinstance(basis, FourierBasis) and basis.bands is None:
        return basis
    data = _whole(basis)
    axes = basis.axes if isinstance(basis, FourierBasis) else None
    return FourierBasis.from_moments(data.mean, (data.vectors * data.variance) @ data.vectors.T, basis.shape, axes=axes)


def _bound(dynamics: LearningDynamics, natural: Basis) -> LearningDynamics:
    if not isinstance(dynamics, BoundDynamics) or dynamics.is_bound:
        return dynamics
    data = _whole(natural)
    mean, covariance = data.mean.numpy(), ((data.vectors * data.variance) @ data.vectors.T).numpy()
    if isinstance(natural, FourierBasis) and isinstance(dynamics, FullWidthConvolution | LocalConvolution):
        return dynamics.bind(mean, covariance, natural.size, natural.channels)
    if isinstance(dynamics, NonCenteredOneLayer):
        return dynamics.bind(mean, covariance)
    raise ValueError(f"`theory` must be bound to its data first, got {dynamics!r}. Call its `bind`.")


def _whole(basis: Basis) -> Basis:
    data = basis.data
    if data.vectors.shape[0] != data.vectors.shape[1]:
        raise ValueError(
            f"This theory needs all {data.vectors.shape[0]} modes of the data, got {data.vectors.shape[1]}. "
            "Leave `num_modes` of SpectralTracker out."
        )
    return data
