"""Mean and covariance of data, from a stream of batches or known beforehand."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from scipy.linalg.blas import dsyrk
from torch import Tensor
from torchmetrics import Metric

from spectral_lightning.arguments import positive_integer
from spectral_lightning.spectra.ranks import Ranks

__all__ = [
    "DENSE_DIM",
    "MAX_DIM",
    "HasPopulationMoments",
    "HasTrainingMoments",
    "SpectralMoments",
    "checked_rows",
]

DENSE_DIM = 4_096
"""Largest dimension in which a basis is made from a full covariance (134 MB in float64); beyond it from streamed sums."""

MAX_DIM = 12_288
"""Largest dimension for which :class:`SpectralMoments` keeps a full covariance (1.2 GB in float64)."""


class SpectralMoments(Metric):
    """Mean and covariance of data that arrive in batches, in float64.

    ``mean = sum x / n``, ``covariance = sum x x' / n - mean mean'``: those of the empirical distribution, which is what
    training on these data sees.

    Sums in float64 need no shift by a first estimate of the mean: a mean of 1,000 standard deviations costs six of sixteen
    digits. On the CPU a symmetric rank-k update adds up one triangle only, about a third of the time of a product.

    Cost: d^2 operations per example; memory d^2 (75 MB at d = 3,072) for any number of examples.

    Args:
        dim: dimension d of the flattened examples.
        kwargs: passed to :class:`torchmetrics.Metric`.

    Raises:
        ValueError: if ``dim`` is not positive or above 12,288; from ``update`` for another shape or values that are not
            finite; from ``compute`` without data.

    Example:
        >>> moments = SpectralMoments(2)
        >>> moments.update(torch.tensor([[0.0, 1.0], [2.0, 1.0]]))
        >>> mean, covariance = moments.compute()
        >>> mean.tolist(), covariance.tolist()
        ([1.0, 1.0], [[1.0, 0.0], [0.0, 0.0]])
    """

    full_state_update = False
    is_differentiable = False
    count: Tensor
    total: Tensor
    outer: Tensor

    def __init__(self, dim: int, **kwargs: Any) -> None:
        # Gathering d x d states from every rank before adding them would cost the world size times the memory.
        super().__init__(sync_on_compute=False, **kwargs)
        self.dim = positive_integer("dim", dim)
        if dim > MAX_DIM:
            raise ValueError(
                f"`dim` must be at most {MAX_DIM} for a full covariance, got {dim}. Track smaller images or latents."
            )
        zeros = {"count": (), "total": (dim,), "outer": (dim, dim)}
        for name, shape in zeros.items():
            self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum", persistent=True)

    def update(self, batch: Tensor) -> None:
        """Add a batch ``[B, *S]``."""
        flat = checked_rows(batch, self.dim).to(self.outer)
        self.count += len(flat)
        self.total += flat.sum(0)
        if self.outer.device.type == "cpu":
            # The transpose of rows in C order is a matrix in Fortran order, updated in place; its lower triangle is ours above.
            dsyrk(1.0, flat.numpy().T, beta=1.0, c=self.outer.numpy().T, lower=1, overwrite_c=1)
        else:
            self.outer.addmm_(flat.T, flat)

    def compute(self) -> tuple[Tensor, Tensor]:
        """Mean ``[d]`` and covariance ``[d, d]``, float64."""
        if self.count == 0:
            raise ValueError("`SpectralMoments` must see at least one example before `compute`, got none.")
        mean = self.total / self.count
        upper = self.outer.triu()
        return mean, (upper + upper.triu(1).T) / self.count - torch.outer(mean, mean)

    def reduce(self, ranks: Ranks) -> None:
        """Add up the states of all ranks, in place. Every rank has to call it."""
        self.count, self.total, self.outer = ranks.sum(self.count), ranks.sum(self.total), ranks.sum(self.outer)


def checked_rows(batch: Tensor, dim: int) -> Tensor:
    """The flattened examples ``[B, d]`` of a batch ``[B, *S]``.

    Raises:
        TypeError: if it is not a tensor.
        ValueError: for another shape or values that are not finite.
    """
    if not isinstance(batch, Tensor):
        raise TypeError(f"`batch` must be a tensor [B, *S], got {type(batch).__name__}.")
    flat = batch.detach().flatten(1) if batch.ndim > 1 else batch.detach()[:, None]
    if flat.shape[1] != dim:
        raise ValueError(f"`batch` must hold examples of {dim} coordinates, got shape {tuple(batch.shape)}.")
    finite = torch.isfinite(flat).all(1)
    if not finite.all():
        raise ValueError(
            f"`batch` must be finite, got {int((~finite).sum())} of {len(flat)} examples with NaN or infinity. "
            "Find them in the dataset or its transform: no spectrum can be computed with them."
        )
    return flat


@runtime_checkable
class HasPopulationMoments(Protocol):
    """A source of data that knows the mean and covariance of the distribution from which it draws.

    The moments are those of the population, not of samples, and are known before any sample is drawn.

    Example:
        >>> from spectral_lightning.datamodules import GaussianDataModule
        >>> isinstance(GaussianDataModule(dim=4), HasPopulationMoments)
        True
    """

    def population_moments(self) -> tuple[Tensor, Tensor]:
        """Mean ``[d]`` and covariance ``[d, d]``, float64 on the CPU."""
        ...


@runtime_checkable
class HasTrainingMoments(Protocol):
    """A source of data that knows the mean and covariance of its training set, as the network sees it.

    Gradient descent on these samples with the exact expectation over the noise depends on nothing else about them.
    """

    def training_moments(self) -> tuple[Tensor, Tensor]:
        """Mean ``[d]`` and covariance ``[d, d]`` with 1/n, float64 on the CPU."""
        ...
