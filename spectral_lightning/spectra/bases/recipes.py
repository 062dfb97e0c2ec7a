"""Bases as settings: which modes to look along, before the data are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from spectral_lightning.arguments import one_of
from spectral_lightning.spectra.bases.basis import Basis
from spectral_lightning.spectra.bases.fourier import FourierBasis
from spectral_lightning.spectra.bases.observed import ObservedBasis
from spectral_lightning.spectra.bases.patch import PatchBasis
from spectral_lightning.spectra.bases.pca import PCABasis
from spectral_lightning.spectra.bases.vectors import VectorBasis

__all__ = [
    "BasisRecipe",
    "Eigenmodes",
    "FourierModes",
    "PatchComponents",
    "basis_from_state",
    "chosen_recipe",
    "load_basis",
]

_KINDS: dict[str, type[ObservedBasis]] = {kind.kind: kind for kind in (PCABasis, FourierBasis, PatchBasis)}


@runtime_checkable
class BasisRecipe(Protocol):
    """What turns the moments of the data into a basis.

    In YAML a class is one where the signature of its ``make``, what it returns included, is exactly this one.
    """

    def make(self, mean: Tensor, covariance: Tensor, shape: Sequence[int], source: str = "given moments") -> Basis:
        """The basis of data of this mean ``[d]`` and covariance ``[d, d]``, examples of this shape."""
        ...


@dataclass(frozen=True)
class Eigenmodes:
    """The eigenvectors of the covariance, see :class:`~spectral_lightning.spectra.PCABasis`.

    Args:
        num_modes: number of modes of largest variance to keep; all if None.

    Example:
        >>> Eigenmodes(num_modes=1).make(torch.zeros(2), torch.eye(2), (2,)).describe()
        '1 eigenmodes of the covariance of given moments, dimension 2'
    """

    num_modes: int | None = None

    def make(self, mean: Tensor, covariance: Tensor, shape: Sequence[int], source: str = "given moments") -> Basis:
        """The eigenmodes of this covariance."""
        return PCABasis.from_moments(mean, covariance, self.num_modes, shape, source)


@dataclass(frozen=True)
class FourierModes:
    """Single frequencies or radial bands, see :class:`~spectral_lightning.spectra.FourierBasis`.

    Args:
        bands: number of radial bands; single frequencies if None.
        axes: 2 for grey images ``[H, W]`` without an axis of channels.

    Example:
        >>> FourierModes().make(torch.zeros(4), torch.eye(4), (4,)).labels
        ['k=0', 'k=1', 'k=2']
    """

    bands: int | None = None
    axes: int | None = None

    def make(self, mean: Tensor, covariance: Tensor, shape: Sequence[int], source: str = "given moments") -> Basis:
        """The Fourier modes of data of this covariance."""
        return FourierBasis.from_moments(mean, covariance, shape, self.bands, self.axes, source)


@dataclass(frozen=True)
class PatchComponents:
    """The principal components of patches, see :class:`~spectral_lightning.spectra.PatchBasis`.

    Args:
        size: pixels of a patch along each axis.
        stride: pixels from one patch to the next along each axis.
        boundary: ``"circular"``, patches continue at the opposite side, or ``"valid"``, patches lie within the image.
        num_modes: number of components to keep; all if None.
        axes: 2 for grey images ``[H, W]`` without an axis of channels.

    Example:
        >>> PatchComponents(size=3).make(torch.zeros(8), torch.eye(8), (8,)).replicates
        8
    """

    size: int = 5
    stride: int = 1
    boundary: Literal["circular", "valid"] = "circular"
    num_modes: int | None = None
    axes: int | None = None

    def make(self, mean: Tensor, covariance: Tensor, shape: Sequence[int], source: str = "given moments") -> Basis:
        """The patch components of data of this covariance."""
        return PatchBasis.from_moments(
            mean, covariance, shape, self.size, self.stride, self.boundary, self.num_modes, self.axes, source
        )


_BY_NAME: dict[str, Eigenmodes | FourierModes | PatchComponents] = {
    "pca": Eigenmodes(),
    "fourier": FourierModes(),
    "patch": PatchComponents(),
}


def chosen_recipe(basis: str | BasisRecipe | VectorBasis, num_modes: int | None = None) -> BasisRecipe | VectorBasis:
    """The recipe of a name, ``"pca"``, ``"fourier"`` or ``"patch"``; a recipe or a basis itself.

    Raises:
        ValueError: for an unknown name, or a number of modes where the choice takes none.
        TypeError: for anything else.
    """
    if not isinstance(basis, str):
        if not isinstance(basis, BasisRecipe | VectorBasis):
            raise TypeError(
                f"`basis` must be one of {', '.join(map(repr, _BY_NAME))}, a recipe or a basis, got {basis!r}."
            )
        if num_modes is not None:
            raise ValueError(f"`num_modes` must be given in `basis` itself, got {num_modes!r} beside it.")
        return basis
    recipe = _BY_NAME[one_of("basis", basis, tuple(_BY_NAME))]
    if num_modes is None:
        return recipe
    if isinstance(recipe, FourierModes):
        raise ValueError(
            f"`num_modes` must be left out with basis='fourier', got {num_modes!r}. Use FourierModes(bands=...)."
        )
    return replace(recipe, num_modes=num_modes)


def basis_from_state(state: dict[str, Any]) -> Basis:
    """The basis that ``basis.state()`` describes, of whatever kind.

    Raises:
        ValueError: for a kind that is not known.
    """
    kind = state.get("kind", PCABasis.kind)
    if kind not in _KINDS:
        raise ValueError(f"`kind` must be one of {', '.join(map(repr, _KINDS))}, got {kind!r}.")
    return _KINDS[kind].from_state(state)


def load_basis(path: str | Path) -> Basis:
    """Read what ``basis.save(path)`` wrote, of whatever kind; nothing in the file is executed.

    Raises:
        ValueError: for a kind that is not known.
    """
    return basis_from_state(torch.load(path, weights_only=True, map_location="cpu"))
