"""Finds the data of a run."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from spectral_lightning.spectra.reading import DataSource

__all__ = ["find_data"]

_REMEDY = (
    "Pass {client} as `{name}=` a tensor [N, *S] of examples as the network sees them, a map-style Dataset, or a DataLoader "
    "over one."
)


@runtime_checkable
class _MapStyle(Protocol):
    """What a DataLoader reads by index: a Dataset, a tensor or a list."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


def find_data(
    train_dataloader: Any, data: DataSource | None, client: str = "SpectralTracker", name: str = "data"
) -> DataSource:
    """``data`` if given, else the training's loader; the caller rebuilds a loader and never iterates it.

    Args:
        train_dataloader: the training's loader.
        data: the user's data.
        client: of the error's remedy.
        name: of the argument that ``data`` is.

    Raises:
        TypeError: if the source cannot be read separately from the training.
    """
    source = train_dataloader if data is None else data
    remedy = _REMEDY.format(client=client, name=name)
    where = "the training dataloader" if data is None else f"`{name}`"
    if isinstance(source, Tensor):
        return source
    dataset = source.dataset if isinstance(source, DataLoader) else source
    if isinstance(dataset, IterableDataset):
        raise TypeError(
            f"{where} must be over a map-style dataset, got an IterableDataset, which reading would use up. {remedy}"
        )
    if not isinstance(source, DataLoader | Dataset):
        raise TypeError(f"{where} must be a tensor, Dataset or DataLoader, got {type(source).__name__}. {remedy}")
    if not isinstance(dataset, _MapStyle):
        raise TypeError(
            f"{where} must be over a dataset with a length and an index, got {type(dataset).__name__}. {remedy}"
        )
    return source
