"""Callbacks for any diffusion training: thin Lightning shells over the measurement and the theory."""

from spectral_lightning.callbacks.base import SWITCH, switched_off
from spectral_lightning.callbacks.fitter import EmergenceFitter
from spectral_lightning.callbacks.overlay import AnalyticOverlay
from spectral_lightning.callbacks.partner import Partner
from spectral_lightning.callbacks.tracker import SpectralTracker
from spectral_lightning.tracking.schedule import LogSchedule

__all__ = [
    "SWITCH",
    "AnalyticOverlay",
    "EmergenceFitter",
    "LogSchedule",
    "Partner",
    "SpectralTracker",
    "switched_off",
]
