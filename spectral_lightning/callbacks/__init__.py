"""Lightning callbacks for any diffusion training: thin shells over the session and its observers."""

from spectral_lightning.callbacks.fitter import EmergenceFitter
from spectral_lightning.callbacks.overlay import AnalyticOverlay
from spectral_lightning.callbacks.tracker import SpectralTracker

__all__ = ["AnalyticOverlay", "EmergenceFitter", "SpectralTracker"]
