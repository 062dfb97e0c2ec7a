"""How much of a training measuring may take."""

from __future__ import annotations

import math
from typing import Any, Protocol, runtime_checkable

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info

from spectral_lightning.arguments import positive
from spectral_lightning.spectra import Ranks
from spectral_lightning.tracking.cost import Cost
from spectral_lightning.tracking.schedule import LogSchedule

__all__ = ["Budget", "last_step"]

_WHOLE = 0.99  # of a measurement: the last of k must not be lost to rounding


@runtime_checkable
class _LimitsTime(Protocol):
    """Lightning's ``Timer``, which ``max_time`` adds to the callbacks."""

    def time_elapsed(self) -> float: ...

    def time_remaining(self) -> float | None: ...


class Budget:
    """Thins a schedule so that the projected cost of measuring stays within a share of the projected training.

    With a cost c per measurement, n measurements that the schedule still asks for, s seconds already spent and a projected
    training of T seconds without measuring, there is time for

    ``k = (share T - s) / c - 1``

    of them beside the last of all, which is always taken. Each that is due adds ``k / n`` to an account, and one is taken
    whenever the account holds a whole one: evenly over the schedule, to its end. T follows from the pace of the updates
    since the first that was due, because starting up takes time that no later step does.

    Where there is no pace yet, or the end is not known, a measurement is taken as soon as it and those before it fit
    into the share of the training so far.

    Args:
        share: of the training's time; None for no limit.

    Raises:
        ValueError: if it is not above 0.

    Example:
        >>> budget = Budget(0.1)
        >>> taken = [0]
        >>> for step in range(1, 10):
        ...     if budget.due(step, end=10, left=10 - step, spent=len(taken), cost=1.0, training=50.0 * step / 10):
        ...         taken.append(step)
        >>> taken  # 10 % of 50 seconds: five measurements of a second, the first and the last among them
        [0, 3, 5, 8]
    """

    def __init__(self, share: float | None = None) -> None:
        self.share = None if share is None else positive("max_overhead", share)
        self.every, self._said = 1.0, 1.0
        self._account = 0.5  # half way to the first, as the last is half way to the end
        self._start: tuple[int, float] | None = None

    def due(self, step: int, end: int | None, left: int, spent: float, cost: float, training: float) -> bool:
        """Whether to take a measurement that the schedule asks for.

        Args:
            step: optimizer updates so far.
            end: those of the whole training; None where that is not known.
            left: measurements that the schedule asks for from now on and before the end, this one among them.
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

    def affords(self, trainer: Trainer, schedule: LogSchedule, cost: Cost, ranks: Ranks) -> bool:
        """Whether there is room for the measurement that is due: rank 0's clock decides, and says what changes."""
        if self.share is None:
            return True
        step, end = trainer.global_step, last_step(trainer)
        one = cost.each
        left = 1 + schedule.count(step, step if end is None else end - 1)
        due = self.due(step, end, left, cost.measuring, one, cost.training)
        taken, self.every = ranks.copy_from_first(torch.tensor([float(due), self.every])).tolist()
        self._say(step, one, left)
        return bool(taken)

    def _say(self, step: int, cost: float, left: int) -> None:
        """Only where one measurement more or less will be taken: the projection is never quite the same twice."""
        if left * abs(1 / self.every - 1 / self._said) < 1:
            return
        self._said = self.every
        taken = "none but the last of those that are due is" if math.isinf(self.every) else "all that are due are"
        if 1 < self.every < math.inf:
            taken = f"one of {self.every:.2g} that are due is"
        rank_zero_info(
            f"SpectralTracker, step {step}: a measurement takes {cost:.2g} s; to keep within max_overhead={self.share:g}, "
            f"{taken} taken from here."
        )


def last_step(trainer: Trainer) -> int | None:
    """Optimizer updates until the training ends, by whatever ends it first; None where no end is set."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    ends = [_by_epochs(trainer), *(_by_time(trainer, c) for c in callbacks if isinstance(c, _LimitsTime))]
    if trainer.max_steps > 0:
        ends.append(trainer.max_steps)
    return min((end for end in ends if end is not None), default=None)


def _by_epochs(trainer: Trainer) -> int | None:
    """From the updates per batch so far, which differ from one where there are several optimizers or accumulation."""
    batches, epochs = trainer.num_training_batches, trainer.max_epochs
    if epochs is None or epochs < 0 or math.isinf(batches):
        return None
    done = trainer.fit_loop.total_batch_idx + 1
    return max(trainer.global_step, round(trainer.global_step * epochs * batches / max(done, 1)))


def _by_time(trainer: Trainer, timer: _LimitsTime) -> int | None:
    elapsed, remaining = timer.time_elapsed(), timer.time_remaining()
    if remaining is None or elapsed <= 0:
        return None
    return round(trainer.global_step * (elapsed + max(remaining, 0.0)) / elapsed)
