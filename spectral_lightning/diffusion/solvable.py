"""What a module declares about the theory of its training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from spectral_lightning.theory import LearningDynamics

__all__ = ["Departure", "SupportsDynamics"]


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
