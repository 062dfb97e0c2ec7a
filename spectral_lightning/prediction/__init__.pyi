from .clock import Fit, fit_time_scale, goodness_of_fit, training_time
from .comparison import Comparison, compare
from .departures import data_departures, optimizer_departures
from .derivation import derived_preconditioning, derived_theory
from .modes import NaturalModes
from .prediction import Prediction
from .start import Start

__all__ = [
    "Comparison",
    "Fit",
    "NaturalModes",
    "Prediction",
    "Start",
    "compare",
    "data_departures",
    "derived_preconditioning",
    "derived_theory",
    "fit_time_scale",
    "goodness_of_fit",
    "optimizer_departures",
    "training_time",
]
