"""Raises errors of measuring, or reports and skips them, consistently on all ranks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch

from spectral_lightning.spectra import Ranks
from spectral_lightning.spectra.ranks import together

__all__ = ["Attempt", "Errors"]


@dataclass
class Attempt:
    """Whether the body of :meth:`Errors.attempt` failed on any rank."""

    failed: bool = False


class Errors:
    """Raises errors, or reports them and lets training continue.

    Args:
        name: of the session, for reports.
        on_error: ``"raise"`` or ``"skip"``.
    """

    def __init__(self, name: str, on_error: Literal["raise", "skip"] = "raise") -> None:
        self.name, self.on_error = name, on_error
        self.failures: list[tuple[int, str]] = []

    @contextmanager
    def attempt(self, ranks: Ranks, step: int) -> Iterator[Attempt]:
        """Run the body, then let all ranks agree on whether it failed on any. The body must not wait for another rank.

        A failure is raised on every rank or, if errors are skipped, reported and noted in the :class:`Attempt`.
        """
        attempt = Attempt()
        try:
            with together(ranks):
                yield attempt
        except Exception as error:
            attempt.failed = True
            if self.on_error == "raise":
                self.failures.append((step, _text(error)))
                raise
            self.report(step, _text(error))
        # Here the frames of the error are gone, and with them the tensors that filled the memory.
        if attempt.failed and torch.cuda.is_available():
            torch.cuda.empty_cache()

    def each(self, ranks: Ranks | None, step: int, parts: Mapping[str, Callable[[], Any]]) -> None:
        """Run every part, even if others fail; the measurement itself already exists.

        Unless errors are skipped, the first one is raised on every rank after the last part, so that no rank waits for one
        that has stopped. No part may wait for another rank.

        Args:
            ranks: the ranks that agree; None after an exception of the training: then no rank may wait for another, and
                errors here are only reported, so that the user sees that exception.
            step: for the report.
            parts: functions to run, by name.
        """
        first: Exception | None = None
        for name, part in parts.items():
            try:
                part()
            except Exception as error:
                text = f"{name} failed: {_text(error)}"
                if self.on_error == "skip" or ranks is None:
                    self.report(step, text, ended=ranks is None)
                else:
                    error.add_note(f"Session {self.name!r}, step {step}: {name} failed.")
                    self.failures.append((step, text))
                    first = first or error
        if ranks is not None and self.on_error == "raise":
            with together(ranks):
                if first is not None:
                    raise first

    def report(self, step: int, text: str, ended: bool = False) -> None:
        """Warn, and add to :attr:`failures`."""
        self.failures.append((step, text))
        after = "The training had already ended." if ended else "Training goes on."
        warnings.warn(f"Session {self.name!r}, step {step}: {text}. {after}", stacklevel=4)

    def state(self) -> list[list[Any]]:
        """Plain values for a checkpoint."""
        return [[step, text] for step, text in self.failures]

    def load_state(self, state: list[list[Any]]) -> None:
        """Restore the result of :meth:`state`."""
        self.failures = [(int(step), str(text)) for step, text in state]


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
