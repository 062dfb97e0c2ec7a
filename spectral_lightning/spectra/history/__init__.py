"""The table of measurements, in memory and on disk."""

from spectral_lightning.spectra.history.directory import HistoryDirectory
from spectral_lightning.spectra.history.history import FIELDS, Field, SpectralHistory

__all__ = ["FIELDS", "Field", "HistoryDirectory", "SpectralHistory"]
