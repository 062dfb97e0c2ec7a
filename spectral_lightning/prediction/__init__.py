"""Turns a theory into a prediction of what is measured: natural modes, clock, departures, comparison. No Trainer."""

from spectral_lightning.prediction.clock import Fit, fit_time_scale, goodness_of_fit, training_time
from spectral_lightning.prediction.comparison import Comparison, compare
from spectral_lightning.prediction.departures import data_departures, optimizer_departures
from spectral_lightning.prediction.derivation import derived_preconditioning, derived_theory
from spectral_lightning.prediction.modes import NaturalModes
from spectral_lightning.prediction.prediction import Prediction

__all__ = [
    "Comparison",
    "Fit",
    "NaturalModes",
    "Prediction",
    "compare",
    "data_departures",
    "derived_preconditioning",
    "derived_theory",
    "fit_time_scale",
    "goodness_of_fit",
    "optimizer_departures",
    "training_time",
]
