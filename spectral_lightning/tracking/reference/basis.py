"""The basis of a run, made once from the data and the same on every rank."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from spectral_lightning.arguments import one_of, positive_integer
from spectral_lightning.spectra import (
    Basis,
    BasisRecipe,
    Groups,
    HasPopulationMoments,
    ModeStatistics,
    Ranks,
    SpectralHistory,
    SpectralMoments,
    VectorBasis,
    basis_from_state,
    load_basis,
)
from spectral_lightning.spectra.reading import DataSource
from spectral_lightning.tracking.classes import Classes
from spectral_lightning.tracking.errors import together
from spectral_lightning.tracking.reference.reader import Reader, named_transform, transfer_hooks
from spectral_lightning.tracking.reference.source import find_data

__all__ = ["HasShape", "Reference", "population_basis", "saved_basis", "shared_basis"]


@runtime_checkable
class HasShape(Protocol):
    """A datamodule that knows the shape of one example."""

    shape: tuple[int, ...]


class Reference:
    """The data a run is measured against, and how they are read: once, apart from the training.

    Args:
        data: what to read; the dataset of the training dataloader if None.
        batch_key: name or position of the examples in a batch.
        label_key: name or position of the labels in a batch.
        transform: applied to a batch of examples; the name of a method of the module gets it on the module's device.
        moments: ``"sample"`` or ``"population"``.
        limit: the most examples read.

    Raises:
        ValueError: for an argument out of range.
    """

    def __init__(
        self,
        data: DataSource | None = None,
        batch_key: int | str | None = None,
        label_key: int | str | None = None,
        transform: Callable[[Tensor], Tensor] | str | None = None,
        moments: Literal["sample", "population"] = "sample",
        limit: int = 100_000,
    ) -> None:
        self.data, self.batch_key, self.label_key, self.transform = data, batch_key, label_key, transform
        self.moments = one_of("moments", moments, ("sample", "population"))
        self.limit = positive_integer("max_reference_samples", limit)

    def basis(
        self,
        trainer: Trainer,
        module: LightningModule,
        recipe: BasisRecipe | VectorBasis,
        ranks: Ranks,
        history: SpectralHistory | None = None,
        directory: str | None = None,
    ) -> Basis:
        """The modes of the data, the same on every rank. Every rank has to call it.

        Args:
            trainer: that trains.
            module: that it trains.
            recipe: what to make of the moments of the data.
            ranks: the processes that share the data.
            history: that is gone on with, whose modes they have to be.
            directory: where the basis of that history was saved.
        """
        if history is None:
            return self._made(trainer, module, recipe, ranks)
        path = None if directory is None else str(Path(directory) / "basis.pt")
        kept = saved_basis(path, str(history.metadata.get("fingerprint")), ranks)
        if kept is not None:
            return kept
        basis = self._made(trainer, module, recipe, ranks)
        if not np.allclose(basis.variance.numpy(), history.target, rtol=1e-3):
            warnings.warn(
                "The data's variances are not those the history of this checkpoint was measured against: its rows "
                "before and after the resume are along different modes.",
                stacklevel=2,
            )
        return basis

    def _made(
        self, trainer: Trainer, module: LightningModule, recipe: BasisRecipe | VectorBasis, ranks: Ranks
    ) -> Basis:
        if isinstance(recipe, VectorBasis):
            return recipe
        if self.moments == "population":
            return population_basis(getattr(trainer, "datamodule", None), recipe)
        return self._training_basis(self._reader(trainer, module, ranks), recipe, ranks)

    def groups(
        self,
        trainer: Trainer,
        module: LightningModule,
        classes: Classes,
        basis: Basis,
        ranks: Ranks,
        history: SpectralHistory | None = None,
    ) -> Groups:
        """Shares and variances of the classes, from a ``history`` that has them, else read in a second pass.

        Every rank has to call it.
        """
        if history is not None and history.groups == list(classes.names):
            share, target = (torch.from_numpy(history[name]) for name in ("group_share", "group_target"))
            return Groups(classes.names, share, target, classes.classify)
        reader = self._reader(trainer, module, ranks)
        return classes.groups(together(ranks, partial(self._class_sums, reader, classes, basis)), ranks)

    def _class_sums(self, reader: Reader, classes: Classes, basis: Basis) -> list[ModeStatistics]:
        """This rank's share of the sums."""
        with reader.undisturbed():
            batches = (
                reader.labelled(self.label_key) if classes.classify is None else ((x, None) for x in reader.batches())
            )
            return classes.sums(basis, batches)

    def _reader(self, trainer: Trainer, module: LightningModule, ranks: Ranks) -> Reader:
        source = find_data(trainer.train_dataloader, self.data)
        # What is given is taken to be as the network sees it.
        seen = transfer_hooks(trainer, module) if self.data is None else None
        return Reader(source, ranks, self.limit, self.batch_key, named_transform(self.transform, module), seen, module)

    def _training_basis(self, reader: Reader, recipe: BasisRecipe, ranks: Ranks) -> Basis:
        moments, shape = together(ranks, partial(_read, reader))
        moments.reduce(ranks)
        count, dim = int(moments.count), moments.dim
        if count <= dim:
            warnings.warn(
                f"The reference has {count} examples in {dim} dimensions: at least {dim - count + 1} modes of its "
                "covariance have no variance. They are reported as null modes and left out of every fit.",
                stacklevel=2,
            )
        mean, covariance = moments.compute()
        if not covariance.diagonal().any():
            raise ValueError(f"The data must vary, got {count} examples that are all the same: they have no modes.")
        # Made on every rank, so that an error is raised on every rank.
        return shared_basis(ranks, recipe.make(mean, covariance, shape, f"{count} training examples"))


def _read(reader: Reader) -> tuple[SpectralMoments, tuple[int, ...]]:
    """This rank's share of the sums, and the shape of an example."""
    moments: SpectralMoments | None = None
    shape: tuple[int, ...] = ()
    with reader.undisturbed():
        for batch in reader.batches():
            if moments is None:
                shape = tuple(batch.shape[1:]) or (1,)
                moments = SpectralMoments(batch[0].numel())
            moments.update(batch.cpu())
    if moments is None:
        raise ValueError(f"The data must hold at least one example per rank, got fewer than {reader.ranks.size}.")
    return moments, shape


def population_basis(datamodule: Any, recipe: BasisRecipe) -> Basis:
    """The modes of the population, which a datamodule of synthetic data knows."""
    if not isinstance(datamodule, HasPopulationMoments):
        raise ValueError(
            "`moments='population'` needs a datamodule with `population_moments()`, "
            f"got {type(datamodule).__name__}. Use moments='sample'."
        )
    mean, covariance = datamodule.population_moments()
    shape = tuple(datamodule.shape) if isinstance(datamodule, HasShape) else (len(mean),)
    return recipe.make(mean, covariance, shape, "the population")


def shared_basis(ranks: Ranks, basis: Basis) -> Basis:
    """Rank 0's basis on every rank: two machines may order close eigenvalues differently."""
    if ranks.size == 1:
        return basis
    state = basis.state()
    return basis_from_state({k: ranks.copy_from_first(v) if isinstance(v, Tensor) else v for k, v in state.items()})


def saved_basis(path: str | None, fingerprint: str, ranks: Ranks) -> Basis | None:
    """The basis that an earlier part of this run saved, where every rank finds it as it was."""
    found = None
    if path is not None and Path(path).exists():
        found = _readable(path)
    good = found is not None and found.fingerprint == fingerprint
    everywhere = ranks.sum(torch.tensor(float(good))) == ranks.size
    return found if everywhere else None


def _readable(path: str) -> Basis | None:
    try:
        return load_basis(path)
    except Exception as error:  # whatever a damaged file makes of its reader
        warnings.warn(f"{path} cannot be read ({error}): the basis is made anew from the data.", stacklevel=2)
        return None
