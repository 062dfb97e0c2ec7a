"""Sets of samples drawn once from a known distribution."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import ClassVar

from torch import Generator, Tensor

from spectral_lightning.arguments import positive_integer
from spectral_lightning.datamodules.rows import Rows, RowsDataModule

__all__ = ["DrawnDataModule"]


class DrawnDataModule(RowsDataModule):
    """A training and a validation set, each drawn when it is first asked for.

    Args:
        num_samples: size of the training set.
        num_val_samples: size of the validation set; 0 for none.
        batch_size: samples per batch.
        exact_moments: whether the samples of each set are given the moments of their population.
        shuffle: whether the training samples come in a new order each epoch.
        seed: of the population and the samples.
        num_workers: processes that load batches.

    Raises:
        ValueError: for an argument out of range, or fewer training samples than one batch.
    """

    streams: ClassVar[tuple[str, ...]] = ("train", "val")
    """One stream of random numbers per use, so that the population does not depend on the number of samples."""

    def __init__(
        self,
        num_samples: int,
        num_val_samples: int,
        batch_size: int,
        exact_moments: bool,
        shuffle: bool,
        seed: int,
        num_workers: int,
    ) -> None:
        super().__init__(batch_size, seed, num_workers, shuffle)
        self.num_samples = positive_integer("num_samples", num_samples)
        self.num_val_samples = positive_integer("num_val_samples", num_val_samples, minimum=0)
        self.exact_moments = exact_moments
        self._check_batch_size(self.num_samples, "training samples (`num_samples`)")

    @cached_property
    def train_rows(self) -> Rows:
        """The training set; drawn when first asked for."""
        return self._draw("train", self.num_samples)

    @cached_property
    def val_rows(self) -> Rows:
        """The validation set; drawn when first asked for."""
        return self._draw("val", self.num_val_samples)

    @abstractmethod
    def population_moments(self) -> tuple[Tensor, Tensor]:
        """Mean ``[d]`` and covariance ``[d, d]`` of the population, float64, known without drawing a sample."""

    @abstractmethod
    def _draw(self, stream: str, count: int) -> Rows:
        """So many samples of the set ``"train"`` or ``"val"``."""

    def _generator(self, stream: str) -> Generator:
        return Generator().manual_seed(len(self.streams) * self.seed + self.streams.index(stream))

    def _check_full_rank(self, smallest: Callable[[int], int] = lambda count: count) -> None:
        """Refuse sets too small for exact moments; ``smallest`` is the size of the smallest class among so many samples."""
        for name, count in (("num_samples", self.num_samples), ("num_val_samples", self.num_val_samples)):
            if self.exact_moments and count and smallest(count) <= self.dim:
                raise ValueError(
                    f"`{name}` must give more samples than the dimension, {self.dim}, to each class for `exact_moments`, got "
                    f"{count!r} and {smallest(count)}. Fewer samples cannot have a covariance of full rank."
                )
