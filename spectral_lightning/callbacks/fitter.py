"""Emergence times and the power law through them, while training goes on."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from spectral_lightning.arguments import positive, positive_integer
from spectral_lightning.callbacks.partner import Partner
from spectral_lightning.emergence import STATUS, ModeEmergence, threshold
from spectral_lightning.prediction import Comparison, compare
from spectral_lightning.report import emergence_figure, group_figure
from spectral_lightning.spectra.files import replacing
from spectral_lightning.tracking.schedule import LogSchedule

__all__ = ["EmergenceFitter"]

_WAYS = ("rising", "falling")


class EmergenceFitter(Partner):
    """Emergence time of every mode and the law ``tau* ~ lambda^(-alpha)`` per direction, measured and predicted alike.

    A mode has emerged when the variance of the samples along it first passes its threshold between the variance before
    training and the sampler's fixed point. Rising and falling modes are fitted apart; modes in the gray zone and null
    modes are left out. No exponent is given with fewer than 10 crossed modes or less than a decade of variances.

    Of a tracker that measures classes apart, every class has its own emergence times and laws, without a prediction.

    Scalars go to ``<tracker>/emergence/...``, with the exponent and its 95 % interval once there is one; a figure to the
    loggers that take it; ``emergence.csv`` and ``emergence.json`` to the run's files.

    Args:
        criterion: ``"geometric"``, ``"harmonic"``, ``"arithmetic"``, or a fraction of the target.
        gray_factor: modes that start within this factor of their target are left out.
        figures_per_decade: figures per factor of ten in steps, besides the one at the end.
        tracker: name of the tracker to follow.

    Raises:
        ValueError: for an argument out of range; when training is set up, for a missing tracker.
    """

    order = 1

    def __init__(
        self,
        criterion: str | float = "geometric",
        gray_factor: float = 2.0,
        figures_per_decade: int = 2,
        tracker: str = "spectral",
    ) -> None:
        super().__init__(tracker)
        threshold(0.5, 1.0, criterion)  # raises for an unknown one
        if positive("gray_factor", gray_factor) < 1:
            raise ValueError(f"`gray_factor` must be a number of at least 1, got {gray_factor!r}.")
        self.criterion, self.gray_factor = criterion, gray_factor
        self.figures = LogSchedule(positive_integer("figures_per_decade", figures_per_decade))
        self.result: Comparison | None = None
        self.groups: dict[str, Comparison] = {}
        self._drawn = 0
        self._shown: tuple[int, int] | None = None

    def on_tracking_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on drawing where a resumed run left off."""
        self._drawn, self._shown = self.tracker.measured.last_step or 0, None

    def on_measurement(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the modes that have emerged by now."""
        with self.tracker.cost.of("emergence"):
            result = self._evaluate()
            scalars = {f"{self.tracker_name}/emergence/{k}": v for k, v in _scalars(result).items()}
            for name, group in self.groups.items():
                prefix = f"{self.tracker_name}/emergence/group_{name}"
                scalars.update({f"{prefix}/{k}": v for k, v in _scalars(group).items()})
            trainer.callback_metrics.update({key: torch.tensor(value) for key, value in scalars.items()})
        step = self.tracker.measured.last_step or 0
        with self.tracker.cost.of("writing"):
            self.tracker.sinks.scalars(scalars, step)
        if self.figures.due(self._drawn, step):
            self._draw(result, step)

    def on_tracking_end(self, trainer: Trainer) -> None:
        """Write and draw what the whole run gave, the files first: a figure that fails costs none of them."""
        with self.tracker.cost.of("emergence"):
            result = self._evaluate()
        files = self.tracker.files
        if files is not None:
            with self.tracker.cost.of("writing"):
                _write_csv(files / "emergence.csv", result)
                for name, group in self.groups.items():
                    _write_csv(files / f"emergence_group_{re.sub(r'[^-.@0-9A-Za-z]', '_', name)}.csv", group)
                groups = {name: self._document(group) for name, group in self.groups.items()}
                files.write_json("emergence.json", {**self._document(result), **({"groups": groups} if groups else {})})
        step = self.tracker.measured.last_step or 0
        if self._content(step) != self._shown:
            self._draw(result, step)

    def _evaluate(self) -> Comparison:
        measured = self.tracker.measured
        self.result = compare(measured, self.tracker.prediction, self.criterion, self.gray_factor)
        apart = {name: measured.group(name) for name in measured.groups}
        self.groups = {n: compare(h, None, self.criterion, self.gray_factor) for n, h in apart.items()}
        return self.result

    def _document(self, result: Comparison) -> dict[str, Any]:
        laws = {way: result.measured_law(way) for way in _WAYS}
        predicted = {way: result.predicted_law(way) for way in _WAYS}
        return {
            "criterion": self.criterion,
            "gray_factor": self.gray_factor,
            "measured": {way: vars(law) for way, law in laws.items()},
            "predicted": {way: vars(law) for way, law in predicted.items() if law is not None},
        }

    def _content(self, step: int) -> tuple[int, int]:
        """What a figure at this step shows: a prediction may come late, with its clock."""
        prediction = self.tracker.prediction
        return step, 0 if prediction is None else len(prediction)

    def _draw(self, result: Comparison, step: int) -> None:
        self._drawn, self._shown = step, self._content(step)
        if self.tracker.files is None:
            return
        with self.tracker.cost.of("figures"):
            figure = emergence_figure(result, step)
            self.tracker.sinks.figure(f"{self.tracker_name}/emergence", figure, step)
            if self.groups:
                apart = group_figure(self.groups, step)
                self.tracker.sinks.figure(f"{self.tracker_name}/emergence_by_class", apart, step)


def _scalars(result: Comparison) -> dict[str, float]:
    values: dict[str, float] = {}
    for way in _WAYS:
        law = result.measured_law(way)
        values[f"{way}_crossed"], values[f"{way}_eligible"] = float(law.count), float(law.total)
        if law.determinable:
            values.update({f"{way}_exponent": law.exponent, f"{way}_low": law.low, f"{way}_high": law.high})
    return values


def _write_csv(path: Path, result: Comparison) -> None:
    def cells(table: ModeEmergence | None, k: int) -> list[str]:
        if table is None:
            return ["", "", ""]
        return [repr(float(table.threshold[k])), repr(float(table.time[k])), STATUS[table.status[k]]]

    measured = result.measured
    with replacing(path) as part, part.open("w", newline="") as file:
        writer = csv.writer(file)
        columns = ["threshold", "emergence_step", "status"]
        writer.writerow(
            ["mode", "variance", "initial", "target", "direction", *columns, *(f"theory_{c}" for c in columns)]
        )
        for k in range(len(measured.variance)):
            known = [repr(float(a[k])) for a in (measured.variance, measured.initial, measured.target)]
            row = [k + 1, *known, int(measured.direction[k]), *cells(measured, k), *cells(result.predicted, k)]
            writer.writerow(row)
