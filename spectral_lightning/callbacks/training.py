"""Presents a Lightning training to a session."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch.optim import Optimizer

__all__ = ["LightningTraining"]

_HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")


class LightningTraining:
    """Implements :class:`~spectral_lightning.tracking.Training` with a Trainer's public attributes.

    Args:
        client: name of the callback, for messages.
        trainer: the Trainer.
        module: the module it trains.
    """

    def __init__(self, client: str, trainer: Trainer, module: LightningModule) -> None:
        self.client, self.trainer, self.module = client, trainer, module
        self.datamodule: Any = getattr(trainer, "datamodule", None)

    @property
    def loader(self) -> Any:
        """The training dataloader, known once training starts."""
        return self.trainer.train_dataloader

    @property
    def validation(self) -> Any:
        """The first validation dataloader, if it does not read the training set."""
        found = self.trainer.val_dataloaders
        if isinstance(found, Mapping):
            found = list(found.values())
        if isinstance(found, Sequence):
            found = found[0] if found else None
        same = getattr(found, "dataset", None) is getattr(self.loader, "dataset", ())
        return None if same or self.trainer.overfit_batches else found  # type: ignore[attr-defined]

    @property
    def step(self) -> int:
        """Lightning's ``global_step``, which counts the updates of every optimizer."""
        return self.trainer.global_step

    @property
    def device(self) -> torch.device:
        """The module's device."""
        return self.module.device

    @property
    def optimizers(self) -> Sequence[Optimizer]:
        """The Trainer's optimizers."""
        return self.trainer.optimizers

    @property
    def clipping(self) -> float | None:
        """The Trainer's ``gradient_clip_val``."""
        value = self.trainer.gradient_clip_val
        return None if value is None else float(value)

    @property
    def callbacks(self) -> list[Any]:
        """The Trainer's callbacks."""
        return self.trainer.callbacks  # type: ignore[attr-defined, no-any-return]

    @property
    def keepers(self) -> Iterable[object]:
        """The callbacks, some of which keep an average of the weights."""
        return self.callbacks

    @property
    def loggers(self) -> Sequence[Any]:
        """The Trainer's loggers, without placeholders."""
        return [logger for logger in self.trainer.loggers if not isinstance(logger, DummyLogger)]

    def last_step(self) -> int | None:
        """Planned number of optimizer updates, by the limit that is reached first."""
        ends = [self._by_time(c) for c in self.callbacks if hasattr(c, "time_remaining")]
        planned, most = self.trainer.estimated_stepping_batches, self.trainer.max_steps
        if math.isfinite(planned):
            # The estimate counts batches; under manual optimization, global_step counts every optimizer's updates.
            manual = 1 if self.module.automatic_optimization else max(len(self.optimizers), 1)
            ends.append(max(self.step, int(planned) * (1 if planned == most else manual)))
        return min((end for end in ends if end is not None), default=None)

    def _by_time(self, timer: Any) -> int | None:
        """Projected step at which a ``Timer``, which ``max_time`` adds to the callbacks, ends the training."""
        elapsed, remaining = float(timer.time_elapsed()), timer.time_remaining()
        if remaining is None or elapsed <= 0:
            return None
        end = self.step * (elapsed + max(float(remaining), 0.0)) / elapsed
        return round(end)

    def root(self) -> Path | None:
        """The logger's directory; None on ranks other than 0 and under ``fast_dev_run``. Every rank must call it."""
        root = self.trainer.log_dir or self.trainer.default_root_dir
        writes = self.trainer.is_global_zero and not self.trainer.fast_dev_run  # type: ignore[attr-defined]
        return Path(root) if writes else None

    def seen(self) -> Callable[[Any], Any] | None:
        """The user's batch-transfer hooks on datamodule or module, as Lightning chooses them; None if not overridden."""
        owners = [one for one in (self.datamodule, self.module) if one is not None]
        if not any(_overrides(one, hook) for one in owners for hook in _HOOKS):
            return None
        before: Any = next((one for one in owners if _overrides(one, _HOOKS[0])), self.module)

        def seen(batch: Any) -> Any:
            # The strategy calls the other two hooks.
            moved = before.on_before_batch_transfer(batch, 0)
            return self.trainer.strategy.batch_to_device(moved, self.module.device)

        return seen

    def publish(self, values: Mapping[str, float]) -> None:
        """Update ``callback_metrics``, which other callbacks monitor."""
        self.trainer.callback_metrics.update({key: torch.tensor(value) for key, value in values.items()})

    def say(self, text: str) -> None:
        """Log one line on rank 0."""
        rank_zero_info(text)


def _overrides(owner: Any, hook: str) -> bool:
    parent = LightningDataModule if isinstance(owner, LightningDataModule) else LightningModule
    if isinstance(owner, parent):
        return bool(is_overridden(hook, owner, parent))
    # A module of the pytorch_lightning package.
    return not getattr(type(owner), hook).__module__.startswith("pytorch_lightning.")
