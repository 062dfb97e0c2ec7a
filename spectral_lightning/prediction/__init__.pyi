from .baselines import BASELINES, Curve, Errors, Judgement, fit_curve, judge
from .clock import Fit, fit_time_scale, goodness_of_fit, training_time
from .comparison import Comparison, compare
from .departures import data_departures, optimizer_departures, start_departures
from .derivation import derived_preconditioning, derived_theory
from .modes import NaturalModes
from .outlook import Outlook, outlook
from .prediction import Prediction
from .scales import Scales
from .start import Start

__all__ = [
    "BASELINES",
    "Comparison",
    "Curve",
    "Errors",
    "Fit",
    "Judgement",
    "NaturalModes",
    "Outlook",
    "Prediction",
    "Scales",
    "Start",
    "compare",
    "data_departures",
    "derived_preconditioning",
    "derived_theory",
    "fit_curve",
    "fit_time_scale",
    "goodness_of_fit",
    "judge",
    "optimizer_departures",
    "outlook",
    "start_departures",
    "training_time",
]
