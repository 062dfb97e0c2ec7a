"""The observers that belong to the settings of a session."""

from __future__ import annotations

from spectral_lightning.tracking.observers.floor import FloorFigure
from spectral_lightning.tracking.observers.forecaster import Forecaster
from spectral_lightning.tracking.observers.gain import GainFigure
from spectral_lightning.tracking.session import Observer
from spectral_lightning.tracking.settings import Sampling

__all__ = ["CHARTS", "charts"]

CHARTS = (GainFigure, FloorFigure, Forecaster)
"""Observers that a tracker adds itself."""


def charts(sampling: Sampling) -> list[Observer]:
    """The charts of what ``sampling`` measures, and the forecaster, which waits for a fitter."""
    floor = sampling.track_floor and not sampling.samples_itself
    return [*([GainFigure()] if sampling.track_gain else []), *([FloorFigure()] if floor else []), Forecaster()]
