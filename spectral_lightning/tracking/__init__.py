"""Follows one training without Lightning: settings, session, observers, and the monitor for any loop."""

from spectral_lightning.tracking.afterwards import track_checkpoints, track_samples
from spectral_lightning.tracking.monitor import SpectralMonitor
from spectral_lightning.tracking.observers import Fitter, Overlay
from spectral_lightning.tracking.session import Observer, Session
from spectral_lightning.tracking.settings import Output, Reference, Sampling, Settings, switched_off
from spectral_lightning.tracking.timing import Schedule
from spectral_lightning.tracking.training import Training

__all__ = [
    "Fitter",
    "Observer",
    "Output",
    "Overlay",
    "Reference",
    "Sampling",
    "Schedule",
    "Session",
    "Settings",
    "SpectralMonitor",
    "Training",
    "switched_off",
    "track_checkpoints",
    "track_samples",
]
