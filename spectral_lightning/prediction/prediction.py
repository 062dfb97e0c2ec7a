"""Predicts a measured history from a theory: same sampler, same start, same steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spectral_lightning.prediction.baselines import Judgement, judge
from spectral_lightning.prediction.clock import Fit, Predict, fit_time_scale, goodness_of_fit, training_time
from spectral_lightning.prediction.comparison import Comparison
from spectral_lightning.prediction.modes import NaturalModes
from spectral_lightning.prediction.start import Start
from spectral_lightning.prediction.table import Table
from spectral_lightning.sampling import Sampler
from spectral_lightning.spectra import SpectralHistory

__all__ = ["Prediction"]

Array = NDArray[np.float64]

_LEAST_CROSSED = 5


class Prediction:
    """Predicts the rows of a measured history as they are added.

    Theory time is the sum of the learning rates, or that times one factor. The factor is fitted once, to the variances
    measured until enough modes have crossed their threshold: rows up to then are in-sample, later rows are predictions.
    With a factor to fit, a prediction that starts from the response matrix is interpolated in a :class:`Table`.

    Args:
        natural: the theory solved in its natural modes and projected on the measured ones.
        sampler: the sampler of the measurement.
        fitted: whether to fit a factor.
        base: learning rate at which one update is the theory's unit of time.
        calibrate_after: fraction of the eligible modes, and at least five, that must cross before the factor is fitted.
    """

    def __init__(
        self, natural: NaturalModes, sampler: Sampler, fitted: bool, base: float | None, calibrate_after: float
    ) -> None:
        self.natural, self.sampler, self.fitted, self.base = natural, sampler, fitted, base
        self.calibrate_after = calibrate_after
        self.scale: float | None = None if fitted else 1.0
        self.calibrated_at: int | None = None if fitted else 0
        self.natural_gain: torch.Tensor | None = None
        """Gain before training along the natural modes, ``[level, mode]``, if those are not the measured modes."""
        self.response: torch.Tensor | None = None
        """Leading rows of the response matrix before training, ``[level, m, mode]``, to start from it."""
        self._table: Table | None = None
        self.history: SpectralHistory | None = None

    def update(self, measured: SpectralHistory, comparison: Comparison) -> list[tuple[int, Array]]:
        """Calibrate if enough modes have crossed, and return step and variances of every newly predicted row.

        Args:
            measured: the measurement.
            comparison: its emergence: which modes are eligible, and which have crossed.
        """
        if self.scale is None and self._ready(comparison):
            self.calibrate(measured, comparison)
        return self.extend(measured)

    def calibrate(self, measured: SpectralHistory, comparison: Comparison) -> None:
        """Fit the factor to all rows so far and keep it; do nothing if no mode is eligible."""
        self.scale = self.fit(measured, comparison)
        self.calibrated_at = None if self.scale is None else measured.last_step

    def extend(self, measured: SpectralHistory) -> list[tuple[int, Array]]:
        """Predict the new rows, and return step and variances of each."""
        if self.scale is None or self.history is None or len(self.history) == len(measured):
            return []
        missing = slice(len(self.history), len(measured))
        time = training_time(measured, self.base)[missing] * self.scale
        gains: dict[str, Any] = {}
        if "gain" in measured:
            gains["gain"] = self.natural.gain(time, measured["levels"], self.start(measured).gain)
        rows = []
        table = self._predict(measured)(time)
        for i, (step, row) in enumerate(zip(measured.steps[missing], table, strict=True)):
            self.history.append(step=step, variance=row, **{name: values[i] for name, values in gains.items()})
            rows.append((int(step), row))
        return rows

    def fit(self, measured: SpectralHistory, comparison: Comparison) -> float | None:
        """The factor that fits all rows, smoothed, best; None without eligible modes or with fewer than two rows."""
        time, modes = training_time(measured, self.base), _eligible(comparison)
        if not modes.any() or len(time) < 2:
            return None
        return fit_time_scale(time, measured.smoothed().variance, self._predict(measured), modes)

    def goodness(self, measured: SpectralHistory, comparison: Comparison, after: int = 0) -> Fit | None:
        """Goodness of fit over all measurements after step ``after``, smoothed; None without a prediction."""
        if self.history is None or len(self.history) == 0:
            return None
        rows, variance = measured.steps > after, measured.smoothed().variance
        table = self.history.variance[rows]
        return goodness_of_fit(variance[rows], table, variance[0], _eligible(comparison))

    def judge(
        self, measured: SpectralHistory, comparison: Comparison, refit_scale: float | None = None
    ) -> Judgement | None:
        """The theory beside its baselines on the smoothed rows, step 0 included; None without a prediction.

        Args:
            measured: the measurement.
            comparison: its emergence, for the eligible modes.
            refit_scale: a factor fitted to all rows, to judge that too.
        """
        if self.history is None or len(self.history) == 0:
            return None
        modes, smooth, time = _eligible(comparison), measured.smoothed(), training_time(measured, self.base)
        refit = None if refit_scale is None else self._predict(measured)(time * refit_scale)[:, modes]
        return judge(
            measured.steps,
            time,
            smooth.variance[:, modes],
            self.history.variance[:, modes],
            smooth.fixed_point[modes],
            smooth.target[modes],
            self.calibrated_at if self.fitted else None,
            refit,
        )

    def start_errors(self, measured: SpectralHistory) -> dict[str, float]:
        """Rms error of log variance before training, of a start from the gains and of the start used, modes with variance."""
        modes, first = ~np.asarray(measured["null"], bool), measured.smoothed().variance[:1]
        start = self.start(measured)
        starts = {"gains": start.without_response, "used": start}
        tables = {name: self.natural.variance(np.zeros(1), self.sampler, one) for name, one in starts.items()}
        return {name: goodness_of_fit(first, table, first[0], modes).rms for name, table in tables.items()}

    def describe_clock(self) -> str:
        """One phrase on how training time maps to theory time."""
        if not self.fitted:
            return "clock: the sum of the learning rates, nothing fitted"
        if self.scale is None:
            return f"clock: one factor, to be fitted once {self.calibrate_after:.0%} of the modes have crossed"
        return f"clock: one factor, {self.scale:.4g}, fitted at step {self.calibrated_at} and kept since"

    def _ready(self, comparison: Comparison) -> bool:
        measured = comparison.measured
        crossed = int((measured.crossed("rising") | measured.crossed("falling")).sum())
        return crossed >= max(_LEAST_CROSSED, self.calibrate_after * int(_eligible(comparison).sum()))

    def start(self, measured: SpectralHistory) -> Start:
        """What the prediction starts from."""
        if not self.natural.takes_gain:
            return Start()
        own = measured["initial_gain"] if self.natural.own else None
        gain = own if self.natural_gain is None else np.asarray(self.natural_gain.numpy())
        return Start(gain, None if self.response is None else self.response.double().numpy())

    def _predict(self, measured: SpectralHistory) -> Predict:
        """The predicted variances as a function of theory time."""
        start = self.start(measured)

        def predict(time: Array) -> Array:
            return self.natural.variance(time, self.sampler, start)

        if start.response is None or not self.fitted:
            return predict
        if self._table is None:
            self._table = Table(predict, self.natural.rates(np.asarray(self.sampler.levels)))
        return self._table


def _eligible(comparison: Comparison) -> NDArray[np.bool_]:
    measured = comparison.measured
    return np.asarray(measured.eligible("rising") | measured.eligible("falling"))
