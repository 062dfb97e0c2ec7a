"""Where a tracker's measurements go: files, loggers, charts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Trainer

from spectral_lightning.callbacks.partner import Partner
from spectral_lightning.report import LoggerSinks, RunFiles, free_directory
from spectral_lightning.spectra import Basis, HistoryDirectory, SpectralHistory

__all__ = ["TrackerResults"]

_CATEGORY = "Variance of generated samples, by optimizer updates"
_GROUP_CURVES = 64


class TrackerResults:
    """The files of one tracker and its view of the loggers; both are there on rank 0 only.

    Args:
        name: of the tracker: its directory and the first part of its tags.
        basis: the modes.
        log_modes: how many of them to send to the loggers.
    """

    def __init__(self, name: str, basis: Basis, log_modes: int) -> None:
        self.name, self.basis, self.log_modes = name, basis, log_modes
        self.sinks = LoggerSinks([])
        self.files: RunFiles | None = None
        self._on_disk: int | None = None  # rows; None before the history is begun there

    @property
    def shown_modes(self) -> list[int]:
        """The modes sent to loggers and drawn, evenly spread over the logarithm of their rank; no null modes."""
        return _spread(int((~self.basis.null).sum()), self.log_modes)

    def tag(self, kind: str, mode: int) -> str:
        """The logger's tag of one mode (counted from 0; tags count from 1 and sort as text)."""
        return f"{self.name}/{kind}/mode_{mode + 1:04d}"

    def open(
        self,
        trainer: Trainer,
        dirpath: str | None,
        resumed: str | None,
        groups: Sequence[str],
        partners: Sequence[Partner],
    ) -> None:
        """Choose the directory and ask for the charts; nothing is written yet. Every rank has to call it."""
        # Reading log_dir is a collective.
        root = dirpath or trainer.log_dir or trainer.default_root_dir
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        self.files = RunFiles(free_directory(Path(root), self.name, resumed))
        self.sinks = LoggerSinks(trainer.loggers, self.files / "figures")
        for k in self.shown_modes:
            title = f"{self.basis.labels[k]}, data variance {float(self.basis.variance[k]):.3g}"
            tags = [self.tag("variance", k), *(t for p in partners for t in p.tags(k)), self.tag("target", k)]
            self.sinks.chart(_CATEGORY, title, tags)
        for k in self._group_modes(groups):
            title = f"{self.basis.labels[k]}, by class"
            self.sinks.chart(_CATEGORY, title, [self.tag(f"group_{g}", k) for g in groups])

    def keep(self, history: SpectralHistory) -> None:
        """Write what is not on disk yet: the newest row, and all that could not be written before.

        Raises:
            OSError: if it cannot be written now; it is tried again the next time.
        """
        if self.files is None:
            return
        try:
            self._keep(self.files, history)
        except OSError as error:
            raise OSError(
                f"The results cannot be written to {self.files.path}: {error}. Make room there, or give SpectralTracker a "
                "`dirpath` that can be written to."
            ) from error

    def _keep(self, files: RunFiles, history: SpectralHistory) -> None:
        directory = HistoryDirectory(files.history)
        if self._on_disk is None:
            files.path.mkdir(parents=True, exist_ok=True)
            self.basis.save(files / "basis.pt")  # first: where a history was begun there is its basis
            directory.begin(history)
            self._on_disk = len(history)
        for index in range(self._on_disk, len(history)):
            directory.append(history.row(index))
            self._on_disk = index + 1

    def log(self, history: SpectralHistory, headline: dict[str, float]) -> None:
        """Send a readable part of the newest row to the loggers."""
        row = history.row(-1)
        if not self.sinks.loggers:
            return
        values = dict(headline)
        for k in self.shown_modes:
            values[self.tag("variance", k)] = float(row["variance"][k])
            values[self.tag("target", k)] = float(history.fixed_point[k])
        for k in self._group_modes(history.groups):
            for g, name in enumerate(history.groups):
                values[self.tag(f"group_{name}", k)] = float(row["group_variance"][g, k])
        self.sinks.scalars(values, int(row["step"]))

    def finish(self, history: SpectralHistory) -> None:
        """Write the whole history, once."""
        self.keep(history)
        if self.files is not None:
            history.save(self.files / "history.npz")
            history.to_csv(self.files / "history.csv")

    def _group_modes(self, groups: Iterable[Any]) -> list[int]:
        count = len(list(groups))
        return self.shown_modes[:: max(1, -(-len(self.shown_modes) * count // _GROUP_CURVES))] if count else []


def _spread(count: int, most: int) -> list[int]:
    if count <= most:
        return list(range(count))
    return sorted({int(r) for r in (np.geomspace(1, count, most) - 1).round()})
