"""One measurement: samples of a denoiser, their statistics along modes, in total and per group, and its loss over the floor."""

from spectral_lightning.spectra.measurement.floor import LinearFloor
from spectral_lightning.spectra.measurement.groups import Groups, group_moments, group_sums
from spectral_lightning.spectra.measurement.probe import GeneratedSamples, SpectralProbe
from spectral_lightning.spectra.measurement.response import response_matrix
from spectral_lightning.spectra.measurement.running import RunningFloor
from spectral_lightning.spectra.measurement.statistics import ModeStatistics
from spectral_lightning.spectra.measurement.wiener import WienerFilter

__all__ = [
    "GeneratedSamples",
    "Groups",
    "LinearFloor",
    "ModeStatistics",
    "RunningFloor",
    "SpectralProbe",
    "WienerFilter",
    "group_moments",
    "group_sums",
    "response_matrix",
]
