"""The measurement: moments of the data, bases, statistics of samples along modes, and the history they make."""

from spectral_lightning.spectra.bases import (
    NULL_SHARE,
    Basis,
    BasisRecipe,
    Eigenmodes,
    FourierBasis,
    FourierModes,
    Observables,
    PatchBasis,
    PatchComponents,
    PCABasis,
    basis_from_state,
    channels_and_size,
    chosen_recipe,
    load_basis,
    overlap,
)
from spectral_lightning.spectra.history import FIELDS, Field, HistoryDirectory, SpectralHistory
from spectral_lightning.spectra.measurement import (
    GeneratedSamples,
    Groups,
    ModeStatistics,
    SpectralProbe,
    group_moments,
    group_sums,
)
from spectral_lightning.spectra.moments import HasPopulationMoments, HasTrainingMoments, SpectralMoments
from spectral_lightning.spectra.ranks import DistributedRanks, Ranks, current_ranks

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
    "PCABasis",
    "PatchBasis",
    "PatchComponents",
    "Ranks",
    "SpectralHistory",
    "SpectralMoments",
    "SpectralProbe",
    "basis_from_state",
    "channels_and_size",
    "chosen_recipe",
    "current_ranks",
    "group_moments",
    "group_sums",
    "load_basis",
    "overlap",
]
