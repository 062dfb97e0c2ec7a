"""The protocols of data whose moments are known without reading them batch by batch."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

__all__ = ["HasPopulationMoments", "HasTrainingMoments"]


@runtime_checkable
class HasPopulationMoments(Protocol):
    """A source of data that knows the mean and covariance of the distribution it draws from.

    The moments are those of the population, not of the samples, and are there before any sample is drawn.

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
    """A source of data that tells the mean and covariance of its training set, as the network sees it.

    A descent that takes the expectation over the noise, but sees these samples only, depends on nothing else of them.
    """

    def training_moments(self) -> tuple[Tensor, Tensor]:
        """Mean ``[d]`` and covariance ``[d, d]`` with 1/n, float64 on the CPU."""
        ...
