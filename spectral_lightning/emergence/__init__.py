"""When a mode is learnt: thresholds, first passage, the gray zone, the power law and forecasts. NumPy and SciPy only.

Measured and predicted trajectories of the variance go through the same functions.
"""

from spectral_lightning.emergence.criteria import CRITERIA, StaysWithin, direction, gray_zone, threshold
from spectral_lightning.emergence.forecasting import Course, Forecast, Interval, forecast
from spectral_lightning.emergence.modes import STATUS, ModeEmergence, emergence, first_passage
from spectral_lightning.emergence.powerlaw import PowerLaw, fit_power_law

__all__ = [
    "CRITERIA",
    "STATUS",
    "Course",
    "Forecast",
    "Interval",
    "ModeEmergence",
    "PowerLaw",
    "StaysWithin",
    "direction",
    "emergence",
    "first_passage",
    "fit_power_law",
    "forecast",
    "gray_zone",
    "threshold",
]
