"""The theory seen through a measurement: natural modes, clock, departures, comparison. No Trainer."""

from spectral_lightning.prediction.clock import Fit, fit_time_scale, goodness_of_fit, training_time
from spectral_lightning.prediction.comparison import Comparison, compare
from spectral_lightning.prediction.departures import data_departures, optimizer_departures
from spectral_lightning.prediction.modes import NaturalModes

__all__ = [
    "Comparison",
    "Fit",
    "NaturalModes",
    "compare",
    "data_departures",
    "fit_time_scale",
    "goodness_of_fit",
    "optimizer_departures",
    "training_time",
]
