"""The eigenvectors of the data's covariance as modes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spectral_lightning.arguments import positive_integer
from spectral_lightning.spectra.bases.basis import Basis

__all__ = ["Eigenmodes", "PCABasis"]


class PCABasis(Basis):
    """Eigenvectors ``u_k`` of the covariance with its largest eigenvalues ``lambda_k``, descending.

    Each eigenvector's largest component is positive, so that signs do not depend on the solver. Modes with less than
    1e-10 of the largest variance are null modes: along them the data do not leave their mean.

    Args:
        modes: orthonormal columns, ``[d, K]``, float64.
        variance: data variance along each, ``[K]``.
        mean: mean of the data, ``[d]``.
        shape: shape of one example, with d entries.
        source: what the moments describe, for logs and files.

    Raises:
        ValueError: if the shapes do not match.

    Example:
        >>> basis = PCABasis.from_moments(torch.zeros(2), torch.diag(torch.tensor([1.0, 4.0])))
        >>> basis.variance.tolist(), basis.project(torch.tensor([[3.0, 5.0]])).tolist()
        ([4.0, 1.0], [[5.0, 3.0]])
    """

    kind = "eigenmodes of the covariance"

    def __init__(
        self, modes: Tensor, variance: Tensor, mean: Tensor, shape: Sequence[int], source: str = "given moments"
    ) -> None:
        d = math.prod(int(n) for n in shape)
        if modes.ndim != 2 or modes.shape != (d, len(variance)) or len(mean) != len(modes):
            raise ValueError(
                "`modes` must have shape [d, K] with d the product of `shape` and the length of `mean`, K the length of "
                f"`variance`; got {tuple(modes.shape)}, {tuple(shape)}, {len(mean)} and {len(variance)}."
            )
        super().__init__(modes, variance, mean, shape, source)

    @classmethod
    def from_moments(
        cls,
        mean: Tensor,
        covariance: Tensor,
        num_modes: int | None = None,
        shape: Sequence[int] | None = None,
        source: str = "given moments",
    ) -> PCABasis:
        """The ``num_modes`` leading eigenvectors of ``covariance``.

        Cost: d^3, once (0.1 s at d = 256, about 10 s at d = 3,072 on two cores).

        Args:
            mean: ``[d]``.
            covariance: ``[d, d]``, symmetric.
            num_modes: number of modes to keep; all if None.
            shape: shape of one example; ``[d]`` by default.
            source: what the moments describe.

        Raises:
            ValueError: for shapes that do not match, more modes than dimensions, or moments that are not finite.
        """
        if mean.ndim == 0:  # a torchmetrics.Metric hands over a single number without its axes
            mean, covariance = mean.reshape(1), covariance.reshape(1, 1)
        d = len(mean)
        if covariance.shape != (d, d):
            raise ValueError(
                f"`covariance` must have shape ({d}, {d}) as `mean` has {d}, got {tuple(covariance.shape)}."
            )
        count = d if num_modes is None else positive_integer("num_modes", num_modes)
        if count > d:
            raise ValueError(f"`num_modes` must be at most the dimension of the data, {d}, got {count}.")
        if not (torch.isfinite(mean).all() and torch.isfinite(covariance).all()):
            raise ValueError("`mean` and `covariance` must be finite, got NaN or infinity.")
        variance, modes = torch.linalg.eigh(covariance.detach().cpu().double())
        variance, modes = variance.flip(0)[:count], modes.flip(1)[:, :count]
        largest = modes.gather(0, modes.abs().argmax(0, keepdim=True))
        return cls(modes * torch.sign(largest), variance, mean, (d,) if shape is None else shape, source)

    @property
    def modes(self) -> Tensor:
        """The eigenvectors as columns, ``[d, K]``."""
        return self.vectors

    @property
    def labels(self) -> list[str]:
        """``mode 1`` for the mode of largest variance, and so on."""
        return [f"mode {k + 1}" for k in range(len(self.variance))]


@dataclass(frozen=True)
class Eigenmodes:
    """The recipe of a :class:`PCABasis`.

    Args:
        num_modes: number of modes of largest variance to keep; all if None.

    Example:
        >>> Eigenmodes(num_modes=1).make(torch.zeros(2), torch.eye(2), (2,)).describe()
        '1 eigenmodes of the covariance of given moments, dimension 2'
    """

    num_modes: int | None = None

    def make(self, mean: Tensor, covariance: Tensor, shape: Sequence[int], source: str = "given moments") -> Basis:
        """The eigenmodes of this covariance."""
        return PCABasis.from_moments(mean, covariance, self.num_modes, shape, source)
