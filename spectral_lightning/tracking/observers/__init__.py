"""Observers of a session: the theory beside the measurement, the emergence of modes, charts of gains and of the loss."""

from spectral_lightning.tracking.observers.charts import CHARTS, charts
from spectral_lightning.tracking.observers.fitter import Fitter
from spectral_lightning.tracking.observers.floor import FloorFigure
from spectral_lightning.tracking.observers.gain import GainFigure
from spectral_lightning.tracking.observers.overlay import Overlay

__all__ = ["CHARTS", "Fitter", "FloorFigure", "GainFigure", "Overlay", "charts"]
