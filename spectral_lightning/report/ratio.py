"""The loss in training passes over its linear floor."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["training_ratio"]

Array = NDArray[np.float64]

_FEWEST = 16  # examples of a training mean that is shown


def training_ratio(error: Array, linear: Array, count: NDArray[np.int64]) -> Array:
    """Loss over its linear floor in training passes, of the same shape; NaN where the means hold fewer than 16 examples."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count >= _FEWEST, error / linear, np.nan)
