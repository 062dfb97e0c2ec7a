"""Where a session's results go: files, loggers, charts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from spectral_lightning.emergence import ModeEmergence
from spectral_lightning.report import LoggerSinks, RunFiles, free_directory, history_document
from spectral_lightning.spectra import Basis, HistoryDirectory, SpectralHistory, mode_images
from spectral_lightning.spectra.files import read_arrays, write_arrays
from spectral_lightning.tracking.settings import Output
from spectral_lightning.tracking.timing import Cost
from spectral_lightning.tracking.training import Training

__all__ = ["Results"]

_CATEGORY = "Variance of generated samples, by optimizer updates"
_GROUP_CURVES = 64
_PICTURES = 24  # of modes


class Results:
    """Writes one session's files and sends values and figures to its loggers, on rank 0 only.

    Args:
        name: of the session: names its directory and starts its tags.
        basis: the modes.
        output: directory, number of logged modes, whether to draw figures.
        cost: where to count the time spent writing.
    """

    def __init__(self, name: str, basis: Basis, output: Output, cost: Cost) -> None:
        self.name, self.basis, self.output, self.cost = name, basis, output, cost
        self.sinks = LoggerSinks([])
        self.files: RunFiles | None = None
        self._directory: HistoryDirectory | None = None
        self._on_disk: int | None = None  # rows; None before the history is started there

    @property
    def shown_modes(self) -> list[int]:
        """The modes to log and draw: evenly spread over the logarithm of their rank, without null modes."""
        return _spread(int((~self.basis.null).sum()), self.output.log_modes)

    def tag(self, kind: str, mode: int) -> str:
        """Logger tag of a mode. Modes count from 0, tags from 1, padded so that they sort as text."""
        return f"{self.name}/{kind}/mode_{mode + 1:04d}"

    def open(
        self,
        training: Training,
        resumed: str | None,
        groups: Sequence[str],
        companions: Callable[[int], Iterable[str]],
    ) -> None:
        """Choose the directory and collect the charts, without writing yet. Every rank must call it.

        Args:
            training: the training being followed.
            resumed: directory of the run being resumed.
            groups: names of the groups.
            companions: returns the tags that share a chart with a mode's variance.
        """
        root = training.root()
        if root is None:
            return
        self.files = RunFiles(free_directory(Path(self.output.directory or root), self.name, resumed))
        self.sinks = LoggerSinks(training.loggers, self.files / "figures")
        labels = self.basis.labels
        for k in self.shown_modes:
            title = f"{labels[k]}, data variance {float(self.basis.variance[k]):.3g}"
            self.sinks.chart(_CATEGORY, title, [self.tag("variance", k), *companions(k), self.tag("fixed_point", k)])
        for k in self._group_modes(groups):
            title = f"{labels[k]}, by class"
            self.sinks.chart(_CATEGORY, title, [self.tag(f"group_{g}", k) for g in groups])

    def keep(self, history: SpectralHistory) -> None:
        """Write all rows that are not on disk yet: the newest, and any that could not be written before.

        Raises:
            OSError: if writing fails; the next call tries again.
        """
        if self.files is None:
            return
        try:
            with self.cost.of("writing"):
                self._keep(self.files, history)
        except OSError as error:
            raise OSError(
                f"The results cannot be written to {self.files.path}: {error}. Make room there, or name another place: "
                "output=Output(directory=...)."
            ) from error

    def _keep(self, files: RunFiles, history: SpectralHistory) -> None:
        if self._on_disk is None or self._directory is None:
            self._directory = HistoryDirectory(files.history)
            files.path.mkdir(parents=True, exist_ok=True)
            self.basis.save(files / "basis.pt")  # first, so that every history on disk has its basis
            modes = _spread(int((~self.basis.null).sum()), _PICTURES)
            pixels = mode_images(self.basis, modes)
            if pixels is not None:
                write_arrays(files / "modes.npz", {"mode": np.array(modes), "pixels": pixels}, durable=False)
            self._directory.begin(history)
            self._on_disk = len(history)
        for index in range(self._on_disk, len(history)):
            self._directory.append(history.row(index))
            self._on_disk = index + 1

    def keep_samples(self, step: int, pixels: NDArray[np.uint8], history: SpectralHistory) -> None:
        """Add pictures of samples ``[n, H, W, ...]`` to ``samples.npz``, beside those of earlier rows of the history.

        Others, of rows that a resumed run has dropped, are left out; a file that a power cut has damaged is begun anew.
        """
        if self.files is None:
            return
        with self.cost.of("writing"):
            file, tables = self.files / "samples.npz", {"step": np.array([step]), "pixels": pixels[None]}
            try:
                known = read_arrays(file) if file.exists() else {}
            except ValueError:
                known = {}
            if {"step", "pixels"} <= set(known) and known["pixels"].shape[1:] == pixels.shape:
                earlier = np.isin(known["step"], history.steps) & (known["step"] < step)
                tables = {name: np.concatenate([known[name][earlier], new]) for name, new in tables.items()}
            write_arrays(file, tables, durable=False)

    def log(self, history: SpectralHistory, headline: dict[str, float]) -> None:
        """Log the shown modes of the newest row."""
        if self.sinks.loggers:
            with self.cost.of("writing"):
                self._log(history, history.row(-1), headline)

    def _log(self, history: SpectralHistory, row: dict[str, Any], headline: dict[str, float]) -> None:
        values = dict(headline)
        for k in self.shown_modes:
            values[self.tag("variance", k)] = float(row["variance"][k])
            values[self.tag("fixed_point", k)] = float(history.fixed_point[k])
        for k in self._group_modes(history.groups):
            for g, name in enumerate(history.groups):
                values[self.tag(f"group_{name}", k)] = float(row["group_variance"][g, k])
        self.sinks.scalars(values, int(row["step"]))

    @property
    def draws(self) -> bool:
        """Whether this process draws figures."""
        return self.files is not None and self.output.figures

    def figure(self, kind: str, figure: Figure, step: int) -> None:
        """Send a figure to the loggers that accept one, and save it as a file."""
        self.sinks.figure(f"{self.name}/{kind}", figure, step)

    def finish(self, history: SpectralHistory, emergence: Callable[[], ModeEmergence]) -> None:
        """Write the whole history as npz, CSV, and JSON with the status of every mode."""
        self.keep(history)
        if self.files is not None:
            with self.cost.of("writing"):
                history.save(self.files / "history.npz")
                history.to_csv(self.files / "history.csv")
                self.files.write_json("history.json", history_document(history, emergence()), indent=None)

    def account(self, failures: Sequence[tuple[int, str]]) -> None:
        """Write the cost and the failures to ``cost.json``."""
        if self.files is not None:
            failed = [{"step": step, "error": text} for step, text in failures]
            document = {"seconds": self.cost.seconds, "total": self.cost.total, "failures": failed}
            self.files.write_json("cost.json", document)

    def _group_modes(self, groups: Sequence[Any]) -> list[int]:
        count = len(groups)
        return self.shown_modes[:: max(1, -(-len(self.shown_modes) * count // _GROUP_CURVES))] if count else []


def _spread(count: int, most: int) -> list[int]:
    if count <= most:
        return list(range(count))
    return sorted({int(r) for r in (np.geomspace(1, count, most) - 1).round()})
