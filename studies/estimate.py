"""A number with its interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from studies.tables import interval

__all__ = ["Estimate"]


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval.

    Attributes:
        value: NaN where not determinable.
        low: lower end; infinite where the interval is open there.
        high: upper end; the same.
        bound: whether the value is only known to be at least this.
    """

    value: float
    low: float
    high: float
    bound: bool = False

    @property
    def determinable(self) -> bool:
        """Whether there is a number."""
        return bool(np.isfinite(self.value))

    @property
    def cell(self) -> str:
        """For a table: the number with its interval, "-" where there is none."""
        return f"{'at least ' if self.bound else ''}{interval(self.value, self.low, self.high)}"

    def __str__(self) -> str:
        """The number with its interval, or that there is none."""
        return self.cell if self.determinable else "not determinable"

    def holds(self, value: float) -> bool:
        """Whether the interval contains a value."""
        return self.low <= value <= self.high
