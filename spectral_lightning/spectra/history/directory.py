"""A growing history on disk: one small file per measurement, never rewritten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from spectral_lightning.spectra.files import read_arrays, write_arrays
from spectral_lightning.spectra.history.history import SpectralHistory

__all__ = ["HistoryDirectory"]

_HEADER = "header.npz"


class HistoryDirectory:
    """A directory with a header file and one file per measurement, each written atomically.

    A process killed at any moment leaves the files of earlier measurements intact, and at most a ``.part`` file, which is
    never read.

    Args:
        path: the directory; created with the first file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def begin(self, history: SpectralHistory) -> None:
        """Write the header and all rows of ``history``.

        A resumed run may find files of steps after its checkpoint, which are not in ``history``. They are renamed to
        ``.superseded`` and never read.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        write_arrays(self.path / _HEADER, history.header())
        for index in range(len(history)):
            self.append(history.row(index))
        kept = {_name(step) for step in history.steps}
        for file in self.path.glob("step-*.npz"):
            if file.name not in kept:
                file.replace(file.with_name(file.name + ".superseded"))

    def append(self, row: dict[str, NDArray[Any]]) -> None:
        """Write one measurement."""
        write_arrays(self.path / _name(row["step"]), row)

    def load(self) -> SpectralHistory:
        """The history so far.

        Raises:
            FileNotFoundError: if there is no history in the directory.
        """
        history = SpectralHistory.from_arrays(read_arrays(self.path / _HEADER))
        for file in sorted(self.path.glob("step-*.npz")):
            history.append(**read_arrays(file))
        return history


def _name(step: Any) -> str:
    return f"step-{int(step):012d}.npz"
