"""Rows of samples as a dataset, their loaders, and what every datamodule of this package has in common."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from spectral_lightning.arguments import positive_integer
from spectral_lightning.seeds import Domain, numpy_generator
from spectral_lightning.spectra import SpectralMoments

__all__ = ["CHUNK", "DrawnDataModule", "Reader", "Rows", "RowsDataModule"]

CHUNK = 1_024
"""Number of samples read or summed at once."""


class Reader(Protocol):
    """Samples that are read each time they are requested."""

    def __len__(self) -> int: ...

    def read(self, indices: list[int], /) -> Tensor:
        """The samples at ``indices``, ``[B, *S]``."""


class Rows(Dataset[Any]):
    """Samples, or pairs of a sample and its label, as the network sees them.

    Args:
        data: all of them, ``[n, *S]``, or how to read them.
        labels: class of each, ``[n]``, int64; None for samples alone.
        flip: whether each image ``[C, H, W]`` is mirrored with probability 1/2 whenever it is asked for.

    Example:
        >>> rows = Rows(torch.arange(6.0).view(3, 2), labels=torch.tensor([4, 5, 6]))
        >>> rows.batch([2, 0])
        (tensor([[4., 5.],
                [0., 1.]]), tensor([6, 4]))
    """

    def __init__(self, data: Tensor | Reader, labels: Tensor | None = None, flip: bool = False) -> None:
        self.data, self.labels, self.flip = data, labels, flip

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Any:
        return self.__getitems__([range(len(self))[index]])[0]

    def __getitems__(self, indices: list[int]) -> list[Any]:
        """Many items at once, which a DataLoader asks for if it can."""
        batch = self.batch(indices)
        return list(batch) if isinstance(batch, Tensor) else list(zip(*batch, strict=True))

    def batch(self, indices: list[int]) -> Any:
        """Samples ``[B, *S]``, with their labels ``[B]`` if there are any."""
        samples = self.data[indices] if isinstance(self.data, Tensor) else self.data.read(indices)
        if self.flip:
            # Drawn on the CPU wherever the images are, so that every cache gives the same batches.
            heads = (torch.rand(len(samples)) < 0.5).to(samples.device, non_blocking=True)
            samples = torch.where(heads.view(-1, 1, 1, 1), samples.flip(-1), samples)
        return samples if self.labels is None else (samples, self.labels[indices])

    def parts(self, limit: int | None = None) -> Iterator[Tensor]:
        """The first ``limit`` samples, or all, in their order and none mirrored, some at a time."""
        stop = len(self) if limit is None else min(limit, len(self))
        for start in range(0, stop, CHUNK):
            end = min(start + CHUNK, stop)
            yield self.data[start:end] if isinstance(self.data, Tensor) else self.data.read(list(range(start, end)))

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean ``[d]`` and covariance ``[d, d]``, float64; those of the images and their mirror images if mirrored."""
        moments: SpectralMoments | None = None
        for part in self.parts():
            moments = moments or SpectralMoments(part[0].numel())
            for samples in (part, part.flip(-1)) if self.flip else (part,):
                moments.update(samples.cpu())
        if moments is None:
            raise ValueError("The training set must hold at least one sample, got none.")
        return moments.compute()

    def move(self, device: torch.device) -> None:
        """Move samples held in a tensor, and their labels, to ``device``, unless they are there."""
        if isinstance(self.data, Tensor):
            self.data = self.data.to(device)
            self.labels = None if self.labels is None else self.labels.to(device)


class _WholeBatches(Dataset[Any]):
    """Rows that give a DataLoader its batches in one piece, instead of items that are stacked again.

    Unlike a sampler of whole batches, this leaves the loader's batch size and sampler alone: a Trainer can insert its
    distributed sampler, and others can read a :class:`~torch.utils.data.Subset`.
    """

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return self.rows[index]

    def __getitems__(self, indices: list[int]) -> Any:
        """One batch."""
        return self.rows.batch(indices)


def _whole_batch(found: Any) -> Any:
    """Collate function of :class:`_WholeBatches`: stacks a list of items, which a wrapper around it gives."""
    return default_collate(found) if isinstance(found, list) else found


class RowsDataModule(LightningDataModule, ABC):
    """Training and validation rows, and their loaders.

    The loaders have no separate generator, so the seed of the run governs their order.

    Arguments and errors are those of the subclasses. Workers are kept alive between epochs.
    """

    shape: Any

    def __init__(self, batch_size: int, seed: int, num_workers: int, shuffle: bool = True) -> None:
        super().__init__()
        self.batch_size = positive_integer("batch_size", batch_size)
        self.seed = positive_integer("seed", seed, minimum=0)
        self.num_workers = positive_integer("num_workers", num_workers, minimum=0)
        self.shuffle = shuffle

    @property
    @abstractmethod
    def _sets(self) -> Sequence[Any]:
        """The training rows and the validation rows, drawn or read; more may follow them."""

    @property
    def train_rows(self) -> Rows:
        """The training set, drawn or read when first asked for."""
        rows: Rows = self._sets[0]
        return rows

    @property
    def val_rows(self) -> Rows:
        """The validation set, drawn or read when first asked for."""
        rows: Rows = self._sets[1]
        return rows

    @property
    def dim(self) -> int:
        """Dimension d of one sample."""
        return math.prod(self.shape)

    def training_moments(self) -> tuple[Tensor, Tensor]:
        """Mean ``[d]`` and covariance ``[d, d]`` of the training set as the network sees it, float64."""
        return self.train_rows.moments()

    def setup(self, stage: str | None = None) -> None:
        """Draw or read both sets, once."""
        _ = self._sets

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches of the training set."""
        return self._loader(self.train_rows, train=True)

    def val_dataloader(self) -> DataLoader[Any] | list[DataLoader[Any]]:
        """Batches of the validation set, in a fixed order; no loader if it is empty."""
        return self._loader(self.val_rows, train=False) if len(self.val_rows) else []

    def _loader(self, rows: Rows, *, train: bool, pin_memory: bool = False) -> DataLoader[Any]:
        return DataLoader(
            _WholeBatches(rows),
            batch_size=self.batch_size,
            shuffle=train and self.shuffle,
            drop_last=train,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=pin_memory,
            collate_fn=_whole_batch,
        )

    def _check_batch_size(self, available: int, samples: str) -> None:
        """Refuse a training set smaller than one batch: dropping the incomplete batch would silently leave nothing."""
        if self.batch_size > available:
            raise ValueError(
                f"`batch_size` must be at most the number of {samples}, {available}, got {self.batch_size!r}. "
                "Incomplete batches are dropped, so there would be none."
            )


class DrawnDataModule(RowsDataModule):
    """A training and a validation set, drawn when one of them is first asked for.

    Args:
        num_samples: size of the training set.
        num_val_samples: size of the validation set; 0 for none.
        batch_size: samples per batch; an incomplete last training batch is dropped.
        exact_moments: whether each set has exactly the population's mean and covariance (with 1/n), to the rounding of
            float32, as has each class of a mixture, which must be ``stratified``. Needs more samples (of each class) than
            dimensions.
        shuffle: whether the training samples come in a new order each epoch, by the seed of the run.
        seed: of the population and the samples.
        num_workers: processes that load batches.

    Raises:
        ValueError: for an argument out of range, or fewer training samples than one batch.
    """

    def __init__(
        self,
        num_samples: int = 10_000,
        num_val_samples: int = 2_048,
        batch_size: int = 1_024,
        exact_moments: bool = False,
        shuffle: bool = True,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, num_workers, shuffle)
        self.num_samples = positive_integer("num_samples", num_samples)
        self.num_val_samples = positive_integer("num_val_samples", num_val_samples, minimum=0)
        self.exact_moments = exact_moments
        self._check_batch_size(self.num_samples, "training samples (`num_samples`)")

    @cached_property
    def _sets(self) -> tuple[Rows, Rows]:
        return self._draw("train", self.num_samples), self._draw("val", self.num_val_samples)

    @abstractmethod
    def population_moments(self) -> tuple[Tensor, Tensor]:
        """Mean ``[d]`` and covariance ``[d, d]`` of the population, float64, known without drawing a sample."""

    @abstractmethod
    def _draw(self, stream: Literal["train", "val"], count: int) -> Rows:
        """``count`` samples of the set ``"train"`` or ``"val"``."""

    def _generator(self, domain: Domain) -> np.random.Generator:
        """One stream of random numbers per use, so that the population does not depend on the number of samples."""
        return numpy_generator(domain, self.seed)

    def _check_full_rank(self, smallest: Callable[[int], int] = lambda count: count) -> None:
        """Refuse sets too small for exact moments; ``smallest`` maps a number of samples to the size of the smallest class."""
        for name, count in (("num_samples", self.num_samples), ("num_val_samples", self.num_val_samples)):
            if self.exact_moments and count and smallest(count) <= self.dim:
                raise ValueError(
                    f"`{name}` must give more samples than the dimension, {self.dim}, to each class for `exact_moments`, got "
                    f"{count!r} and {smallest(count)}. Fewer samples cannot have a covariance of full rank."
                )
