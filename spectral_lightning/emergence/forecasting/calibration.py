"""Constants of the forecasts, tuned on half of the stored experiments by ``studies/forecasts.py``, whose tests compare them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["QUANTILES", "SPREAD", "TYPICAL", "UNTESTED", "spread", "width"]

TYPICAL: Mapping[str, float] = {
    "law": 0.114,
    "curve": 0.121,
    "shift": 0.049,
    "pace": 0.045,
    "regression": 0.070,
    "mean": 0.049,
    "theory": 0.102,
}
"""Error ``|log(predicted / actual step)|`` by method: the median over modes, then over cuts, then over runs."""

SPREAD, UNTESTED = (-0.68, 0.60), 0.22
"""Logs of the errors in this run on those of its tests: intercept and slope; the typical error of a run without tests."""

QUANTILES: Mapping[float, tuple[float, float]] = {0.5: (-0.71, 1.32), 0.8: (-1.32, 3.74), 0.9: (-1.78, 6.98)}
"""By confidence, ends of the interval of ``log(actual / predicted step)`` over width and spread."""

_NEAR = 0.1
_SMALLEST = 0.005


def width(ahead: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unit of the error of a forecast, by the log of predicted step over now."""
    return _NEAR + ahead


def spread(tests: Sequence[float] | NDArray[np.float64]) -> float:
    """Factor on the width, from the median errors of the tests in units of it: a power of their geometric mean."""
    if not len(tests):
        return UNTESTED
    return float(np.exp(SPREAD[0] + SPREAD[1] * np.mean(np.log(_SMALLEST + np.asarray(tests)))))
