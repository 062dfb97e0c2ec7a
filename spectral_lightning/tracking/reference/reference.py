"""Reads the reference data of a run once, separately from the training, with the same result on every rank."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spectral_lightning.diffusion import undisturbed
from spectral_lightning.diffusion.adapters.adapter import attribute_at
from spectral_lightning.spectra import (
    Basis,
    BasisRecipe,
    Examples,
    Groups,
    HasPopulationMoments,
    PCABasis,
    Ranks,
    SpectralHistory,
    SpectralMoments,
    StreamedRecipe,
    basis_from_state,
    load_basis,
)
from spectral_lightning.spectra.moments import DENSE_DIM
from spectral_lightning.spectra.ranks import together
from spectral_lightning.spectra.reading import DataSource, labelled_batches, preserved_generators, reference_batches
from spectral_lightning.tracking.reference.classes import Classes
from spectral_lightning.tracking.reference.source import find_data
from spectral_lightning.tracking.settings import Reference
from spectral_lightning.tracking.training import Training

__all__ = ["ReferenceReader"]

_NOT_THE_USERS = {*vars(nn.Module()), "trainer", "_trainer", "_fabric", "_device_mesh"}


class ReferenceReader:
    """Reads the data of one training: first their moments, then their classes.

    Args:
        settings: how to read the data.
        data: the data; the dataset of the training's loader if None.
        training: the training; its loader is rebuilt, never iterated.
        ranks: the processes that share the reading. Every rank must call every method.
    """

    def __init__(self, settings: Reference, data: DataSource | None, training: Training, ranks: Ranks) -> None:
        self.settings, self.data, self.training, self.ranks = settings, data, training, ranks

    def basis(
        self, recipe: BasisRecipe | Basis, history: SpectralHistory | None = None, directory: str | None = None
    ) -> Basis:
        """The modes of the data.

        Args:
            recipe: how to make a basis from the moments, or a finished basis, used unchanged.
            history: of a resumed run, to continue with the same modes.
            directory: where that run saved its basis.
        """
        if history is None:
            return self._made(recipe)
        path = None if directory is None else str(Path(directory) / "basis.pt")
        kept = saved_basis(path, str(history.metadata.get("fingerprint")), self.ranks)
        if kept is not None:
            return kept
        basis = self._made(recipe)
        if not np.allclose(basis.variance.numpy(), history.target, rtol=1e-3):
            warnings.warn(
                "The data's variances differ from those in this checkpoint's history: its rows before and after the resume "
                "belong to different modes.",
                stacklevel=2,
            )
        return basis

    def groups(self, classes: Classes, basis: Basis, history: SpectralHistory | None = None) -> Groups:
        """Shares and variances of the classes, from ``history`` if it holds them, else from a second pass over the data."""
        if history is not None and history.groups == list(classes.names):
            share, target = (torch.from_numpy(history[name]) for name in ("group_share", "group_target"))
            return Groups(classes.names, share, target, classes.classify)
        with together(self.ranks):
            source, seen, transform = self._source()
            arguments = (source, self.ranks, self.settings.max_samples, self.settings.batch_key)
            with self._undisturbed(source):
                if classes.classify is None:
                    sums = classes.sums(
                        basis, labelled_batches(*arguments, self.settings.label_key, transform, seen=seen)
                    )
                else:
                    batches = reference_batches(*arguments, transform, seen=seen)
                    sums = classes.sums(basis, ((x, None) for x in batches))
        return classes.groups(sums, self.ranks)

    def points(self, source: Any, count: int, labelled: bool, as_seen: bool) -> tuple[Tensor, Tensor | None]:
        """At most ``count`` held-out examples, evenly spread, and their labels if ``labelled``; no rank waits for another.

        Args:
            source: held-out data; a loader is rebuilt, never iterated.
            count: number of examples.
            labelled: whether they have labels.
            as_seen: whether the training's own processing of batches applies.

        Raises:
            TypeError: if the source cannot be read separately from the training.
            ValueError: if it is empty, or a batch has no labels.
        """
        found = find_data(None, source, self.training.client, "held_out")
        transform, seen = self._transform, self.training.seen() if as_seen else None
        arguments = (found, Ranks(), count, self.settings.batch_key)
        with self._undisturbed(found):
            if not labelled:
                return torch.cat([x.cpu() for x in reference_batches(*arguments, transform, seen=seen)]), None
            parts = [
                (x.cpu(), label.cpu())
                for x, label in labelled_batches(*arguments, self.settings.label_key, transform, seen=seen)
            ]
        return torch.cat([x for x, _ in parts]), torch.cat([label for _, label in parts])

    def class_modes(self, count: int, basis: Basis) -> list[Basis] | None:
        """Eigenmodes of each of ``count`` classes of the training data; None if a class has too few examples for them.

        Reads the data once more. Memory: ``count d^2`` numbers. Every rank must call it.

        Raises:
            ValueError: for labels of ``count`` or more.
        """
        sums = [SpectralMoments(basis.dim) for _ in range(count)]
        with together(self.ranks):
            source, seen, transform = self._source()
            arguments = (
                source,
                self.ranks,
                self.settings.max_samples,
                self.settings.batch_key,
                self.settings.label_key,
            )
            with self._undisturbed(source):
                for x, label in labelled_batches(*arguments, transform, seen=seen):
                    for c in set(label.tolist()):
                        if not 0 <= c < count:
                            raise ValueError(f"Labels must be integers from 0 to {count - 1}, got {c}.")
                        sums[c].update(x[(label == c).to(x.device)].cpu())
        for one in sums:
            one.reduce(self.ranks)
        if not all(int(one.count) > one.dim for one in sums):
            return None
        made = [PCABasis.from_moments(*one.compute(), shape=basis.shape) for one in sums]
        return [shared_basis(self.ranks, one) for one in made]

    def _made(self, recipe: BasisRecipe | Basis) -> Basis:
        if isinstance(recipe, Basis):
            return recipe
        if self.settings.moments == "population":
            return population_basis(self.training.datamodule, recipe)
        device = self.training.device if self.training.device.type == "cuda" else torch.device("cpu")
        with closing(Examples(self._batches, self.ranks, device=device)) as examples:
            if examples.dim > DENSE_DIM and isinstance(recipe, StreamedRecipe):
                basis = recipe.make_from(examples)
            else:
                basis = self._dense(recipe, examples)
        # Made on every rank, so that every rank raises if this fails.
        return shared_basis(self.ranks, basis)

    def _dense(self, recipe: BasisRecipe, examples: Examples) -> Basis:
        """The basis made from a full covariance."""
        moments, dim = SpectralMoments(examples.dim).to(examples.device), examples.dim
        with together(self.ranks):
            for batch in examples.batches():
                moments.update(batch)
        moments.reduce(self.ranks)
        count = int(moments.count)
        if count <= dim:
            warnings.warn(
                f"The reference has {count} examples in {dim} dimensions: at least {dim - count + 1} modes of its "
                "covariance have no variance. They are reported as null modes and left out of every fit.",
                stacklevel=2,
            )
        mean, covariance = moments.compute()
        mean, covariance = mean.reshape(dim), covariance.reshape(dim, dim)  # torchmetrics squeezes a single number
        if not covariance.diagonal().any():
            raise ValueError(f"The data must vary, got {count} identical examples, which have no modes.")
        return recipe.make(mean, covariance, examples.shape, f"{count} training examples")

    def _batches(self) -> Iterator[Tensor]:
        """This rank's batches, the same at every call: the random generators are restored after it."""
        source, seen, transform = self._source()
        arguments = (source, self.ranks, self.settings.max_samples, self.settings.batch_key, transform)
        with self._undisturbed(source):
            yield from reference_batches(*arguments, seen=seen)

    def _source(self) -> tuple[DataSource, Callable[[Any], Any] | None, Callable[[Tensor], Tensor] | None]:
        """The source, the training's own processing of its batches, and the transform of the examples."""
        source = find_data(self.training.loader, self.data, self.training.client)
        # `data` is read as the network sees it, so the training's processing does not apply.
        seen = self.training.seen() if self.data is None else None
        return source, seen, self._transform

    @property
    def _transform(self) -> Callable[[Tensor], Tensor] | None:
        transform: Callable[[Tensor], Tensor] | None = _named_transform(self.settings.transform, self.training)
        return transform

    @contextmanager
    def _undisturbed(self, source: DataSource) -> Iterator[None]:
        """Restore the generators of the data and the modes and generators of the module after reading."""
        module, datamodule = self.training.module, self.training.datamodule
        with undisturbed(module), preserved_generators(source), ExitStack() as stack:
            # The user's batch hooks may draw from a generator kept on any submodule or on the datamodule.
            for owner in (*module.modules(), *([] if datamodule is None else [datamodule])):
                held: Any = [value for key, value in vars(owner).items() if key not in _NOT_THE_USERS]
                stack.enter_context(preserved_generators(held))
            yield


def _named_transform(transform: Callable[[Tensor], Tensor] | str | None, training: Training) -> Any:
    """The transform itself, or the module's method of that name, which gets examples on the module's device."""
    if not isinstance(transform, str):
        return transform
    method = attribute_at(training.module, transform, "transform")
    if not (transform and callable(method)):
        raise ValueError(f"`transform` must name a method of {type(training.module).__name__}, got {transform!r}.")
    return lambda x: method(x.to(training.device))


def population_basis(datamodule: Any, recipe: BasisRecipe) -> Basis:
    """The modes of the population, from a datamodule of synthetic data."""
    if not isinstance(datamodule, HasPopulationMoments):
        raise ValueError(
            "`moments='population'` needs a datamodule with `population_moments()`, "
            f"got {type(datamodule).__name__}. Use moments='sample'."
        )
    mean, covariance = datamodule.population_moments()
    return recipe.make(mean, covariance, tuple(getattr(datamodule, "shape", (len(mean),))), "the population")


def shared_basis(ranks: Ranks, basis: Basis) -> Basis:
    """Copy rank 0's basis to every rank, because machines may order close eigenvalues differently."""
    if ranks.size == 1:
        return basis
    state = basis.state()
    return basis_from_state({k: ranks.copy_from_first(v) if isinstance(v, Tensor) else v for k, v in state.items()})


def saved_basis(path: str | None, fingerprint: str, ranks: Ranks) -> Basis | None:
    """The basis saved before this run was resumed, if every rank finds it unchanged; else None."""
    found = None
    if path is not None and Path(path).exists():
        found = _readable(path)
    return found if all(ranks.gather(found is not None and found.fingerprint == fingerprint)) else None


def _readable(path: str) -> Basis | None:
    try:
        return load_basis(path)
    except Exception as error:  # a damaged file can raise anything
        warnings.warn(f"{path} cannot be read ({error}): the basis is computed again from the data.", stacklevel=2)
        return None
