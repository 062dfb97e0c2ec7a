"""The result files of a tracked run."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spectral_lightning.emergence import STATUS, ModeEmergence
from spectral_lightning.spectra.files import replacing
from spectral_lightning.spectra.history import SpectralHistory

__all__ = ["RunFiles", "free_directory", "history_document", "latest_run", "write_csv"]


class RunFiles:
    """The files of one tracked run, in one directory.

    ======================  ===========================================================================
    ``history/``            the measurements as they are made, one file each
    ``history.npz, .csv``   all measurements, written when training ends, also by an exception
    ``history.json``        the same for other programs, with the status of every mode; see :func:`history_document`
    ``prediction.npz, .csv``  the predicted history, in the same form
    ``emergence.csv``       emergence time of every mode, measured and predicted
    ``emergence.json``      criterion, gray factor and power laws
    ``forecast.json``       what is learnt, the forecast and its warnings, renewed at every measurement
    ``overlay.json``        the theory's clock, unmet assumptions, and errors beside baselines
    ``cost.json``           seconds by kind of work and in total; failed measurements
    ``figures/``            the figures as PNG
    ``basis.pt``            eigenvectors, mean and variances of the data
    ``modes.npz``           pictures of up to 24 modes, of data that are images
    ``samples.npz``         pictures of samples from the same latents over training, of data that are images
    ``report.html``         what ``spectral-lightning report`` makes of these files
    ======================  ===========================================================================

    Args:
        path: the directory.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def history(self) -> Path:
        """Directory of the history as it grows."""
        return self.path / "history"

    def write_json(self, name: str, document: Any, *, indent: int | None = 2, durable: bool = True) -> None:
        """Write a document atomically, with NaN and infinity as null."""
        self.path.mkdir(parents=True, exist_ok=True)
        text = json.dumps(_plain(document), indent=indent, sort_keys=True, allow_nan=False) + "\n"
        with replacing(self.path / name, durable) as part:
            part.write_text(text)

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a document; empty if there is no such file."""
        file = self.path / name
        document: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
        return document


def latest_run(path: str | Path, name: str = "spectral") -> RunFiles:
    """The newest tracked run at or below ``path``.

    Raises:
        FileNotFoundError: if no run is found.
    """
    root = Path(path)
    # A second run in the same place gets a number.
    named = re.compile(rf"{re.escape(name)}(_\d+)?")
    below = (file for file in root.glob("**/history/header.npz") if named.fullmatch(file.parent.parent.name))
    headers = [*root.glob("history/header.npz"), *below]
    if not headers:
        raise FileNotFoundError(
            f"`path` must lead to a tracked run, got {str(root)!r} with none at or below it. "
            "Train with a SpectralTracker or SpectralMonitor first."
        )
    return RunFiles(max(headers, key=lambda file: file.stat().st_mtime).parent.parent)


def free_directory(root: Path, name: str, resumed: str | None) -> Path:
    """``root/name``, with a number appended if a run other than the ``resumed`` one has its history there."""
    path, number = root / name, 0
    while (path / "history" / "header.npz").exists() and str(path) != resumed:
        number += 1
        path = root / f"{name}_{number}"
    return path


def history_document(history: SpectralHistory, found: ModeEmergence) -> dict[str, Any]:
    """A history as plain lists for other programs.

    ``format``, ``criterion``, and by name

    - per mode ``labels``, ``mode_variance`` of the data, ``target``, the variance expected at the end of learning,
      ``threshold``, ``status``, a name from :data:`~spectral_lightning.emergence.STATUS`, and ``emergence_step``;
    - per measurement ``steps``, and tables ``[step][mode]`` of the generated ``variance`` and its ``standard_error``, an
      empty list if unknown.

    Written to JSON, numbers that are not finite become null.
    """
    count = len(history.target)
    return {
        "format": SpectralHistory.FORMAT,
        "labels": history.metadata.get("modes") or [f"mode {k + 1}" for k in range(count)],
        "mode_variance": history.target.tolist(),
        "target": history.fixed_point.tolist(),
        "threshold": found.threshold.tolist(),
        "status": [STATUS[status] for status in found.status],
        "emergence_step": found.time.tolist(),
        "criterion": found.criterion if isinstance(found.criterion, int | float) else str(found.criterion),
        "steps": history.steps.tolist(),
        "variance": history.variance.tolist(),
        "standard_error": history["standard_error"].tolist() if "standard_error" in history else [],
    }


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_csv(path: Path, columns: Sequence[object], rows: Iterable[Sequence[object]]) -> None:
    """Write a table with the full precision of its numbers."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([float(cell) if isinstance(cell, np.floating) else cell for cell in row] for row in rows)
