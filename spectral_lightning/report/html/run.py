"""What a run directory holds, read so that a missing or damaged part costs a line, not the report."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from spectral_lightning.prediction import Outlook, outlook
from spectral_lightning.report.files import RunFiles
from spectral_lightning.report.html.law import Emerged, emerged
from spectral_lightning.report.summary import read_history
from spectral_lightning.spectra import SpectralHistory
from spectral_lightning.spectra.files import read_arrays

__all__ = ["Run", "find_runs", "run_names"]

T = TypeVar("T")

_CONFIG_SIZE = 100_000


class Run:
    """One tracked run.

    Args:
        path: its directory, or a single npz file with a history.
        name: in the report.

    Attributes:
        problems: parts that could not be read, and why.
        history: the measurements.
        prediction: the predicted history; None without one.

    Raises:
        FileNotFoundError: without a history.
        ValueError: if the history cannot be read.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self.alone = path.is_file()
        self.files = RunFiles(path.with_suffix("") if self.alone else path)
        self.problems: list[str] = []
        self.history = SpectralHistory.load(path) if self.alone else read_history(self.files)
        read = self._read("prediction.npz", SpectralHistory.load)
        fits = read is not None and len(read) > 0 and read.target.shape == self.history.target.shape
        if read is not None and len(read) and not fits:
            self.problems.append("prediction.npz has other modes than the history.")
        self.prediction = read if fits else None

    @cached_property
    def smooth(self) -> SpectralHistory:
        """The history without most of the error of slices of one block of latents."""
        return self.history.smoothed()

    @cached_property
    def emergence(self) -> Emerged:
        """Emergence times and laws."""
        return emerged(self.smooth, self.prediction, self.document("emergence.json"))

    @cached_property
    def outlook(self) -> Outlook:
        """What has been learnt and the forecast, up to the planned end that ``forecast.json`` states."""
        return self.forecast(self.document("forecast.json").get("end"))

    def forecast(self, end: Any = None) -> Outlook:
        """The outlook by the criterion of ``emergence.json``, for a training that ends at step ``end``."""
        settings = self.document("emergence.json")
        criterion, gray = settings.get("criterion", "geometric"), float(settings.get("gray_factor", 2.0))
        known = end if isinstance(end, int | float) and end > 0 else None
        return outlook(self.smooth, self.prediction, criterion=criterion, gray_factor=gray, end=known)

    @cached_property
    def labels(self) -> list[str]:
        """A name for every mode."""
        count = len(self.history.target)
        found = self.history.metadata.get("modes")
        named = isinstance(found, list) and len(found) == count
        return [str(name) for name in found] if named and found else [f"mode {k + 1}" for k in range(count)]

    def document(self, name: str) -> dict[str, Any]:
        """A JSON file of the run; empty if there is none."""
        found = self._read(name, lambda path: json.loads(path.read_text()))
        return found if isinstance(found, dict) else {}

    def arrays(self, name: str) -> dict[str, Any]:
        """An npz file of the run; empty if there is none."""
        return self._read(name, read_arrays) or {}

    @cached_property
    def config(self) -> str:
        """The configuration beside the run's directory; empty if there is none."""
        for place in (self.path, self.path.parent):
            file = place / "config.yaml"
            if not self.alone and file.is_file() and file.stat().st_size <= _CONFIG_SIZE:
                return file.read_text(errors="replace")
        return ""

    def _read(self, name: str, read: Callable[[Path], T]) -> T | None:
        file = self.files / name
        if self.alone or not file.is_file():
            return None
        try:
            return read(file)
        except (OSError, ValueError, KeyError, EOFError) as error:
            problem = f"{name} cannot be read: {error}"
            if problem not in self.problems:
                self.problems.append(problem)
            return None


def find_runs(path: Path, name: str | None = None) -> list[Path]:
    """The tracked run at ``path``, or the newest below it with the other trackers of the same training.

    Args:
        path: directory of a run or a parent, or an npz file.
        name: of the tracker or monitor; all by default.

    Raises:
        FileNotFoundError: if there is none.
    """
    if path.is_file() or _is_run(path):
        return [path]
    pattern = re.compile(rf"{'.*' if name is None else re.escape(name)}(_\d+)?")
    headers = [*path.glob("**/history/header.npz"), *path.glob("**/history.npz")] if path.is_dir() else []
    found = {
        directory: header.stat().st_mtime
        for header in headers
        if pattern.fullmatch((directory := header.parent.parent if header.name == "header.npz" else header.parent).name)
    }
    if not found:
        raise FileNotFoundError(
            f"`runs` must lead to tracked runs, got {str(path)!r} with no history at or below it. "
            "Train with a SpectralTracker or SpectralMonitor first."
        )
    newest = max(found, key=lambda run: found[run])
    latest: dict[str, Path] = {}  # a second run in the same place has the tracker's name and a number
    for run in sorted((run for run in found if run.parent == newest.parent), key=lambda run: found[run]):
        latest[re.sub(r"_\d+$", "", run.name)] = run
    return sorted(latest.values(), key=lambda run: (run != newest, run.name))


def run_names(paths: Sequence[Path]) -> list[str]:
    """Short names that tell the paths apart: what they do not have in common."""
    parts = [list(path.resolve().with_suffix("").parts if path.is_file() else path.resolve().parts) for path in paths]
    if len(parts) == 1:
        return ["/".join(part for part in parts[0][-3:] if part != "/")]
    while all(len(own) > 1 for own in parts) and len({own[0] for own in parts}) == 1:
        parts = [own[1:] for own in parts]
    while all(len(own) > 1 for own in parts) and len({own[-1] for own in parts}) == 1:
        parts = [own[:-1] for own in parts]
    names = ["/".join(own) for own in parts]
    return [
        name if names.count(name) == 1 else f"{name} ({names[: i + 1].count(name)})" for i, name in enumerate(names)
    ]


def _is_run(path: Path) -> bool:
    return (path / "history.npz").is_file() or (path / "history" / "header.npz").is_file()


def finite(values: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The finite ones of some numbers."""
    flat = np.ravel(np.asarray(values, np.float64))
    return flat[np.isfinite(flat)]
