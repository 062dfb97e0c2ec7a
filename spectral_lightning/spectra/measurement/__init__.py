"""One measurement: samples of a denoiser, their statistics along modes, of all together and group by group."""

from spectral_lightning.spectra.measurement.groups import Groups, group_moments, group_sums
from spectral_lightning.spectra.measurement.probe import GeneratedSamples, SpectralProbe
from spectral_lightning.spectra.measurement.statistics import ModeStatistics

__all__ = ["GeneratedSamples", "Groups", "ModeStatistics", "SpectralProbe", "group_moments", "group_sums"]
