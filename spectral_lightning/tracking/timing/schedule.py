"""When to measure: an absolute grid of steps, evenly spaced on a logarithmic axis."""

from __future__ import annotations

import math
from dataclasses import dataclass

from spectral_lightning.arguments import positive, positive_integer

__all__ = ["PER_DECADE", "Schedule"]

PER_DECADE = 6
"""Measurements per factor of ten in steps, by default."""

_FIRST_FIGURE = 1000


@dataclass(frozen=True)
class Schedule:
    """Steps ``round(10^(i / per_decade))``: 1, 2, 3, ..., then evenly spaced on a logarithmic axis.

    The grid does not depend on the length of the run, so a longer or resumed run measures at the same steps.

    Args:
        per_decade: measurements per factor of ten in optimizer updates; by default those of the sampling's preset.
        max_overhead: limit on the time spent measuring, as a fraction of the training time. The schedule is thinned to keep
            it, and a printed line says when. None sets no limit.

    Raises:
        ValueError: if ``per_decade`` is not a positive integer, or ``max_overhead`` is not above 0.

    Example:
        >>> schedule = Schedule(3)
        >>> [step for step in range(1, 101) if schedule.due(step - 1, step)]
        [1, 2, 5, 10, 22, 46, 100]
    """

    per_decade: int | None = None
    max_overhead: float | None = None

    def __post_init__(self) -> None:
        if self.per_decade is not None:
            positive_integer("per_decade", self.per_decade)
        if self.max_overhead is not None:
            positive("max_overhead", self.max_overhead)

    @property
    def density(self) -> int:
        """Measurements per factor of ten."""
        return self.per_decade or PER_DECADE

    def floor(self, step: int) -> int:
        """Largest grid step up to ``step``; 0 before the first."""
        if step < 1:
            return 0
        index = math.floor(self.density * math.log10(step)) + 1
        return max(g for i in range(max(index - 2, 0), index + 1) if (g := round(10 ** (i / self.density))) <= step)

    def due(self, last: int, step: int) -> bool:
        """Whether a grid step lies in ``(last, step]``."""
        return self.floor(step) > last

    def figure_due(self, last: int, step: int, end: int | None = None) -> bool:
        """As :meth:`due` for a figure of a run that ends, as far as is known, at step ``end`` with a last figure.

        None is due before step 1000, where there is little to see, and within one interval before the end.
        """
        late = end is not None and step * 10 ** (1 / self.density) > end
        return not late and self.due(max(last, _FIRST_FIGURE - 1), step)

    def count(self, last: int, end: int) -> int:
        """Grid steps in ``(last, end]``."""
        first = 0 if last < 1 else math.floor(self.density * math.log10(last)) - 1
        stop = 0 if end < 1 else math.ceil(self.density * math.log10(end)) + 1
        grid = {round(10 ** (i / self.density)) for i in range(max(first, 0), stop + 1)}
        return sum(last < step <= end for step in grid)
