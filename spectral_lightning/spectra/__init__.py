"""The measurement: moments of the data, bases, statistics of samples along modes, and the history they make."""

from spectral_lightning.spectra.bases.basis import Basis
from spectral_lightning.spectra.bases.fourier import FourierBasis
from spectral_lightning.spectra.bases.layout import channels_and_size
from spectral_lightning.spectra.bases.observables import NULL_SHARE, Observables
from spectral_lightning.spectra.bases.observed import ObservedBasis
from spectral_lightning.spectra.bases.overlap import overlap
from spectral_lightning.spectra.bases.patch import PatchBasis
from spectral_lightning.spectra.bases.pca import PCABasis
from spectral_lightning.spectra.bases.recipes import (
    BasisRecipe,
    Eigenmodes,
    FourierModes,
    PatchComponents,
    basis_from_state,
    chosen_recipe,
    load_basis,
)
from spectral_lightning.spectra.bases.vectors import VectorBasis
from spectral_lightning.spectra.history.directory import HistoryDirectory
from spectral_lightning.spectra.history.history import FIELDS, Field, SpectralHistory
from spectral_lightning.spectra.measurement.groups import Groups, group_moments, group_sums
from spectral_lightning.spectra.measurement.probe import GeneratedSamples, SpectralProbe
from spectral_lightning.spectra.measurement.statistics import ModeStatistics
from spectral_lightning.spectra.moments import SpectralMoments
from spectral_lightning.spectra.population import HasPopulationMoments, HasTrainingMoments
from spectral_lightning.spectra.ranks import DistributedRanks, OneProcess, Ranks, current_ranks

__all__ = [
    "FIELDS",
    "NULL_SHARE",
    "Basis",
    "BasisRecipe",
    "DistributedRanks",
    "Eigenmodes",
    "Field",
    "FourierBasis",
    "FourierModes",
    "GeneratedSamples",
    "Groups",
    "HasPopulationMoments",
    "HasTrainingMoments",
    "HistoryDirectory",
    "ModeStatistics",
    "Observables",
    "ObservedBasis",
    "OneProcess",
    "PCABasis",
    "PatchBasis",
    "PatchComponents",
    "Ranks",
    "SpectralHistory",
    "SpectralMoments",
    "SpectralProbe",
    "VectorBasis",
    "basis_from_state",
    "channels_and_size",
    "chosen_recipe",
    "current_ranks",
    "group_moments",
    "group_sums",
    "load_basis",
    "overlap",
]
