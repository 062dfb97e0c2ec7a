"""What is kept of a training, small enough for a repository, and how it is read back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectral_lightning.prediction import Comparison, compare
from spectral_lightning.spectra import SpectralHistory
from spectral_lightning.spectra.files import read_arrays, replacing

__all__ = ["ROOT", "STORE", "Results", "Stored", "load", "write_tables"]

ROOT = Path(__file__).parents[1]
STORE = ROOT / "docs" / "results"
_ROWS = ("step", "variance", "standard_error", "num_samples", "cumulative_learning_rate")
_GROUP_ROWS = ("group_variance", "group_standard_error", "group_mean_deviation", "group_count")


def write_tables(file: Path, measured: SpectralHistory, predicted: SpectralHistory | None = None) -> None:
    """Write one compressed file with a measurement and the prediction beside it.

    Kept are the variance and standard error of every mode (and class) at every step, the clock, and all that does not grow;
    dropped are the gains per level, the deviation of the means, the alignment and the wall time of each row. Tables are
    stored in single precision, which rounds by at most 6e-8. :meth:`SpectralHistory.load` reads the file too.
    """
    arrays = {**measured.header(), **{name: measured[name] for name in (*_ROWS, *_GROUP_ROWS) if name in measured}}
    if predicted is not None:
        arrays |= {"predicted_step": predicted.steps, "predicted_variance": predicted.variance}
    with replacing(file) as part, part.open("wb") as opened:
        np.savez_compressed(opened, **{name: _single(array) for name, array in arrays.items()})  # type: ignore[arg-type]


def _single(array: NDArray[Any]) -> NDArray[Any]:
    """A table in single precision, unless its range is too wide; vectors are small enough to stay as they are."""
    if array.dtype != np.float64 or array.ndim < 2:
        return array
    with np.errstate(over="ignore", under="ignore"):
        short = array.astype(np.float32)
    return short if np.allclose(short, array, rtol=1e-7, atol=0, equal_nan=True) else array


@dataclass(frozen=True)
class Stored:
    """The result of one training.

    Attributes:
        directory: where it is stored.
    """

    directory: Path
    _read: dict[str, tuple[SpectralHistory, SpectralHistory | None]] = field(default_factory=dict, repr=False)
    _compared: dict[tuple[str | float, str], Comparison] = field(default_factory=dict, repr=False)

    @cached_property
    def about(self) -> dict[str, Any]:
        """Wall time in ``seconds``, how much of it was tracking, and each tracker's ``overlay.json`` under ``overlay``."""
        found: dict[str, Any] = json.loads((self.directory / "run.json").read_text())
        return found

    def _tables(self, tracker: str) -> tuple[SpectralHistory, SpectralHistory | None]:
        if tracker not in self._read:
            arrays = read_arrays(self.directory / f"{tracker}.npz")
            measured, predicted = SpectralHistory.from_arrays(arrays), None
            if "predicted_step" in arrays:
                predicted = SpectralHistory({name: measured[name] for name in ("target", "fixed_point")})
                for step, row in zip(arrays["predicted_step"], arrays["predicted_variance"], strict=True):
                    predicted.append(step=step, variance=row)
            self._read[tracker] = measured, predicted
        return self._read[tracker]

    def history(self, tracker: str = "spectral") -> SpectralHistory:
        """The measurement of one tracker."""
        return self._tables(tracker)[0]

    def prediction(self, tracker: str = "spectral") -> SpectralHistory | None:
        """The table of the theory beside it; None without one."""
        return self._tables(tracker)[1]

    def compared(self, criterion: str | float = "geometric", tracker: str = "spectral") -> Comparison:
        """Emergence measured and predicted, treated alike; gray zone of a factor of two."""
        key = criterion, tracker
        if key not in self._compared:
            self._compared[key] = compare(*self._tables(tracker), criterion)
        return self._compared[key]

    def goodness(self, tracker: str = "spectral") -> dict[str, float]:
        """Of the prediction over the whole run: ``rms`` log error, and ``baseline``, that of variances that never change."""
        found: dict[str, float] = self.about["overlay"][tracker]["goodness_of_fit"]
        return found


Results = Mapping[str, Stored]
"""The stored trainings of a study by name."""


def load(directory: Path, names: Sequence[str]) -> Results:
    """The stored trainings of a study.

    Raises:
        FileNotFoundError: if one is missing.
    """
    missing = [name for name in names if not (directory / name / "run.json").is_file()]
    if missing:
        raise FileNotFoundError(f"{directory} has no {', '.join(missing)}. Run `make results-{directory.name}`.")
    return {name: Stored(directory / name) for name in names}
