"""What becomes of an error while measuring."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import torch

from spectral_lightning.arguments import one_of
from spectral_lightning.spectra import Ranks

__all__ = ["Tolerance"]

T = TypeVar("T")


class Tolerance:
    """Raises errors, or reports them and lets the training go on; several ranks agree on it.

    Args:
        name: of the tracker, for reports.
        on_error: ``"raise"`` or ``"skip"``.

    Raises:
        ValueError: for another ``on_error``.
    """

    def __init__(self, name: str, on_error: Literal["raise", "skip"] = "raise") -> None:
        self.name, self.on_error = name, one_of("on_error", on_error, ("raise", "skip"))
        self.failures: list[tuple[int, str]] = []

    @property
    def skips(self) -> bool:
        """Whether the training goes on."""
        return self.on_error == "skip"

    def agreed(self, ranks: Ranks, step: int, part: Callable[[], T]) -> T | None:
        """What ``part`` gives here; None on every rank where it failed on any and errors are skipped.

        ``part`` must not wait for another rank. Every rank has to call this.
        """
        result, error = None, None
        try:
            result = part()
        except Exception as caught:
            error = caught
        failed = int(ranks.sum(torch.tensor(float(error is not None))))
        if not failed:
            return result
        elsewhere = f"The measurement failed on {failed} other of {ranks.size} ranks"
        if not self.skips:
            raise error or RuntimeError(f"{elsewhere}, at step {step}.")
        self.report(step, elsewhere if error is None else f"{type(error).__name__}: {error}")
        if torch.cuda.is_available():
            error = None  # its frames hold what there was no memory for
            torch.cuda.empty_cache()
        return None

    def alone(self, step: int, part: Callable[[], Any]) -> None:
        """Do what concerns this rank only, with measurements it already has."""
        try:
            part()
        except Exception as error:
            if not self.skips:
                raise
            self.report(step, f"{type(error).__name__}: {error}")

    def report(self, step: int, text: str) -> None:
        """Warn, and remember."""
        self.failures.append((step, text))
        warnings.warn(f"SpectralTracker {self.name!r}, step {step}: {text}. Training goes on.", stacklevel=4)

    def state(self) -> list[list[Any]]:
        """Plain values for a checkpoint."""
        return [[step, text] for step, text in self.failures]

    def load_state(self, state: list[list[Any]]) -> None:
        """Go on from a checkpoint."""
        self.failures = [(int(step), str(text)) for step, text in state]
