"""Rows of a tensor as a dataset, and the loaders made from it and from datasets that give whole batches."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

__all__ = ["BatchSource", "Rows", "WholeBatches", "batches_loader", "check_batch_size", "whole_batch"]


class BatchSource(Protocol):
    """A map-style dataset that also gives a batch as it goes to the network."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...

    def batch(self, indices: list[int], /) -> Any:
        """The examples at ``indices``, already stacked."""


class Rows(Dataset[Tensor]):
    """The rows of one tensor ``[n, *S]``; a batch of them is a plain tensor ``[B, *S]``, not a list of one tensor.

    Args:
        data: all samples, along the first axis.

    Example:
        >>> import torch
        >>> next(iter(batches_loader(Rows(torch.zeros(8, 3)), batch_size=4))).shape
        torch.Size([4, 3])
    """

    def __init__(self, data: Tensor) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Tensor:
        return self.data[index]

    def batch(self, indices: list[int]) -> Tensor:
        """Many rows at once, stacked."""
        return self.data[indices]


class WholeBatches(Dataset[Any]):
    """A dataset that hands a DataLoader its batches in one piece, instead of examples that are stacked again.

    It goes with :func:`whole_batch` as collate function, and keeps the loader's batch size and sampler what they are, so
    that a Trainer can put a distributed sampler in, and others can read a :class:`~torch.utils.data.Subset` of it.

    Args:
        source: the dataset.
    """

    def __init__(self, source: BatchSource) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Any:
        return self.source[index]

    def __getitems__(self, indices: list[int]) -> Any:
        """One batch."""
        return self.source.batch(indices)


def whole_batch(found: Any) -> Any:
    """The collate function of :class:`WholeBatches`: a list of examples, from a wrapper around it, is stacked."""
    return default_collate(found) if isinstance(found, list) else found


def batches_loader(
    source: BatchSource,
    batch_size: int,
    *,
    shuffle: bool = False,
    drop_last: bool = False,
    num_workers: int = 0,
    pin_memory: bool = False,
) -> DataLoader[Any]:
    """A loader of whole batches without a generator of its own, so that the seed of the run governs their order.

    Args:
        source: the examples.
        batch_size: samples per batch.
        shuffle: whether to draw a new order each epoch.
        drop_last: whether to leave out an incomplete last batch.
        num_workers: processes that load; kept alive between epochs if there are any.
        pin_memory: whether batches are put where a GPU copies them from without waiting.
    """
    return DataLoader(
        WholeBatches(source),
        batch_size=batch_size,
        shuffle=shuffle,
        drop_last=drop_last,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=pin_memory,
        collate_fn=whole_batch,
    )


def check_batch_size(batch_size: int, available: int, samples: str) -> None:
    """Stop a training set smaller than one batch, of which ``drop_last`` would leave nothing, without a word.

    Raises:
        ValueError: if ``batch_size`` exceeds ``available``.
    """
    if batch_size > available:
        raise ValueError(
            f"`batch_size` must be at most the number of {samples}, {available}, got {batch_size!r}. "
            "Incomplete batches are dropped, so there would be none."
        )
