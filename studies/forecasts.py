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
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from spectral_lightning.emergence.forecasting import METHODS, Curves, Forecast, Tested, forecast, width
from spectral_lightning.emergence.forecasting.calibration import QUANTILES, SMALLEST
from spectral_lightning.spectra.files import replacing
from studies.page import rendered
from studies.statistics import WAYS, Array, Estimate, Mask
from studies.store import STORE, Stored
from studies.trainings import STUDIES

__all__ = [
    "CUTS",
    "JUDGED",
    "LEAST",
    "TUNED",
    "Case",
    "Cut",
    "cases",
    "forecasts",
    "summary",
    "tuned",
    "weighted_quantiles",
    "write",
]

CUTS = (0.25, 0.40, 0.55, 0.70, 0.85)  # share of the eligible modes that have crossed
LEAST = (10, 3)  # eligible modes of a run; modes that cross after a cut
TUNED, JUDGED = sorted(STUDIES)[::2], sorted(STUDIES)[1::2]
_OFF = 0.2  # error of a run that counts as a failure
_FARTHEST = 100  # a step that is not foreseeable counts as so many times the steps so far


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
    def experiment(self) -> str:
        """The study."""
        return self.training.partition("/")[0]

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

    @cached_property
    def error(self) -> float:
        """Of the forecast, the median over the cuts."""
        return float(np.median([cut.errors["forecast"] for cut in self.cuts]))

    @cached_property
    def error_now(self) -> float:
        """Of expecting every mode at once."""
        return float(np.median([cut.errors["now"] for cut in self.cuts]))

    @cached_property
    def inside(self) -> float:
        """Share of the modes in their interval, the mean over the cuts."""
        return float(np.mean([cut.covered[1] for cut in self.cuts]))

    @property
    def methods(self) -> list[str]:
        """Methods used, in the order of the cuts."""
        return list(dict.fromkeys(cut.forecast.courses[0].method for cut in self.cuts))

    @property
    def doubts(self) -> list[str]:
        """Warnings, the last of each kind with the share of the modes that had crossed by then."""
        found = {
            re.sub(r"[\d.+-]+", "", why): f"At {cut.share:.0%}: {why}" for cut in self.cuts for why in cut.warnings
        }
        return list(found.values())


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

    @property
    def warnings(self) -> tuple[str, ...]:
        """Of the forecast."""
        return self.forecast.courses[0].warnings

    def error(self, step: Array) -> float:
        """Median error over the modes that cross later."""
        predicted = np.clip(step, self.now, _FARTHEST * self.now)
        return float(np.median(np.abs(np.log(predicted / self.actual))[self.later]))

    @cached_property
    def errors(self) -> Mapping[str, float]:
        """Error by method, NaN for a theory that is missing, and of the ``forecast``."""
        seen = self.tested.seen
        found = {name: self.error(np.exp(method(seen))) for name, method in METHODS.items()}
        if np.isnan(self.case.modes["theory"]).all():
            found["theory"] = math.nan
        return {"forecast": self.error(self.forecast.step), **found}

    @cached_property
    def covered(self) -> Array:
        """Shares of the open modes below, in and above their interval, ``[3]``; a mode without a step exceeds the last one."""
        never, found = np.isnan(self.case.actual), self.forecast
        below = (self.actual < found.low) & ~never
        above = self.actual > found.high
        return np.array([np.mean(a[self.open]) for a in (below, ~below & ~above, above)])

    @cached_property
    def reach(self) -> tuple[float, float]:
        """Step to 90 % of the modes: error and whether it is in its interval, NaN where that cannot be judged."""
        found, place = self.forecast.reach(0.9), math.ceil(0.9 * len(self.actual) - 1e-9) - 1
        actual = float(np.sort(np.nan_to_num(self.case.actual, nan=np.inf))[place])
        last = float(self.case.steps[-1])
        if actual <= self.now or self.now == last:
            return math.nan, math.nan
        if math.isinf(actual):  # not within the history
            return math.nan, float(found.high >= last)
        error = abs(math.log(min(found.value, _FARTHEST * self.now) / actual))
        return error, float(found.low <= actual <= found.high)


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


def _score(runs: Sequence[Case], method: str, share: float | None = None) -> float:
    """Error of a method: the median over the cuts of each run, or at one cut, then over the runs."""
    found = [[cut.errors[method] for cut in case.cuts if share in (None, cut.share)] for case in runs]
    medians = [np.median(errors) for errors in found if errors]
    finite = [median for median in medians if np.isfinite(median)]
    return float(np.median(finite)) if finite else math.nan


def _mean(runs: Sequence[Case], value: Callable[[Cut], Any]) -> Estimate:
    """Mean over cuts, runs and trainings, with Student's interval over trainings; NaN where there is nothing to judge."""
    by: dict[str, list[float]] = {}
    for case in runs:
        found = [float(v) for v in map(value, case.cuts) if np.isfinite(v)]
        if found:
            by.setdefault(case.training, []).append(float(np.mean(found)))
    means = [np.mean(found) for found in by.values()]
    if len(means) < 2:
        return Estimate()
    interval = stats.ttest_1samp(means, 0).confidence_interval(0.95)
    return Estimate(float(np.mean(means)), float(interval.low), float(interval.high))


def summary(runs: Sequence[Case]) -> dict[str, Any]:
    """Errors and coverage of some runs.

    Returns:
        ``runs``, ``cuts`` and ``trainings``, their numbers; ``errors`` by method and for the forecast; ``first``, the error
        of the forecast at the first cut; ``inside`` of the 80 % interval, a share; ``reach``, median error of the step to
        90 % of the modes over runs, and ``reach_inside``; ``worse``, cuts at which the forecast was worse than to expect
        every mode at once, and ``unwarned``, those of them without a warning; ``unwarned_runs``, the same of whole runs;
        ``warned``, cuts with a warning.
    """
    cuts = [cut for case in runs for cut in case.cuts]
    worse = [cut for cut in cuts if cut.errors["forecast"] > cut.errors["now"]]
    errors = [np.array([cut.reach[0] for cut in case.cuts]) for case in runs]
    reach = [np.nanmedian(found) for found in errors if np.isfinite(found).any()]
    return {
        "runs": len(runs),
        "cuts": len(cuts),
        "trainings": len({case.training for case in runs}),
        "errors": {name: _score(runs, name) for name in ("forecast", *METHODS)},
        "first": _score(runs, "forecast", CUTS[0]),
        "inside": _mean(runs, lambda cut: cut.covered[1]),
        "reach": float(np.median(reach)) if reach else math.nan,
        "reach_inside": _mean(runs, lambda cut: cut.reach[1]),
        "worse": worse,
        "unwarned": [cut for cut in worse if not cut.warnings],
        "unwarned_runs": [case for case in runs if case.error > case.error_now and not case.doubts],
        "warned": [cut for cut in cuts if cut.warnings],
    }


def forecasts(runs: Mapping[str, Sequence[Case]]) -> dict[str, Any]:
    """What the page says of the ``tuned`` and the ``judged`` half: of each half, each judged experiment and each judged run."""
    by = {study: [case for case in runs["judged"] if case.experiment == study] for study in JUDGED}
    return {
        "tuned": TUNED,
        "judged": JUDGED,
        "methods": list(METHODS),
        "halves": {name: summary(half) for name, half in runs.items()},
        "experiments": {study: summary(found) for study, found in by.items() if found},
        "runs": sorted(runs["judged"], key=lambda case: -case.error),
        "failed": [case for half in runs.values() for case in half if case.error > _OFF],
    }


def write(store: Path = STORE) -> None:
    """Write ``forecasts.md`` beside the page of results."""
    with replacing(store / "forecasts.md") as part:
        part.write_text(
            rendered("forecasts.md.j2", forecasts({"tuned": cases(TUNED, store), "judged": cases(JUDGED, store)}))
        )


def tuned(runs: Sequence[Case]) -> dict[str, Any]:
    """The constants of :mod:`spectral_lightning.emergence.forecasting.calibration`, each given those before it.

    Experiments weigh the same, as do the runs of an experiment, the cuts of a run and the modes of a cut.

    Returns:
        ``TYPICAL``; ``SPREAD`` and ``UNTESTED``; ``QUANTILES``.
    """
    experiments: dict[str, list[Case]] = {}
    for case in runs:
        experiments.setdefault(case.experiment, []).append(case)
    typical = {
        name: float(np.nanmean([_score(cases, name) for cases in experiments.values()]))
        for name in METHODS
        if name != "now"
    }
    # Of every cut: log error in units of the width, mean log error of its tests, weight.
    found, parts = [], []
    for cut in (cut for case in runs for cut in case.cuts):
        tested, weight = cut.tested, 1 / len(experiments[cut.case.experiment]) / len(cut.case.cuts)
        late = np.log(cut.actual) - tested.predicted
        error = np.median(np.abs(late / width(tested.predicted - tested.seen.now))[cut.later])
        tests = np.log(SMALLEST + tested.errors[tested.method][:, 1])
        found.append((np.log(SMALLEST + error), tests.mean() if len(tests) else math.nan, weight))
        ends = np.stack([late / tested.unit, np.full(len(late), weight / cut.open.sum()), np.isfinite(cut.case.actual)])
        parts.append(ends[:, cut.open])
    errors, tests, weights = np.array(found).T
    known = np.isfinite(tests)
    slope, intercept = np.polyfit(tests[known], errors[known], 1, w=np.sqrt(weights[known]))
    values, weight, seen = np.concatenate(parts, axis=1)
    return {
        "TYPICAL": typical,
        "SPREAD": (float(intercept), float(slope)),
        "UNTESTED": float(np.exp(np.average(errors[~known], weights=weights[~known]))),
        "QUANTILES": {
            confidence: tuple(
                weighted_quantiles(values, weight, seen > 0, [(1 - confidence) / 2, (1 + confidence) / 2])
            )
            for confidence in QUANTILES
        },
    }
