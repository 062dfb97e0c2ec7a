"""The variances along one basis of data whose covariance is diagonal in another."""

from __future__ import annotations

import torch
from torch import Tensor

from spectral_lightning.spectra.bases.basis import Basis

__all__ = ["overlap"]

_NUMBERS_AT_ONCE = 2**24


def overlap(basis: Basis, natural: Basis) -> Tensor:
    """The matrix A that maps variances along ``natural`` to variances along ``basis``, ``[K, K_natural]``.

    A Gaussian of covariance ``sum_j v_j P_j``, with ``P_j`` the projector on the coordinates of natural mode j, has the
    variances ``A v`` along ``basis``: ``A_kj`` is the mean of ``|P_j o|^2`` over the observables o of mode k. Rows sum
    to 1 if the natural modes span the space. Cost: the projection of as many samples as there are natural vectors.

    Args:
        basis: the modes whose variances are wanted.
        natural: the modes in which the covariance is diagonal.

    Raises:
        ValueError: if the natural modes do not have the dimension of the examples of ``basis``.

    Example:
        >>> from spectral_lightning.spectra import FourierBasis, PCABasis
        >>> covariance = torch.diag(torch.tensor([3.0, 1.0]))
        >>> overlap(FourierBasis.from_moments(torch.zeros(2), covariance, (2,)),
        ...         PCABasis.from_moments(torch.zeros(2), covariance)).round(decimals=3).tolist()
        [[0.5, 0.5], [0.5, 0.5]]
    """
    if len(natural.vectors) != basis.dim:
        raise ValueError(
            f"`natural` must have vectors of the dimension of `basis`, {basis.dim}, got {len(natural.vectors)}. "
            "Patch components are no natural modes."
        )
    rows = natural.vectors.T.contiguous()
    most = max(1, _NUMBERS_AT_ONCE // (basis.replicates * max(basis.dim, len(basis.mode_of))))
    shares = [basis.pool(basis.project(part + basis.mean).square()) for part in torch.split(rows, most)]
    matrix = torch.zeros(len(natural.variance), len(basis.variance), dtype=torch.float64)
    return matrix.index_add(0, natural.mode_of, torch.cat(shares)).T
