"""Emergence times and their power law, updated during training."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from spectral_lightning.arguments import positive, positive_integer
from spectral_lightning.emergence import STATUS, Criterion, ModeEmergence, StaysWithin, as_criterion
from spectral_lightning.prediction import Comparison, compare
from spectral_lightning.report import emergence_figure, group_figure
from spectral_lightning.report.files import write_csv
from spectral_lightning.spectra.files import replacing
from spectral_lightning.tracking.session import Observer, Session
from spectral_lightning.tracking.timing import Schedule

__all__ = ["Fitter"]

_WAYS = ("rising", "falling")


class Fitter(Observer):
    """Finds the emergence time of every mode and fits ``tau* ~ lambda^(-alpha)``, for measurement and prediction alike.

    A mode emerges when the variance of the samples along it, made monotone, crosses a threshold between its variance before
    training and the sampler's fixed point. Rising and falling modes are fitted separately; null modes and modes in the gray
    zone are left out. Modes that have not crossed count as later than the last step; those that have stopped short of it never
    cross and are counted apart. :class:`~spectral_lightning.emergence.Rules` says when there is an exponent.

    With ``per_class``, every class also has its own emergence times and laws, without a prediction.

    Logs the numbers of modes under ``<name>/emergence/``; with each figure, the exponent and its 95 % interval if the data
    support one. Writes ``emergence.csv`` and ``emergence.json``.

    Args:
        criterion: ``"geometric"``, ``"harmonic"``, ``"arithmetic"``, a fraction of the target, or ``"within 10 %"``: stays
            that close to the target.
        gray_factor: modes that start within this factor of their target are not fitted.
        figures_per_decade: figures per factor of ten in steps, from 1000 on, in addition to the final one; none within one
            interval before a known end.

    Raises:
        ValueError: for an argument out of range.
    """

    order = 1

    def __init__(
        self, criterion: Criterion = "geometric", gray_factor: float = 2.0, figures_per_decade: int = 1
    ) -> None:
        if positive("gray_factor", gray_factor) < 1:
            raise ValueError(f"`gray_factor` must be a number of at least 1, got {gray_factor!r}.")
        self.criterion, self.gray_factor = as_criterion(criterion), gray_factor
        self.judgement: tuple[Criterion, float] = (self.criterion, gray_factor)
        self.figures = Schedule(positive_integer("figures_per_decade", figures_per_decade))
        self.result: Comparison | None = None
        self.groups: dict[str, Comparison] = {}
        self._drawn = 0
        self._shown: tuple[int, int] | None = None

    def on_begin(self, session: Session) -> None:
        """Continue the schedule of figures in a resumed run."""
        self._drawn, self._shown = session.last_step, None

    def on_measurement(self, session: Session) -> None:
        """Find the modes that have emerged so far, log and draw."""
        with session.cost.of("emergence"):
            result = self._evaluate(session)
        self._log(session, _counts)
        if session.figure_due(self.figures, self._drawn):
            self._log(session, _exponents)
            self._draw(session, result)

    def on_end(self, session: Session) -> None:
        """Write the results of the whole run, then draw them: a failing figure does not lose the files."""
        with session.cost.of("emergence"):
            result = self._evaluate(session)
        files = session.results.files
        if files is not None:
            with session.cost.of("emergence"):
                groups = {name: self._document(group) for name, group in self.groups.items()}
                document = {**self._document(result), **({"groups": groups} if groups else {})}
            with session.cost.of("writing"):
                _write_csv(files / "emergence.csv", result)
                for name, group in self.groups.items():
                    _write_csv(files / f"emergence_group_{re.sub(r'[^-.@0-9A-Za-z]', '_', name)}.csv", group)
                files.write_json("emergence.json", document)
        if self._drawn != session.last_step:
            self._log(session, _exponents)
        if self._content(session) != self._shown:
            self._draw(session, result)

    def _log(self, session: Session, scalars: Callable[[Comparison], dict[str, float]]) -> None:
        """Log scalars of all modes and of every class."""
        prefix = f"{session.name}/emergence"
        with session.cost.of("emergence"):
            values = {} if self.result is None else {f"{prefix}/{k}": v for k, v in scalars(self.result).items()}
            for name, group in self.groups.items():
                values.update({f"{prefix}/group_{name}/{k}": v for k, v in scalars(group).items()})
            session.training.publish(values)
        with session.cost.of("writing"):
            session.results.sinks.scalars(values, session.last_step)

    def _evaluate(self, session: Session) -> Comparison:
        measured = session.measured
        self.result = compare(measured, session.prediction, *self.judgement)
        self.groups = {name: compare(measured.group(name), None, *self.judgement) for name in measured.groups}
        return self.result

    def _document(self, result: Comparison) -> dict[str, Any]:
        predicted = {way: result.predicted_law(way) for way in _WAYS}
        own = result.measured
        return {
            "criterion": str(self.criterion) if isinstance(self.criterion, StaysWithin) else self.criterion,
            "gray_factor": self.gray_factor,
            "measured": {way: result.measured_law(way).as_dict() for way in _WAYS},
            "predicted": {way: asdict(law) for way, law in predicted.items() if law is not None},
            "went_back": {str(k + 1): float(own.back[k]) for k in np.flatnonzero(own.back)},
            "overshot": {str(k + 1): float(own.over[k]) for k in np.flatnonzero(own.over)},
        }

    def _content(self, session: Session) -> tuple[int, int]:
        """Identifies what a figure would show now; the prediction may come late, once its clock is fitted."""
        return session.last_step, 0 if session.prediction is None else len(session.prediction)

    def _draw(self, session: Session, result: Comparison) -> None:
        self._drawn, self._shown = session.last_step, self._content(session)
        if not session.results.draws:
            return
        with session.cost.of("figures"):
            session.results.figure("emergence", emergence_figure(result, session.last_step), session.last_step)
            if self.groups:
                figure = group_figure(self.groups, session.last_step)
                session.results.figure("emergence_by_class", figure, session.last_step)


def _counts(result: Comparison) -> dict[str, float]:
    own, values = result.measured, {}
    for way in _WAYS:
        for name, modes in (("crossed", own.crossed(way)), ("eligible", own.eligible(way)), ("able", own.able(way))):
            values[f"{way}_{name}"] = float(modes.sum())
    return values


def _exponents(result: Comparison) -> dict[str, float]:
    values: dict[str, float] = {}
    for way in _WAYS:
        law = result.measured_law(way)
        if law.determinable:
            values.update({f"{way}_exponent": law.exponent, f"{way}_low": law.low, f"{way}_high": law.high})
    return values


def _write_csv(path: Path, result: Comparison) -> None:
    measured, columns = result.measured, ("threshold", "emergence_step", "status")

    def cells(table: ModeEmergence | None, k: int) -> list[object]:
        return [""] * 3 if table is None else [table.threshold[k], table.time[k], STATUS[table.status[k]]]

    rows = (
        [
            *(k + 1, measured.variance[k], measured.initial[k], measured.target[k], measured.direction[k]),
            *(*cells(measured, k), measured.error[k], measured.back[k], measured.over[k]),
            *cells(result.predicted, k),
        ]
        for k in range(len(measured.variance))
    )
    heads = [
        *("mode", "variance", "initial", "target", "direction", *columns),
        *("log_error", "went_back", "overshot", *(f"theory_{c}" for c in columns)),
    ]
    with replacing(path) as part:
        write_csv(part, heads, rows)
