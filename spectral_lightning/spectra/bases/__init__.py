"""Modes of the data: eigenmodes of the covariance, Fourier modes, components of patches."""

from spectral_lightning.spectra.bases.basis import (
    Basis,
    Observables,
    basis_from_state,
    channels_and_size,
    load_basis,
    overlap,
)
from spectral_lightning.spectra.bases.fourier import FourierBasis, FourierModes
from spectral_lightning.spectra.bases.patch import PatchBasis, PatchComponents
from spectral_lightning.spectra.bases.pca import Eigenmodes, PCABasis
from spectral_lightning.spectra.bases.pictures import mode_images, sample_images
from spectral_lightning.spectra.bases.recipes import BasisRecipe, StreamedRecipe, chosen_recipe

__all__ = [
    "Basis",
    "BasisRecipe",
    "Eigenmodes",
    "FourierBasis",
    "FourierModes",
    "Observables",
    "PCABasis",
    "PatchBasis",
    "PatchComponents",
    "StreamedRecipe",
    "basis_from_state",
    "channels_and_size",
    "chosen_recipe",
    "load_basis",
    "mode_images",
    "overlap",
    "sample_images",
]
