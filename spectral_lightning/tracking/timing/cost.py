"""Measures the cost of tracking, by kind of work."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Cost"]


class Cost:
    """Wall seconds of tracking by kind of work, and of the whole training."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.count = 0  # measurements taken
        self._start: float | None = None
        self._before = 0.0
        self._set_up, self._counted = 0.0, 0

    def begin(self) -> None:
        """Start the clock of the training."""
        self._start = time.perf_counter()

    def ready(self) -> None:
        """End the set-up, whose checks and files do not count towards :attr:`each`."""
        self._set_up, self._counted = self.measuring, self.count

    @contextmanager
    def of(self, kind: str) -> Iterator[None]:
        """Add the time spent inside to ``kind``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[kind] = self.seconds.get(kind, 0.0) + time.perf_counter() - start

    @property
    def tracking(self) -> float:
        """Seconds of tracking in total."""
        return sum(self.seconds.values())

    @property
    def measuring(self) -> float:
        """Seconds of tracking without reading the data, which happens once."""
        return self.tracking - self.seconds.get("reference", 0.0)

    @property
    def each(self) -> float:
        """Mean seconds per measurement since :meth:`ready`, or including the set-up if there is none since."""
        if self.count > self._counted:
            return (self.measuring - self._set_up) / (self.count - self._counted)
        return self.measuring / max(self.count, 1)

    @property
    def total(self) -> float:
        """Seconds since the training began, tracking included."""
        return self._before + (0.0 if self._start is None else time.perf_counter() - self._start)

    @property
    def training(self) -> float:
        """Seconds since the training began, without tracking."""
        return max(self.total - self.tracking, 0.0)

    def state_dict(self) -> dict[str, object]:
        """Plain values for a checkpoint."""
        return {"seconds": dict(self.seconds), "total": self.total, "count": self.count}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Resume from a checkpoint."""
        self.seconds = {str(k): float(v) for k, v in dict(state.get("seconds", {})).items()}  # type: ignore[call-overload]
        self.count = int(state.get("count", 0))  # type: ignore[call-overload]
        self._before = float(state.get("total", 0.0))  # type: ignore[arg-type]
