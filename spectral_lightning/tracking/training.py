"""What a session needs to know of the training it follows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim import Optimizer

__all__ = ["Training"]


class Training(Protocol):
    """A training in progress, whoever runs its loop: Lightning's Trainer or the user."""

    @property
    def client(self) -> str:
        """Name of the class that the user attached, for messages."""
        ...

    @property
    def module(self) -> nn.Module:
        """The module that trains, or the network itself."""
        ...

    @property
    def loader(self) -> Any:
        """The training's data loader, or the data the user named; never iterated."""
        ...

    @property
    def datamodule(self) -> Any:
        """An object that may know classes or the moments of the population, or None."""
        ...

    @property
    def step(self) -> int:
        """Optimizer updates so far."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        ...

    @property
    def optimizers(self) -> Sequence[Optimizer]:
        """The optimizers; none if the training does not show them."""
        ...

    @property
    def clipping(self) -> float | None:
        """The norm or value that gradients are clipped at, if known."""
        ...

    @property
    def keepers(self) -> Iterable[object]:
        """Objects outside the module that may keep an average of its weights."""
        ...

    @property
    def loggers(self) -> Sequence[Any]:
        """Loggers with ``log_metrics(values, step=...)``."""
        ...

    def last_step(self) -> int | None:
        """Optimizer updates by the end of the training, as planned now; None if no end is set."""
        ...

    def root(self) -> Path | None:
        """Where results go; None if this process writes none. Every rank must call it."""
        ...

    def seen(self) -> Callable[[Any], Any] | None:
        """What the training does to a batch between loader and step; None if that is nothing of the user's."""
        ...

    def publish(self, values: Mapping[str, float]) -> None:
        """Make values available to the training's other parts, such as early stopping."""
        ...

    def say(self, text: str) -> None:
        """Print one line, once for all ranks."""
        ...
