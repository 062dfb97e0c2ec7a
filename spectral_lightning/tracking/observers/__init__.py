"""Observers of a session: the theory beside the measurement, the emergence of modes, the figure of gains."""

from spectral_lightning.tracking.observers.fitter import Fitter
from spectral_lightning.tracking.observers.gain import GainFigure
from spectral_lightning.tracking.observers.overlay import Overlay

__all__ = ["Fitter", "GainFigure", "Overlay"]
