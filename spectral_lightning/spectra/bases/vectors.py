"""Bases whose observables are inner products with orthonormal vectors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spectral_lightning.spectra.bases.observables import Observables
from spectral_lightning.spectra.bases.observed import ObservedBasis

__all__ = ["VectorBasis"]


class VectorBasis(ObservedBasis):
    """Observables ``w_m' (x - mean)`` along orthonormal columns ``w_m``, each observed once.

    Args:
        vectors: orthonormal columns, ``[d, M]``.
        variance: data variance of each mode, ``[K]``.
        mean: mean of the data, ``[d]``.
        shape: shape of one example, with d entries.
        source: what the moments are of, for logs and files.
        mode_of: the mode of every column, ``[M]``; one mode each if not given.
    """

    def __init__(
        self,
        vectors: Tensor,
        variance: Tensor,
        mean: Tensor,
        shape: Sequence[int],
        source: str,
        mode_of: Tensor | None = None,
    ) -> None:
        one_each = torch.arange(vectors.shape[1]) if mode_of is None else mode_of
        super().__init__(variance, mean, shape, source, Observables(one_each))
        self.vectors = vectors.detach().cpu().double()

    @property
    def _vectors(self) -> Tensor:
        return self.vectors

    def project(self, samples: Tensor) -> Tensor:
        """``w_m' (x - mean)`` in float64, ``[B, *S] -> [B, M]``. Cost: B d M."""
        centred, vectors = self._centred(samples)
        return centred @ vectors
