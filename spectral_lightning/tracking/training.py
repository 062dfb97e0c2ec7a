"""What a session needs to know about the training it follows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim import Optimizer

__all__ = ["Training"]


class Training(Protocol):
    """A training in progress, whether Lightning's Trainer or the user's own loop runs it."""

    @property
    def client(self) -> str:
        """Name of the tracker or monitor class, for messages."""
        ...

    @property
    def module(self) -> nn.Module:
        """The module being trained, or the network itself."""
        ...

    @property
    def loader(self) -> Any:
        """The training's data loader, or the user's data; never iterated."""
        ...

    @property
    def validation(self) -> Any:
        """The data loader of the validation set; None if there is none. Never iterated."""
        ...

    @property
    def datamodule(self) -> Any:
        """An object that may know classes or population moments, or None."""
        ...

    @property
    def step(self) -> int:
        """Optimizer updates so far."""
        ...

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        ...

    @property
    def optimizers(self) -> Sequence[Optimizer]:
        """The optimizers; empty if unknown."""
        ...

    @property
    def clipping(self) -> float | None:
        """Norm or value at which gradients are clipped; None if unclipped or unknown."""
        ...

    @property
    def keepers(self) -> Iterable[object]:
        """Objects outside the module that may hold an average of its weights."""
        ...

    @property
    def loggers(self) -> Sequence[Any]:
        """Loggers with ``log_metrics(values, step=...)``."""
        ...

    def last_step(self) -> int | None:
        """Planned number of optimizer updates; None if no end is set."""
        ...

    def root(self) -> Path | None:
        """Directory for results; None if this process writes none. Every rank must call it."""
        ...

    def seen(self) -> Callable[[Any], Any] | None:
        """The user's processing of a batch between loader and step; None if there is none."""
        ...

    def publish(self, values: Mapping[str, float]) -> None:
        """Make values available to other parts of the training, such as early stopping."""
        ...

    def say(self, text: str) -> None:
        """Print one line, once for all ranks."""
        ...
