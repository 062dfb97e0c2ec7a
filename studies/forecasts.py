"""Forecasts of emergence put to the test on the stored trainings: each run cut short, the rest predicted.

Rules, written before any score was computed. An experiment is a study of ``trainings.yaml``. In alphabetical order the first,
third, ... tune constants and quantiles; the second, fourth, ... are judged, once. A run is one stored history in one
direction, rising or falling, with at least ten eligible modes. It is cut at the first measurement by which 25, 40, 55, 70 and
85 % of its eligible modes have crossed, if at least three cross later. The error of a forecast is ``|log(predicted /
actual)|``, the actual step that of the whole history; its median over the modes that cross later, then over the cuts, then
over the runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from spectral_lightning.emergence.forecasting import METHODS, Curves, Forecast, Tested, forecast, width
from studies.statistics import WAYS, Array, Mask
from studies.store import STORE, Stored
from studies.trainings import STUDIES

__all__ = ["CUTS", "JUDGED", "LEAST", "TUNED", "Case", "Cut", "cases", "tuned", "weighted_quantiles"]

CUTS = (0.25, 0.40, 0.55, 0.70, 0.85)  # share of the eligible modes that have crossed
LEAST = (10, 3)  # eligible modes of a run; modes that cross after a cut
TUNED, JUDGED = sorted(STUDIES)[::2], sorted(STUDIES)[1::2]
_FARTHEST = 100  # a step that is not foreseeable counts as so many times the steps so far
_CONFIDENCES = (0.5, 0.8, 0.9)


@dataclass(frozen=True)
class Case:
    """One stored history in one direction; arrays of its K eligible modes."""

    training: str  # study/name
    tracker: str
    way: str
    steps: Array  # [T]
    modes: Mapping[str, Any]  # `initial`, `target`, `threshold`, `direction`, `mode_variance`, `theory`, [K]
    variance: Array  # [T, K]
    actual: Array  # step of emergence in the whole history, NaN if there is none, [K]

    @property
    def name(self) -> str:
        """As in ``gaussian/d128_seed0, spectral, rising``."""
        return f"{self.training}, {self.tracker}, {self.way}"

    @cached_property
    def cuts(self) -> list[Cut]:
        """Where it is cut short."""
        share = (self.actual <= self.steps[:, None]).mean(1)
        rows = {int(np.argmax(share >= cut - 1e-12)): cut for cut in CUTS[::-1] if share[-1] >= cut - 1e-12}
        ends = sorted((row, cut) for row, cut in rows.items())
        return [Cut(self, cut, row) for row, cut in ends if (self.actual > self.steps[row]).sum() >= LEAST[1]]


@dataclass(frozen=True)
class Cut:
    """A forecast from the first ``row + 1`` records, and what came of it."""

    case: Case
    share: float
    row: int

    @property
    def now(self) -> float:
        """Step of the last record."""
        return float(self.case.steps[self.row])

    @cached_property
    def later(self) -> Mask:
        """Modes that cross after the cut, ``[K]``."""
        return np.asarray(self.case.actual > self.now)

    @cached_property
    def open(self) -> Mask:
        """Modes that have not crossed at the cut, ``[K]``."""
        return np.asarray(~(self.case.actual <= self.now))

    @cached_property
    def actual(self) -> Array:
        """Step of emergence; for a mode without one the last step, which it exceeds, ``[K]``."""
        return np.asarray(np.nan_to_num(self.case.actual, nan=self.case.steps[-1]))

    @cached_property
    def tested(self) -> Tested:
        """All methods."""
        rows = slice(self.row + 1)
        return Tested(Curves.measured(self.case.steps[rows], self.case.variance[rows], **self.case.modes))

    @cached_property
    def forecast(self) -> Forecast:
        """The forecast of the package."""
        rows, every = slice(self.row + 1), np.ones(len(self.actual), np.bool_)
        return forecast(self.case.steps[rows], self.case.variance[rows], eligible=every, **self.case.modes)

    def error(self, step: Array) -> float:
        """Median error over the modes that cross later."""
        predicted = np.clip(step, self.now, _FARTHEST * self.now)
        return float(np.median(np.abs(np.log(predicted / self.actual))[self.later]))

    @cached_property
    def errors(self) -> Mapping[str, float]:
        """Error by method; ``""`` is the forecast."""
        seen = self.tested.seen
        found = {name: self.error(np.exp(method(seen))) for name, method in METHODS.items()}
        return {"": self.error(self.forecast.step), **found}

    @cached_property
    def covered(self) -> Array:
        """Shares of the open modes below, in and above their interval, ``[3]``; a mode without a step exceeds the last one."""
        never, found = np.isnan(self.case.actual), self.forecast
        below = (self.actual < found.low) & ~never
        above = self.actual > found.high
        return np.array([np.mean(a[self.open]) for a in (below, ~below & ~above, above)])

    @cached_property
    def reach(self) -> tuple[float, float, bool, bool]:
        """Step to 90 % of the modes: actual (NaN if not reached), error, whether in the interval, whether it can be judged."""
        found, place = self.forecast.reach(0.9), math.ceil(0.9 * len(self.actual) - 1e-9) - 1
        actual = float(np.sort(np.nan_to_num(self.case.actual, nan=np.inf))[place])
        last = float(self.case.steps[-1])
        if not math.isfinite(actual):
            return math.nan, math.nan, found.high >= last, self.now < last
        error = abs(math.log(min(found.value, _FARTHEST * self.now) / actual))
        return actual, error, found.low <= actual <= found.high, actual > self.now


def cases(experiments: Sequence[str], store: Path = STORE) -> list[Case]:
    """The runs of these experiments."""
    found = []
    for file in sorted(file for study in experiments for file in (store / study).glob("*/*.npz")):
        stored = Stored(file.parent, file.stem)
        history, compared = stored.history, stored.compared()
        measured, predicted = compared.measured, stored.time(predicted=True)
        for way in WAYS:
            chosen = measured.eligible(way)
            if chosen.sum() < LEAST[0]:
                continue
            modes: dict[str, Any] = {
                "initial": measured.initial[chosen],
                "target": measured.target[chosen],
                "threshold": measured.threshold[chosen],
                "direction": measured.direction[chosen],
                "mode_variance": measured.variance[chosen],
                "theory": predicted[chosen],
            }
            training = f"{file.parts[-3]}/{file.parts[-2]}"
            steps = history.steps.astype(np.float64)
            found.append(
                Case(training, file.stem, way, steps, modes, history.variance[:, chosen], measured.time[chosen])
            )
    return [case for case in found if case.cuts]


def weighted_quantiles(values: Array, weights: Array, seen: Mask, shares: Sequence[float]) -> list[float]:
    """Quantiles of values some of which are only lower bounds, by the product-limit estimator.

    Args:
        values: values or bounds, ``[N]``.
        weights: ``[N]``.
        seen: which are values, ``[N]``.
        shares: of the quantiles.

    Reference: Kaplan & Meier 1958.
    """
    order = np.lexsort((~seen, values))
    weight = weights[order]
    risk = weight[::-1].cumsum()[::-1]
    below = 1 - np.cumprod(1 - np.where(seen[order], weight / risk, 0.0))
    place = np.searchsorted(below, np.asarray(shares) - 1e-12)
    return [float(values[order][at]) if at < len(order) else math.inf for at in place]


def _over(runs: Sequence[Case], value: Any) -> Array:
    """The median over the cuts of each run, ``[runs]``."""
    return np.array([np.median([value(cut) for cut in case.cuts]) for case in runs])


def tuned(runs: Sequence[Case]) -> dict[str, Any]:
    """The constants of :mod:`spectral_lightning.emergence.forecasting.calibration`, each given those before it.

    Returns:
        ``TYPICAL``; ``SPREAD`` and ``UNTESTED``; ``QUANTILES``.
    """
    typical = {
        name: float(np.median([s for s in _over(runs, lambda cut, name=name: cut.errors[name]) if np.isfinite(s)]))
        for name in METHODS
        if name != "now"
    }
    cuts = [cut for case in runs for cut in case.cuts]
    log_errors, log_tests, untested = [], [], []
    for cut in cuts:
        tested = cut.tested
        ahead = tested.predicted - tested.seen.now
        error = np.median((np.abs(np.log(cut.actual) - tested.predicted) / width(ahead))[cut.later])
        tests = tested.errors[tested.method][:, 1]
        if len(tests):
            log_errors.append(np.log(0.005 + error))
            log_tests.append(np.mean(np.log(0.005 + tests)))
        else:
            untested.append(0.005 + error)
    slope, intercept = np.polyfit(log_tests, log_errors, 1)
    values, weights, seen = [], [], []
    for cut in cuts:
        tested, chosen = cut.tested, cut.open
        values.append(((np.log(cut.actual) - tested.predicted) / tested.unit)[chosen])
        weights.append(np.full(chosen.sum(), 1 / chosen.sum() / len(cut.case.cuts)))
        seen.append(np.isfinite(cut.case.actual[chosen]))
    ends = [np.concatenate(part) for part in (values, weights, seen)]
    quantiles = {
        c: tuple(weighted_quantiles(ends[0], ends[1], ends[2], [(1 - c) / 2, (1 + c) / 2])) for c in _CONFIDENCES
    }
    return {
        "TYPICAL": typical,
        "SPREAD": (float(intercept), float(slope)),
        "UNTESTED": float(np.exp(np.mean(np.log(untested)))),
        "QUANTILES": quantiles,
    }
