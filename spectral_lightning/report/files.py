"""Where a tracked run keeps its results."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from spectral_lightning.spectra.files import replacing

__all__ = ["RunFiles", "free_directory", "latest_run"]


class RunFiles:
    """The files of one tracked run, all in one directory.

    ======================  ===========================================================================
    ``history/``            the measurements while they are made, one file each
    ``history.npz, .csv``   all of them, written when training ends, by itself or by an exception
    ``prediction.npz, .csv``  the theory's table, of the same kind
    ``emergence.csv``       emergence time of every mode, measured and predicted
    ``emergence.json``      criterion, gray zone and the power laws
    ``overlay.json``        what the theory assumed, its clock and its goodness of fit
    ``cost.json``           seconds by kind of work, and of the whole training
    ``figures/``            the figures as PNG
    ``basis.pt``            eigenvectors, mean and variances of the data
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
        """Directory of the growing history."""
        return self.path / "history"

    def write_json(self, name: str, document: Any) -> None:
        """Write a small document, atomically; numbers that JSON has no word for, NaN and infinity, as null."""
        self.path.mkdir(parents=True, exist_ok=True)
        text = json.dumps(_plain(document), indent=2, sort_keys=True, allow_nan=False) + "\n"
        with replacing(self.path / name) as part:
            part.write_text(text)

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a document; an empty one where it was not written."""
        file = self.path / name
        document: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
        return document


def latest_run(path: str | Path, name: str = "spectral") -> RunFiles:
    """The newest tracked run at or below ``path``.

    Raises:
        FileNotFoundError: if there is none.
    """
    root = Path(path)
    # The tracker's directory, or one with the number that a second run in the same place gets.
    named = re.compile(rf"{re.escape(name)}(_\d+)?")
    below = (file for file in root.glob("**/history/header.npz") if named.fullmatch(file.parent.parent.name))
    headers = [*root.glob("history/header.npz"), *below]
    if not headers:
        raise FileNotFoundError(
            f"`path` must lead to a tracked run, got {str(root)!r} with none at or below it. "
            "Train with SpectralTracker among the callbacks first."
        )
    return RunFiles(max(headers, key=lambda file: file.stat().st_mtime).parent.parent)


def free_directory(root: Path, name: str, resumed: str | None) -> Path:
    """``root/name``, or with a number behind it where another run than the ``resumed`` one keeps a history there."""
    path, number = root / name, 0
    while (path / "history" / "header.npz").exists() and str(path) != resumed:
        number += 1
        path = root / f"{name}_{number}"
    return path


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
