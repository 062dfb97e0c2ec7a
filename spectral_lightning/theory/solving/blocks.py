"""The data a denoiser is bound to: independent blocks, each with its mean and covariance."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Blocks", "checked_covariance"]

Array = NDArray[np.float64]
Field = NDArray[Any]

_ROUNDING = 1e-9


def checked_covariance(name: str, covariance: Field) -> Field:
    """Return Hermitian, positive semidefinite matrices ``[.., d, d]``, symmetrised; raise ``ValueError`` otherwise."""
    matrix = np.asarray(covariance)
    matrix = matrix.astype(np.complex128 if np.iscomplexobj(matrix) else np.float64)
    if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2] or not np.isfinite(matrix).all():
        raise ValueError(f"`{name}` must be square with finite entries, got shape {matrix.shape}.")
    adjoint = np.swapaxes(matrix.conj(), -1, -2)
    scale = float(np.abs(matrix).max(initial=0.0))
    if np.abs(matrix - adjoint).max(initial=0.0) > _ROUNDING * scale:
        worst = float(np.abs(matrix - adjoint).max())
        raise ValueError(f"`{name}` must be symmetric (Hermitian), got entries that differ by {worst:.3g}.")
    matrix = np.asarray((matrix + adjoint) / 2)
    lowest = float(np.linalg.eigvalsh(matrix).min(initial=0.0))
    if lowest < -_ROUNDING * scale * matrix.shape[-1]:
        raise ValueError(
            f"`{name}` must be positive semidefinite, got an eigenvalue of {lowest:.3g}. Is it a covariance?"
        )
    return matrix


@dataclass(frozen=True)
class Blocks:
    """Moments of independent blocks: the whole vector, or one block of channels per frequency.

    Attributes:
        covariance: ``[block, d, d]``, Hermitian.
        mean: ``[block, d]``.
    """

    covariance: Field
    mean: Field

    @cached_property
    def _eigen(self) -> tuple[Array, Field]:
        variance, modes = np.linalg.eigh(self.covariance)
        return np.maximum(variance, 0.0)[..., ::-1], modes[..., ::-1]

    @property
    def variance(self) -> Array:
        """Variance of every mode, falling within a block, ``[block, d]``."""
        return self._eigen[0]

    @property
    def modes(self) -> Field:
        """Modes of every block as columns, ``[block, d, d]``."""
        return self._eigen[1]

    def along(self, matrix: Field) -> Array:
        """Diagonal ``u' A u`` of ``[.., block, d, d]`` along the modes, flattened to ``[.., mode]``."""
        diagonal = np.einsum("bik,...bij,bjk->...bk", self.modes.conj(), matrix, self.modes, optimize=True).real
        return np.asarray(diagonal.reshape(*diagonal.shape[:-2], -1), np.float64)

    def aligned(self, gain: Array) -> Field:
        """The matrices ``[.., block, d, d]`` that have gains ``[.., mode]`` along the modes."""
        shaped = gain.reshape(*gain.shape[:-1], *self.variance.shape)
        return np.asarray((self.modes * shaped[..., None, :]) @ np.swapaxes(self.modes.conj(), -1, -2))
