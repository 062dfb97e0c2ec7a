"""One measurement: samples of a denoiser and their statistics along modes, in total and per group."""

from spectral_lightning.spectra.measurement.groups import Groups, group_moments, group_sums
from spectral_lightning.spectra.measurement.probe import GeneratedSamples, SpectralProbe
from spectral_lightning.spectra.measurement.statistics import ModeStatistics

__all__ = ["GeneratedSamples", "Groups", "ModeStatistics", "SpectralProbe", "group_moments", "group_sums"]
