"""Protocols of data that know their moments without being read batch by batch."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

__all__ = ["HasPopulationMoments", "HasTrainingMoments"]


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
