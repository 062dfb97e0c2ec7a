"""How much of a training measuring may take."""

from __future__ import annotations

import math

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info

from spectral_lightning.arguments import positive
from spectral_lightning.callbacks.cost import Cost
from spectral_lightning.callbacks.schedule import LogSchedule
from spectral_lightning.spectra import Ranks

__all__ = ["Budget"]


class Budget:
    """Thins a schedule so that the projected cost of measuring stays within a share of the projected training.

    With a cost c per measurement, n measurements still due until the end, s seconds already spent and a projected
    training of T seconds (without measuring), every m-th is taken,

    ``m = ceil(n c / (share T - s))``;

    none but the last where nothing is left. Where the end is not known, a measurement is taken as soon as it and
    those before it fit into the share of the training so far.

    Args:
        share: of the training's time; None for no limit.

    Raises:
        ValueError: if it is not above 0.

    Example:
        >>> budget = Budget(0.1)
        >>> [budget.due(spent=2.0, cost=1.0, training=30.0, done=0.5, left=8) for _ in range(4)]
        [True, False, True, False]
    """

    def __init__(self, share: float | None = None) -> None:
        self.share = None if share is None else positive("max_overhead", share)
        self.every = 1
        self._skipped = math.inf

    def due(self, spent: float, cost: float, training: float, done: float | None, left: int) -> bool:
        """Whether to take a measurement that the schedule asks for.

        Args:
            spent: seconds of measuring so far.
            cost: seconds of one measurement.
            training: seconds of training so far.
            done: share of the training that is done; None where its end is not known.
            left: measurements that the schedule asks for from now on, this one among them.
        """
        if self.share is None:
            return True
        if done is None:
            return spent + cost <= self.share * training
        free = self.share * training / max(done, 1e-9) - spent
        self.every = math.ceil(left * cost / free) if free > 0 else left + 1
        self._skipped += 1
        if self._skipped < self.every or free < cost:
            return False
        self._skipped = 0
        return True

    def affords(self, trainer: Trainer, schedule: LogSchedule, cost: Cost, ranks: Ranks) -> bool:
        """Whether there is room for the measurement that is due: rank 0's clock decides, and says what changes."""
        if self.share is None:
            return True
        step, end, before = trainer.global_step, _last_step(trainer), self.every
        one = cost.measuring / max(cost.count, 1)
        left = 1 + schedule.count(step, end or step)
        due = self.due(cost.measuring, one, cost.training, step / end if end else None, left)
        due_there, self.every = (
            int(v) for v in ranks.copy_from_first(torch.tensor([float(due), float(self.every)])).tolist()
        )
        if self.every != before:
            rank_zero_info(
                f"SpectralTracker, step {step}: a measurement takes {one:.2g} s; to keep within max_overhead="
                f"{self.share:g}, one of {self.every} that are due is taken from here."
            )
        return bool(due_there)


def _last_step(trainer: Trainer) -> int | None:
    """Optimizer updates until the training ends, None where no end is set."""
    if trainer.max_steps > 0:
        return int(trainer.max_steps)
    batches = trainer.num_training_batches
    if trainer.max_epochs is None or trainer.max_epochs < 0 or math.isinf(batches):
        return None
    return max(1, int(trainer.max_epochs * -(-batches // trainer.accumulate_grad_batches)))
