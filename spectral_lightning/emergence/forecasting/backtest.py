"""Which method has predicted best so far in the same run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from spectral_lightning.emergence.forecasting.calibration import TYPICAL, spread, width
from spectral_lightning.emergence.forecasting.methods import METHODS, Array, Curves, Seen

__all__ = ["FARTHEST", "Tested"]

FARTHEST = math.log(100)  # of steps over now; nothing is forecast beyond

_TESTS = 4  # at most so many earlier records are tested
_FIRST = (4, 0.08)  # modes that crossed before the first test, enough for a line: number and share
_SINCE = 2  # modes that crossed since the last test
_TRUST = 1.0  # tests that weigh as much as what is known of a method beforehand


@dataclass(frozen=True)
class Tested:
    """The methods at the last record, and their errors in forecasts from earlier ones.

    A forecast from an earlier record is compared with the modes that have crossed since; of those that have not, only
    with the ones that it expected by now, whose error is at least ``log(now / predicted)``.
    """

    curves: Curves

    @cached_property
    def seen(self) -> Seen:
        """The last record."""
        return Seen(self.curves, len(self.curves.log_step) - 1)

    @cached_property
    def rows(self) -> list[int]:
        """Earlier records from which the methods are tested."""
        passed = (self.curves.passage <= self.curves.log_step[:, None]).sum(1)
        enough = (passed >= max(_FIRST[0], _FIRST[1] * len(self.curves.x))) & (passed[-1] - passed >= _SINCE)
        rows = np.flatnonzero(enough)
        rows = rows[rows > 0]
        chosen: list[int] = rows[
            np.unique(np.linspace(0, len(rows) - 1, min(_TESTS, len(rows))).round().astype(int))
        ].tolist()
        return chosen

    @cached_property
    def errors(self) -> Mapping[str, Array]:
        """By method, the median error of each test and its median in units of the width, ``[tests, 2]``."""
        found = {name: np.zeros((len(self.rows), 2)) for name in METHODS}
        for test, row in enumerate(self.rows):
            then = Seen(self.curves, row)
            for name, method in METHODS.items():
                predicted = np.clip(method(then), then.now, then.now + FARTHEST)
                actual = np.minimum(self.curves.passage, self.seen.now)
                overdue = np.isinf(self.curves.passage) & (predicted < self.seen.now)
                judged = overdue | ((self.curves.passage > then.now) & np.isfinite(self.curves.passage))
                error = np.abs(predicted - actual)[judged]
                unit = width((predicted - then.now)[judged])
                found[name][test] = np.median(error), np.median(error / unit)
        return found

    @cached_property
    def scores(self) -> Mapping[str, float]:
        """Error of every method in this run, the mean over the tests; NaN without one."""
        return {name: float(found[:, 0].mean()) if len(found) else np.nan for name, found in self.errors.items()}

    @cached_property
    def method(self) -> str:
        """The method with the smallest error, what is known of it beforehand counted as tests."""
        known = {
            name: (self.errors[name][:, 0].sum() + _TRUST * typical) / (len(self.rows) + _TRUST)
            for name, typical in TYPICAL.items()
            if self._ahead(name)
        }
        return min(known, key=known.__getitem__, default="shift")

    def _ahead(self, name: str) -> bool:
        """Whether a method expects most of the modes in the future, of those that it forecasts at all."""
        predicted = METHODS[name](self.seen)[~self.seen.crossed]
        predicted = predicted[np.isfinite(predicted)]
        return len(predicted) > 0 and bool(np.median(predicted) > self.seen.now)

    @cached_property
    def predicted(self) -> Array:
        """Logs of the steps by that method, none before now, ``[K]``."""
        return np.maximum(METHODS[self.method](self.seen), self.seen.now)

    @cached_property
    def unit(self) -> Array:
        """Unit of their errors, ``[K]``."""
        return width(np.minimum(self.predicted - self.seen.now, FARTHEST)) * spread(self.errors[self.method][:, 1])
