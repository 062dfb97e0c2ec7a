"""Observers of a session: the theory beside the measurement, the emergence of modes and its forecast, charts."""

from spectral_lightning.tracking.observers.charts import CHARTS, charts
from spectral_lightning.tracking.observers.fitter import Fitter
from spectral_lightning.tracking.observers.floor import FloorFigure
from spectral_lightning.tracking.observers.forecaster import Forecaster
from spectral_lightning.tracking.observers.gain import GainFigure
from spectral_lightning.tracking.observers.overlay import Overlay

__all__ = ["CHARTS", "Fitter", "FloorFigure", "Forecaster", "GainFigure", "Overlay", "charts"]
