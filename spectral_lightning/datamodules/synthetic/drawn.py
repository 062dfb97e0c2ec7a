"""Sets of samples drawn once from a known distribution, and their loaders."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from spectral_lightning.arguments import positive_integer
from spectral_lightning.datamodules.loading import Rows, batches_loader, check_batch_size

__all__ = ["DrawnDataModule", "DrawnSets", "LabelledRows"]


class LabelledRows(Dataset[Any]):
    """The rows of one tensor ``[n, *S]``, each with its label; a batch of them is ``[x [B, *S], label [B]]``.

    Args:
        data: all samples, along the first axis.
        labels: int64, ``[n]``.
        labelled: whether items hold the label; otherwise they are rows, as those of :class:`Rows`.
    """

    def __init__(self, data: Tensor, labels: Tensor, labelled: bool = True) -> None:
        self.data = data
        self.labels = labels
        self.labelled = labelled

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Any:
        return (self.data[index], self.labels[index]) if self.labelled else self.data[index]

    def batch(self, indices: list[int]) -> Any:
        """Many items at once, stacked."""
        rows = self.data[indices]
        return (rows, self.labels[indices]) if self.labelled else rows


class DrawnSets:
    """A training and a validation set, each drawn when it is first asked for, and their loaders.

    Args:
        draw: gives so many samples of the set named ``"train"`` or ``"val"``.
        num_samples: size of the training set.
        num_val_samples: size of the validation set; 0 for none.
        batch_size: samples per batch; an incomplete last training batch is dropped.
        shuffle: whether the training samples come in a new order each epoch, by the seed of the run.
        num_workers: processes that load batches.

    Raises:
        ValueError: for an argument out of range, or fewer training samples than one batch.

    Example:
        >>> import torch
        >>> sets = DrawnSets(lambda name, count: Rows(torch.zeros(count, 3)), 8, 0, batch_size=4)
        >>> next(iter(sets.train_loader())).shape, sets.val_loader()
        (torch.Size([4, 3]), [])
    """

    def __init__(
        self,
        draw: Callable[[str, int], Rows | LabelledRows],
        num_samples: int,
        num_val_samples: int,
        batch_size: int,
        shuffle: bool = True,
        num_workers: int = 0,
    ) -> None:
        self._draw = draw
        self.num_samples = positive_integer("num_samples", num_samples)
        self.num_val_samples = positive_integer("num_val_samples", num_val_samples, minimum=0)
        self.batch_size = positive_integer("batch_size", batch_size)
        self.shuffle = shuffle
        self.num_workers = positive_integer("num_workers", num_workers, minimum=0)
        check_batch_size(self.batch_size, self.num_samples, "training samples (`num_samples`)")

    @cached_property
    def train(self) -> Any:
        """The training set."""
        return self._draw("train", self.num_samples)

    @cached_property
    def val(self) -> Any:
        """The validation set."""
        return self._draw("val", self.num_val_samples)

    def setup(self) -> None:
        """Draw both sets, once."""
        _ = self.train, self.val

    def train_loader(self) -> DataLoader[Any]:
        """Batches of the training set."""
        return batches_loader(
            self.train, self.batch_size, shuffle=self.shuffle, drop_last=True, num_workers=self.num_workers
        )

    def val_loader(self) -> DataLoader[Any] | list[DataLoader[Any]]:
        """Batches of the validation set, in a fixed order; no loader where there is no such set."""
        if not self.num_val_samples:
            return []
        return batches_loader(self.val, self.batch_size, num_workers=self.num_workers)

    def check_full_rank(self, dim: int) -> None:
        """Stop sets too small to have exactly the moments of their population.

        Raises:
            ValueError: for a set of ``dim`` samples or fewer.
        """
        for name, count in (("num_samples", self.num_samples), ("num_val_samples", self.num_val_samples)):
            if 0 < count <= dim:
                raise ValueError(
                    f"`{name}` must be more than the dimension, {dim}, for `exact_moments`, got {count!r}. "
                    "Fewer samples cannot have a covariance of full rank."
                )


class DrawnDataModule(LightningDataModule):
    """What the datamodules of drawn data have in common: their :class:`DrawnSets`, which a subclass makes as ``sets``."""

    sets: DrawnSets

    def setup(self, stage: str | None = None) -> None:
        """Draw both sets, once."""
        self.sets.setup()

    @property
    def train_rows(self) -> Any:
        """The training set; drawn when first asked for."""
        return self.sets.train

    @property
    def val_rows(self) -> Any:
        """The validation set; drawn when first asked for."""
        return self.sets.val

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches ``[B, *S]`` of the training set."""
        return self.sets.train_loader()

    def val_dataloader(self) -> DataLoader[Any] | list[DataLoader[Any]]:
        """Batches ``[B, *S]`` of the validation set, in a fixed order; no loader where there is no such set."""
        return self.sets.val_loader()
