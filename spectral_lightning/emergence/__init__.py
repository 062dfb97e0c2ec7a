"""When a mode is learnt: thresholds, first passage, the gray zone and the power law. NumPy and SciPy only.

Measured and predicted trajectories of the variance go through the same functions.
"""

from spectral_lightning.emergence.criteria import CRITERIA, StaysWithin, direction, gray_zone, threshold
from spectral_lightning.emergence.modes import STATUS, ModeEmergence, emergence, first_passage
from spectral_lightning.emergence.powerlaw import PowerLaw, fit_power_law

__all__ = [
    "CRITERIA",
    "STATUS",
    "ModeEmergence",
    "PowerLaw",
    "StaysWithin",
    "direction",
    "emergence",
    "first_passage",
    "fit_power_law",
    "gray_zone",
    "threshold",
]
