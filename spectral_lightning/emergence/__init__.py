"""When a mode is learnt: thresholds, passage, the law of emergence times and forecasts. NumPy and SciPy only.

Measured and predicted trajectories of the variance go through the same functions. Every judgement follows one set of
:class:`Rules`.
"""

from spectral_lightning.emergence.criteria import (
    CRITERIA,
    Criterion,
    StaysWithin,
    as_criterion,
    direction,
    gray_zone,
    threshold,
)
from spectral_lightning.emergence.forecasting import Course, Forecast, Interval, forecast
from spectral_lightning.emergence.law import (
    CombinedLaw,
    EmergenceLaw,
    LocalExponent,
    combine,
    fit_law,
    local_exponents,
)
from spectral_lightning.emergence.modes import STATUS, ModeEmergence, combined_law, emergence, first_passage
from spectral_lightning.emergence.monotone import MonotonePassage, Reversals, monotone_passage, reversals, stalled
from spectral_lightning.emergence.powerlaw import PowerLaw, fit_power_law
from spectral_lightning.emergence.regression import Regression, regress
from spectral_lightning.emergence.rules import RULES, Rules

__all__ = [
    "CRITERIA",
    "RULES",
    "STATUS",
    "CombinedLaw",
    "Course",
    "Criterion",
    "EmergenceLaw",
    "Forecast",
    "Interval",
    "LocalExponent",
    "ModeEmergence",
    "MonotonePassage",
    "PowerLaw",
    "Regression",
    "Reversals",
    "Rules",
    "StaysWithin",
    "as_criterion",
    "combine",
    "combined_law",
    "direction",
    "emergence",
    "first_passage",
    "fit_law",
    "fit_power_law",
    "forecast",
    "gray_zone",
    "local_exponents",
    "monotone_passage",
    "regress",
    "reversals",
    "stalled",
    "threshold",
]
