"""The measurement: moments of the data, bases, statistics of samples along modes, and the history they make."""

from spectral_lightning.spectra.basis import Basis
from spectral_lightning.spectra.comparison import Comparison, compare
from spectral_lightning.spectra.directory import HistoryDirectory
from spectral_lightning.spectra.fourier import FourierBasis
from spectral_lightning.spectra.groups import Groups, group_moments, group_sums
from spectral_lightning.spectra.history import FIELDS, Field, SpectralHistory
from spectral_lightning.spectra.layout import channels_and_size
from spectral_lightning.spectra.moments import SpectralMoments
from spectral_lightning.spectra.observables import NULL_SHARE, Observables
from spectral_lightning.spectra.observed import ObservedBasis
from spectral_lightning.spectra.overlap import overlap
from spectral_lightning.spectra.patch import PatchBasis
from spectral_lightning.spectra.pca import PCABasis
from spectral_lightning.spectra.population import HasPopulationMoments, HasTrainingMoments
from spectral_lightning.spectra.probe import GeneratedSamples, SpectralProbe
from spectral_lightning.spectra.ranks import DistributedRanks, OneProcess, Ranks, current_ranks
from spectral_lightning.spectra.recipes import (
    BasisRecipe,
    Eigenmodes,
    FourierModes,
    PatchComponents,
    basis_from_state,
    chosen_recipe,
    load_basis,
)
from spectral_lightning.spectra.statistics import ModeStatistics
from spectral_lightning.spectra.vectors import VectorBasis

__all__ = [
    "FIELDS",
    "NULL_SHARE",
    "Basis",
    "BasisRecipe",
    "Comparison",
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
    "compare",
    "current_ranks",
    "group_moments",
    "group_sums",
    "load_basis",
    "overlap",
]
