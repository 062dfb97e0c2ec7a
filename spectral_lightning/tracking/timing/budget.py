"""Limits the share of a training that measuring may take."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from spectral_lightning.arguments import positive
from spectral_lightning.spectra import Ranks
from spectral_lightning.tracking.timing.cost import Cost
from spectral_lightning.tracking.timing.schedule import Schedule

__all__ = ["Budget"]

_WHOLE = 0.99  # of a measurement, so that rounding does not lose the last of k


class Budget:
    """Thins a schedule so that the projected cost of measuring stays within a share of the projected training.

    With c seconds per measurement, n scheduled measurements left, s seconds already spent and a projected training of T
    seconds without measuring, there is time for

    ``k = (share T - s) / c - 1``

    more besides the final one, which is always taken. Each scheduled measurement adds ``k / n`` to an account; whenever the
    account reaches one, the measurement is taken. This spreads them evenly over the rest of the schedule. T is projected
    from the pace of updates since the first scheduled one, because start-up is slower than later steps.

    Until the pace is known, or if the end is unknown, a measurement is taken if it and all earlier ones fit into the share
    of the training so far.

    Args:
        share: limit on the time of measuring over that of training; None for no limit.

    Raises:
        ValueError: if it is not above 0.

    Example:
        >>> budget = Budget(0.1)
        >>> taken = [0]
        >>> for step in range(1, 10):
        ...     if budget.due(step, end=10, left=10 - step, spent=len(taken), cost=1.0, training=50.0 * step / 10):
        ...         taken.append(step)
        >>> taken  # 10 % of 50 seconds: five measurements of a second, counting step 0 and the final one
        [0, 3, 5, 8]
    """

    def __init__(self, share: float | None = None) -> None:
        self.share = None if share is None else positive("max_overhead", share)
        self.every, self._said = 1.0, 1.0
        self._account = 0.5  # half full, so that the gaps at both ends are half a spacing
        self._start: tuple[int, float] | None = None

    def due(self, step: int, end: int | None, left: int, spent: float, cost: float, training: float) -> bool:
        """Whether to take a scheduled measurement.

        Args:
            step: optimizer updates so far.
            end: optimizer updates of the whole training; None if unknown.
            left: scheduled measurements before the end, including this one.
            spent: seconds of measuring so far.
            cost: seconds of one measurement.
            training: seconds of training so far.
        """
        if self.share is None or (end is not None and step >= end):
            return True
        self._start = start = self._start or (step, training)
        if end is None or step <= start[0]:
            return spent + cost <= self.share * training
        projected = training + (end - step) * (training - start[1]) / (step - start[0])
        room = max((self.share * projected - spent) / max(cost, 1e-9) - 1, 0.0)
        self.every = max(left / room, 1.0) if room > _WHOLE else math.inf
        self._account += 1 / self.every
        taken = self._account >= _WHOLE
        self._account -= taken
        return taken

    def affords(
        self, step: int, end: int | None, schedule: Schedule, cost: Cost, ranks: Ranks, say: Callable[[str], None]
    ) -> bool:
        """Whether the scheduled measurement fits. Rank 0's clock decides; ``say`` reports a change of rate."""
        if self.share is None:
            return True
        one = cost.each
        left = 1 + schedule.count(step, step if end is None else end - 1)
        due = self.due(step, end, left, cost.measuring, one, cost.training)
        taken, self.every = ranks.copy_from_first(torch.tensor([float(due), self.every])).tolist()
        # Only if that changes the number of measurements: every projection differs a little from the last.
        if left * abs(1 / self.every - 1 / self._said) >= 1:
            self._said = self.every
            say(
                f"step {step}: a measurement takes {one:.2g} s; to stay within max_overhead={self.share:g}, {self._rate}."
            )
        return bool(taken)

    @property
    def _rate(self) -> str:
        if math.isinf(self.every):
            return "only the final measurement is still taken"
        if self.every <= 1:
            return "every scheduled measurement is taken from now on"
        return f"one scheduled measurement in {self.every:.2g} is taken from now on"
