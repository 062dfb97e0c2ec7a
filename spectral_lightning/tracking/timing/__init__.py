"""When to measure, what it costs, and the limit on that cost."""

from spectral_lightning.tracking.timing.budget import Budget
from spectral_lightning.tracking.timing.cost import Cost
from spectral_lightning.tracking.timing.schedule import Schedule

__all__ = ["Budget", "Cost", "Schedule"]
