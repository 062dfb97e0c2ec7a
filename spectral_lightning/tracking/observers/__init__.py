"""What follows a session's measurements: the theory beside them, the emergence of modes, the gains."""

from spectral_lightning.tracking.observers.fitter import Fitter
from spectral_lightning.tracking.observers.gain import GainFigure
from spectral_lightning.tracking.observers.overlay import Overlay

__all__ = ["Fitter", "GainFigure", "Overlay"]
