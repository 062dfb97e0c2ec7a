"""What a measurement requires of a model: a denoiser of variance-exploding noise and, if it is solvable, its theory."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from spectral_lightning.theory import LearningDynamics

__all__ = [
    "Denoiser",
    "Departure",
    "SupportsConditionalDenoise",
    "SupportsDenoise",
    "SupportsDynamics",
    "state_dtype",
    "undisturbed",
]

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""``D(z [B, *S], sigma [B]) -> x0 [B, *S]`` with ``z = x0 + sigma eps`` (variance exploding)."""


@runtime_checkable
class SupportsDenoise(Protocol):
    """A module with a method ``denoise(z, sigma)`` in the form of :data:`Denoiser`."""

    def denoise(self, z: Tensor, sigma: Tensor) -> Tensor:
        """Predict the clean data from ``z = x0 + sigma eps``."""
        ...


@runtime_checkable
class SupportsConditionalDenoise(Protocol):
    """A module whose denoiser takes the class of each example.

    ``num_classes`` is None for an unconditional model. Label ``num_classes`` is the null class, the same as
    ``label=None``.
    """

    num_classes: int | None

    def denoise(self, z: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        """Predict the clean data from ``z = x0 + sigma eps`` given classes ``label [B]``, 0 to ``num_classes``."""
        ...


@dataclass(frozen=True)
class Departure:
    """An assumption of the theory that a training does not meet.

    Attributes:
        text: the assumption and what holds instead, in one phrase.
        affects_clock: whether the learning rate then no longer determines the theory's time.
    """

    text: str
    affects_clock: bool = True


@runtime_checkable
class SupportsDynamics(Protocol):
    """A module that names the solvable family it should be compared with."""

    def dynamics(self) -> LearningDynamics:
        """The family, with the learning rate of the optimizer; one unit of time is one optimizer update."""
        ...

    def departures(self) -> list[Departure]:
        """The assumptions of that family which the training does not meet."""
        ...


@contextmanager
def undisturbed(module: nn.Module | None = None) -> Iterator[None]:
    """Evaluate a network without side effects: no gradients, no autocast, eval mode, random states restored.

    Every submodule gets its mode back, so that frozen ones stay frozen. A compiled network runs eagerly, because eval
    mode and another batch size would compile it again.

    Args:
        module: the module whose submodules are put in eval mode; None leaves modes alone.
    """
    modes = [(m, m.training) for m in module.modules()] if module is not None else []
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        for m, _ in modes:
            m.training = False
        on_gpu = torch.autocast("cuda", enabled=False) if devices else nullcontext()
        # Importing the compiler takes seconds; if nobody has, nothing is compiled.
        compiling = "torch._dynamo" in sys.modules
        eager = torch.compiler.set_stance("force_eager") if compiling else nullcontext()
        with torch.no_grad(), torch.random.fork_rng(devices), torch.autocast("cpu", enabled=False), on_gpu, eager:
            yield
    finally:
        for m, training in modes:
            m.training = training
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002


def state_dtype(module: nn.Module) -> torch.dtype:
    """Precision of the sampler's state: double for a network in double precision, else single."""
    doubles = any(p.dtype == torch.float64 for p in module.parameters())
    return torch.float64 if doubles else torch.float32
