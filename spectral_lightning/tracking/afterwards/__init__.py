"""Histories of trainings that nobody followed, from the samples or checkpoints that they saved."""

from spectral_lightning.tracking.afterwards.checkpoints import track_checkpoints
from spectral_lightning.tracking.afterwards.samples import track_samples

__all__ = ["track_checkpoints", "track_samples"]
