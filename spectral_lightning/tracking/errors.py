"""What becomes of an error while measuring."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, TypeVar

import torch

from spectral_lightning.arguments import one_of
from spectral_lightning.spectra import Ranks

__all__ = ["Tolerance", "together"]

T = TypeVar("T")

_LENGTH = 500


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
        try:
            return together(ranks, part)
        except Exception as error:
            if not self.skips:
                self.failures.append((step, _text(error)))
                raise
            self.report(step, _text(error))
        # Here, where the frames of the error are gone, which held what there was no memory for.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return None

    def each(self, ranks: Ranks | None, step: int, parts: Mapping[str, Callable[[], Any]]) -> None:
        """Do all of it, whatever becomes of the rest, with measurements that are made already.

        Where errors are not skipped, the first is raised when all is done, and on every rank, so that none goes on to wait
        for one that has stopped. Every rank has to call this then. No part may wait for another rank.

        Args:
            ranks: that agree; None after an exception, where no rank may wait for another and that one is to be seen.
            step: of the report.
            parts: what to do, by name.
        """
        first: Exception | None = None
        for name, part in parts.items():
            try:
                part()
            except Exception as error:
                if self.skips or ranks is None:
                    self.report(step, f"{name} failed: {_text(error)}", ended=ranks is None)
                else:
                    error.add_note(f"SpectralTracker {self.name!r}, step {step}: {name} failed.")
                    self.failures.append((step, f"{name} failed: {_text(error)}"))
                    first = first or error
        if ranks is not None and not self.skips:
            together(ranks, partial(_raise, first))

    def report(self, step: int, text: str, ended: bool = False) -> None:
        """Warn, and remember."""
        self.failures.append((step, text))
        after = "The training had already ended." if ended else "Training goes on."
        warnings.warn(f"SpectralTracker {self.name!r}, step {step}: {text}. {after}", stacklevel=4)

    def state(self) -> list[list[Any]]:
        """Plain values for a checkpoint."""
        return [[step, text] for step, text in self.failures]

    def load_state(self, state: list[list[Any]]) -> None:
        """Go on from a checkpoint."""
        self.failures = [(int(step), str(text)) for step, text in state]


def together(ranks: Ranks, part: Callable[[], T]) -> T:
    """What ``part`` gives here, or an error on every rank where there was one on any. Every rank has to call it.

    ``part`` must not wait for another rank: that one may have failed.

    Raises:
        RuntimeError: on ranks where ``part`` did not fail, with what the others say.
        Exception: whatever ``part`` raises here.
    """
    result, error = None, None
    try:
        result = part()
    except Exception as caught:
        error = caught
    if int(ranks.sum(torch.tensor(float(error is not None)))):
        elsewhere = _said(ranks, error)
        raise error or RuntimeError(f"failed on {elsewhere}")
    return result  # type: ignore[return-value]


def _said(ranks: Ranks, error: Exception | None) -> str:
    """What went wrong on all ranks, as text that comes together in a sum of bytes."""
    mine = b"" if error is None else f"rank {ranks.rank}: {_text(error)}".encode()[:_LENGTH]
    table = torch.zeros(ranks.size, _LENGTH)
    table[ranks.rank, : len(mine)] = torch.tensor(list(mine), dtype=table.dtype)
    rows = ranks.sum(table).to(torch.uint8)
    return "; ".join(bytes(row[row > 0].tolist()).decode(errors="replace") for row in rows if row.any())


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _raise(error: Exception | None) -> None:
    if error is not None:
        raise error
