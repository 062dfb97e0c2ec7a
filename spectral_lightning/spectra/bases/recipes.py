"""Bases as settings: which modes to measure, chosen before the data are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

from torch import Tensor

from spectral_lightning.arguments import one_of
from spectral_lightning.spectra.bases.basis import Basis
from spectral_lightning.spectra.bases.fourier import FourierModes
from spectral_lightning.spectra.bases.patch import PatchComponents
from spectral_lightning.spectra.bases.pca import Eigenmodes
from spectral_lightning.spectra.examples import Examples

__all__ = ["BasisRecipe", "StreamedRecipe", "chosen_recipe"]


@runtime_checkable
class BasisRecipe(Protocol):
    """Makes a basis from the moments of data.

    YAML accepts a class as a recipe if its ``make`` has exactly this signature, annotations included.
    """

    def make(self, mean: Tensor, covariance: Tensor, shape: Sequence[int], source: str = "given moments") -> Basis:
        """The basis of data of this mean ``[d]`` and covariance ``[d, d]``, examples of this shape."""
        ...


@runtime_checkable
class StreamedRecipe(BasisRecipe, Protocol):
    """A recipe that needs no covariance: it makes its basis from sums over examples, in more than 4,096 dimensions."""

    def make_from(self, examples: Examples) -> Basis:
        """The basis of these examples."""
        ...


_BY_NAME: dict[str, Eigenmodes | FourierModes | PatchComponents] = {
    "pca": Eigenmodes(),
    "fourier": FourierModes(),
    "patch": PatchComponents(),
}


def chosen_recipe(basis: str | BasisRecipe | Basis, num_modes: int | None = None) -> BasisRecipe | Basis:
    """The recipe named ``"pca"``, ``"fourier"`` or ``"patch"``; a recipe or a basis is returned as it is.

    Raises:
        ValueError: for an unknown name, or for ``num_modes`` with a basis that does not take it from here.
        TypeError: for anything else.
    """
    if not isinstance(basis, str):
        if not isinstance(basis, BasisRecipe | Basis):
            raise TypeError(
                f"`basis` must be one of {', '.join(map(repr, _BY_NAME))}, a recipe or a basis, got {basis!r}."
            )
        if num_modes is not None:
            raise ValueError(f"`num_modes` must be set in `basis` itself, got {num_modes!r} as a separate argument.")
        return basis
    recipe = _BY_NAME[one_of("basis", basis, tuple(_BY_NAME))]
    if num_modes is None:
        return recipe
    if isinstance(recipe, FourierModes):
        raise ValueError(
            f"`num_modes` must be left out with basis='fourier', got {num_modes!r}. Use FourierModes(bands=...)."
        )
    return replace(recipe, num_modes=num_modes)
