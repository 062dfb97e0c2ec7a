"""Read the data of a spectrum without touching the training's loader or random states."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from spectral_lightning.seeds import torch_generator
from spectral_lightning.spectra.ranks import Ranks

__all__ = ["DataSource", "examples", "labelled_batches", "preserved_generators", "reference_batches"]

_BATCH = 256
"""Examples read at once."""

DataSource = Tensor | Dataset[Any] | DataLoader[Any]


def examples(batch: Any, batch_key: int | str | None) -> Tensor:
    """The tensor of examples in a batch: the batch itself, its first element, or the element ``batch_key``.

    Raises:
        ValueError: if the batch has no such element, or is a mapping and no key is given.
        TypeError: if the element is not a tensor of floating-point numbers.
    """
    found, elements = batch, _elements(batch)
    if elements is not None:
        key = 0 if batch_key is None and not isinstance(batch, Mapping) else batch_key
        if key not in elements:
            raise ValueError(
                f"`batch_key` must name the examples in a batch of {_has(batch)}, got {batch_key!r}. "
                "Pass Reference(batch_key=...)."
            )
        found = elements[key]
    if not isinstance(found, Tensor):
        raise TypeError(
            f"A batch must hold a tensor of examples, got {type(found).__name__}. Name it with `batch_key`."
        )
    if not found.is_floating_point():
        raise TypeError(
            f"Examples must be floating-point numbers as the network sees them, got {found.dtype}. "
            "Scale them with `transform=` as the training does."
        )
    return found


def reference_batches(
    source: DataSource,
    ranks: Ranks,
    limit: int,
    batch_key: int | str | None = None,
    transform: Callable[[Tensor], Tensor] | None = None,
    seen: Callable[[Any], Any] | None = None,
) -> Iterator[Tensor]:
    """This rank's share of at most ``limit`` examples, evenly spread over the data, in batches.

    A loader is rebuilt from its dataset and collate function, without its sampler, which may shuffle, repeat or pad.
    Ranks split the data by index, so that no example counts twice.

    Args:
        source: a tensor of examples, a dataset or a loader.
        ranks: the processes that share the data.
        limit: the most examples read, over all ranks.
        batch_key: position or name of the examples in a batch.
        transform: applied to the examples of a batch.
        seen: applied to a whole batch before its examples are taken.

    Raises:
        ValueError: if there are no data.
    """
    for part in _parts_of(source, ranks, limit, seen):
        found = examples(part, batch_key)
        yield found if transform is None else transform(found)


def labelled_batches(
    source: DataSource,
    ranks: Ranks,
    limit: int,
    batch_key: int | str | None = None,
    label_key: int | str | None = None,
    transform: Callable[[Tensor], Tensor] | None = None,
    seen: Callable[[Any], Any] | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """The examples of :func:`reference_batches`, each batch with its integer labels, found under ``label_key``.

    Raises:
        ValueError: if a batch has no labels.
    """
    for part in _parts_of(source, ranks, limit, seen):
        found = examples(part, batch_key)
        yield found if transform is None else transform(found), _labels(part, label_key)


def _labels(batch: Any, label_key: int | str | None) -> Tensor:
    """The integer labels of a batch: its second element, or the element ``label_key``."""
    key = 1 if label_key is None and not isinstance(batch, Mapping) else label_key
    found = (_elements(batch) or {}).get(key)
    if not isinstance(found, Tensor) or found.ndim != 1 or found.is_floating_point():
        raise ValueError(
            f"`label_key` must name the integer labels [B] in a batch of {_has(batch)}, got {label_key!r}. "
            "Use data with labels, or give `classify`."
        )
    return found


def _elements(batch: Any) -> Mapping[Any, Any] | None:
    """The elements of a batch by name or by position, also from the end; None if the batch is its own element."""
    if isinstance(batch, tuple | list):
        return {i: batch[i] for i in range(-len(batch), len(batch))}
    return batch if isinstance(batch, Mapping) else None


def _has(batch: Any) -> str:
    if isinstance(batch, tuple | list):
        return f"{len(batch)} elements"
    return str(list(batch)) if isinstance(batch, Mapping) else type(batch).__name__


def _parts_of(source: DataSource, ranks: Ranks, limit: int, seen: Callable[[Any], Any] | None) -> Iterator[Any]:
    """This rank's batches as the training sees them."""
    data = source.dataset if isinstance(source, DataLoader) else source
    total = len(data)  # type: ignore[arg-type]
    if total == 0:
        raise ValueError("The data must hold at least one example, got none.")
    chosen = np.unique(np.linspace(0, total - 1, min(total, limit)).round().astype(np.int64))[ranks.rank :: ranks.size]
    if isinstance(source, Tensor):
        parts: Iterator[Any] = iter(torch.split(source[torch.from_numpy(chosen)], _BATCH))
    else:
        parts = iter(_rebuilt(source, Subset(data, chosen.tolist())))  # type: ignore[arg-type]
    return parts if seen is None else map(seen, parts)


def _rebuilt(source: Any, subset: Subset[Any]) -> DataLoader[Any]:
    if not isinstance(source, DataLoader):
        return DataLoader(subset, _BATCH)
    return DataLoader(
        subset,
        # Without automatic batching, an item of the dataset is a batch.
        None if source.batch_sampler is None else _BATCH,
        collate_fn=source.collate_fn,
        num_workers=source.num_workers,
        worker_init_fn=source.worker_init_fn,
        multiprocessing_context=source.multiprocessing_context,
        generator=torch_generator("reading"),
    )


@contextmanager
def preserved_generators(source: DataSource) -> Iterator[None]:
    """Restore the random generators that a dataset or collate function holds, such as those of a random transform."""
    holders = (source.dataset, source.collate_fn) if isinstance(source, DataLoader) else (source,)
    restore = [_restoring(generator) for generator in _generators(holders, set())]
    try:
        yield
    finally:
        for put_back in restore:
            put_back()


_Generator = torch.Generator | np.random.Generator | np.random.RandomState | random.Random


def _generators(thing: Any, seen: set[int], depth: int = 12) -> Iterator[_Generator]:
    """All generators reachable from ``thing`` through attributes, containers, partials and closures."""
    if isinstance(thing, _Generator) and not isinstance(thing, random.SystemRandom):
        yield thing
    # The operating system's generator has no state; attributes of classes and imported modules are shared by all.
    if depth == 0 or id(thing) in seen or isinstance(thing, _Generator | TensorDataset | type | ModuleType):
        return
    seen.add(id(thing))
    for part in _parts(thing):
        yield from _generators(part, seen, depth - 1)


def _parts(thing: Any) -> Iterable[Any]:
    if isinstance(thing, tuple | list):
        # A long list is data, not transforms.
        return thing[:100]
    if isinstance(thing, dict):
        return list(thing.values())[:100]
    if isinstance(thing, partial):
        return thing.func, thing.args, thing.keywords
    if isinstance(thing, MethodType):
        return (thing.__self__,)
    if isinstance(thing, FunctionType):
        return [cell.cell_contents for cell in thing.__closure__ or () if cell != CellType()]
    return list(getattr(thing, "__dict__", {}).values())


def _restoring(generator: Any) -> Callable[[], None]:
    """A function that restores the generator's present state."""
    if isinstance(generator, np.random.Generator):
        return partial(setattr, generator.bit_generator, "state", generator.bit_generator.state)
    if isinstance(generator, random.Random):
        return partial(generator.setstate, generator.getstate())
    return partial(generator.set_state, generator.get_state())
