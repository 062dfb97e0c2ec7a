"""Stores the results of a training, small enough for a repository, and reads them back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
_ROWS = ("step", "variance", "standard_error", "num_samples", "cumulative_learning_rate", "slice")
_GROUP_ROWS = ("group_variance", "group_standard_error", "group_mean_deviation", "group_count")


def write_tables(file: Path, measured: SpectralHistory, predicted: SpectralHistory | None = None) -> None:
    """Write one compressed file with a measurement and its prediction.

    It keeps the variance and standard error of every mode (and class) at every step, the clock, and all static fields; it
    drops the gains per level, the deviation of the means, the alignment and the wall time of each row. Tables are
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
    """The measurement of one tracker in one training, and its prediction."""

    directory: Path  # of the training
    tracker: str = "spectral"

    @cached_property
    def about(self) -> dict[str, Any]:
        """The training's wall time ``seconds``, its share ``tracking_seconds``, and each tracker's ``overlay``."""
        found: dict[str, Any] = json.loads((self.directory / "run.json").read_text())
        return found

    @property
    def overlay(self) -> dict[str, Any]:
        """The prediction's report: ``theory``, ``scale`` and ``goodness_of_fit`` over the whole run."""
        found: dict[str, Any] = self.about["overlay"][self.tracker]
        return found

    @cached_property
    def _arrays(self) -> dict[str, NDArray[Any]]:
        return read_arrays(self.directory / f"{self.tracker}.npz")

    @cached_property
    def history(self) -> SpectralHistory:
        """The measurement, smoothed over the slices of a block of latents if it took part of a block."""
        return SpectralHistory.from_arrays(self._arrays).smoothed()

    @cached_property
    def prediction(self) -> SpectralHistory | None:
        """The table of the theory; None without one."""
        if "predicted_step" not in self._arrays:
            return None
        found = SpectralHistory({name: self.history[name] for name in ("target", "fixed_point")})
        for step, row in zip(self._arrays["predicted_step"], self._arrays["predicted_variance"], strict=True):
            found.append(step=step, variance=row)
        return found

    def compared(self, criterion: str | float = "geometric") -> Comparison:
        """Emergence measured and predicted, by the same rules; gray zone of a factor of two."""
        return compare(self.history, self.prediction, criterion)

    def time(self, predicted: bool = False) -> NDArray[np.float64]:
        """Steps of emergence by the geometric threshold, measured or predicted, ``[K]``; NaN if there is none."""
        compared = self.compared()
        found = compared.predicted if predicted else compared.measured
        return np.full_like(compared.measured.time, np.nan) if found is None else found.time


Results = Mapping[str, Stored]
"""The stored trainings of a study by ``name/tracker``; ``name`` is short for the tracker of eigenmodes, ``spectral``."""


def load(directory: Path, names: Sequence[str]) -> Results:
    """The stored trainings of a study.

    Raises:
        FileNotFoundError: if one is missing.
    """
    missing = [name for name in names if not (directory / name / "run.json").is_file()]
    if missing:
        raise FileNotFoundError(f"{directory} has no {', '.join(missing)}. Run `make results-{directory.name}`.")
    files = [file for name in names for file in (directory / name).glob("*.npz")]
    found = {f"{file.parent.name}/{file.stem}": Stored(file.parent, file.stem) for file in files}
    return found | {name: found[f"{name}/spectral"] for name in names}
