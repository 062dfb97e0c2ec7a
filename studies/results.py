"""What the trainings of an experiment stored, read back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from spectral_lightning.prediction import Comparison, compare
from spectral_lightning.spectra import SpectralHistory

__all__ = ["Results", "Stored", "load"]


@dataclass(frozen=True)
class Stored:
    """One training's result.

    Attributes:
        directory: where it is stored.
    """

    directory: Path
    _compared: dict[tuple[str | float, str], Comparison] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def about(self) -> dict[str, Any]:
        """``seconds`` of wall time, ``tracking_seconds`` of it, and what each prediction said of itself (``overlay``)."""
        found: dict[str, Any] = json.loads((self.directory / "run.json").read_text())
        return found

    def history(self, tracker: str = "spectral") -> SpectralHistory:
        """The measurement of one tracker."""
        return SpectralHistory.load(self.directory / f"{tracker}.npz")

    def prediction(self, tracker: str = "spectral") -> SpectralHistory | None:
        """The theory's table beside it, None where there is none."""
        file = self.directory / f"{tracker}_theory.npz"
        return SpectralHistory.load(file) if file.is_file() else None

    def compared(self, criterion: str | float = "geometric", tracker: str = "spectral") -> Comparison:
        """Emergence measured and predicted, treated alike; gray zone of a factor of two."""
        key = criterion, tracker
        if key not in self._compared:  # a report asks for the same one many times
            self._compared[key] = compare(self.history(tracker), self.prediction(tracker), criterion)
        return self._compared[key]

    def goodness(self, tracker: str = "spectral") -> dict[str, float]:
        """Of the prediction over the whole run: ``rms`` log error, ``baseline`` if nothing were learnt, ``cells``."""
        found: dict[str, float] = self.about["overlay"][tracker]["goodness_of_fit"]
        return found


Results = Mapping[str, Stored]
"""By the name of the run."""


def load(directory: Path, names: list[str]) -> Results:
    """The results of an experiment.

    Raises:
        FileNotFoundError: if one is not there.
    """
    missing = [name for name in names if not (directory / name / "run.json").is_file()]
    if missing:
        raise FileNotFoundError(f"{directory} has no {', '.join(missing)}. Run `make results-{directory.name}`.")
    return {name: Stored(directory / name) for name in names}
