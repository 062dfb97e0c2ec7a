"""The data an affine denoiser is solved on: independent blocks, each with its mean and covariance."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Blocks"]

Array = NDArray[np.float64]
Field = NDArray[Any]


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
