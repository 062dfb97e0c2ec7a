"""Forecasts of the steps at which modes will be learnt, tested in the same run. NumPy and SciPy only."""

from spectral_lightning.emergence.forecasting.backtest import Tested
from spectral_lightning.emergence.forecasting.calibration import width
from spectral_lightning.emergence.forecasting.forecast import Course, Forecast, Interval, forecast
from spectral_lightning.emergence.forecasting.methods import METHODS, Curves

__all__ = ["METHODS", "Course", "Curves", "Forecast", "Interval", "Tested", "forecast", "width"]
