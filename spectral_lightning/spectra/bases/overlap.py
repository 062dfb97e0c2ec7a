"""How the modes of two bases share directions."""

from __future__ import annotations

import torch
from torch import Tensor

from spectral_lightning.spectra.bases.basis import Basis
from spectral_lightning.spectra.bases.vectors import VectorBasis

__all__ = ["overlap"]

_NUMBERS_AT_ONCE = 2**24


def overlap(basis: Basis, natural: VectorBasis) -> Tensor:
    """The matrix that turns the spectrum along one basis into the variances along another, ``[K, K_natural]``.

    A Gaussian of covariance ``sum_j v_j P_j``, ``P_j`` the projector on the coordinates of natural mode j, has the
    variances ``A v`` along ``basis``, ``A_kj = mean over observables o of mode k of |P_j o|^2``. Its rows sum to 1 where
    the natural modes span the space. Cost: the projection of as many samples as natural vectors.

    Args:
        basis: where the variances are wanted.
        natural: where the covariance is diagonal.

    Raises:
        ValueError: if the bases are of examples of different dimension.

    Example:
        >>> from spectral_lightning.spectra import FourierBasis, PCABasis
        >>> covariance = torch.diag(torch.tensor([3.0, 1.0]))
        >>> overlap(FourierBasis.from_moments(torch.zeros(2), covariance, (2,)),
        ...         PCABasis.from_moments(torch.zeros(2), covariance)).round(decimals=3).tolist()
        [[0.5, 0.5], [0.5, 0.5]]
    """
    if basis.dim != natural.dim:
        raise ValueError(f"`natural` must have the dimension of `basis`, {basis.dim}, got {natural.dim}.")
    rows = natural.vectors.T.contiguous()
    most = max(1, _NUMBERS_AT_ONCE // (basis.replicates * max(basis.dim, len(basis.mode_of))))
    shares = [basis.pool(basis.project(part + basis.mean).square()) for part in torch.split(rows, most)]
    matrix = torch.zeros(len(natural.variance), len(basis.variance), dtype=torch.float64)
    return matrix.index_add(0, natural.mode_of, torch.cat(shares)).T
