"""What every solvable family is: its objective, and what it has to know of the data."""

from __future__ import annotations

import copy
import inspect
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from spectral_lightning.theory.objective import Objective, shown

if TYPE_CHECKING:
    from spectral_lightning.theory.curves import Curves

__all__ = ["LearningDynamics"]


class LearningDynamics(ABC):
    """A family of solvable denoisers, trained on an objective; solved on data, it gives :class:`Curves`.

    Attributes:
        solved_in: the modes it is solved in: the covariance's eigenmodes, or the Fourier modes of an image.
        needs_moments: whether :meth:`on` takes the data's moments, or only the variances of the modes.
        takes_gain: whether a prediction can start from the gains measured before training.
        ends_at_data: whether its weights can hold the data's spectrum, so that learning ends there.
        default_nodes: noise levels at which the exact flow is evaluated if the objective names no number.

    Args:
        objective: learning rate, preconditioning, and how the loss is descended.
    """

    solved_in: ClassVar[Literal["eigenmodes", "fourier"]] = "eigenmodes"
    needs_moments: ClassVar[bool] = False
    takes_gain: bool = True
    ends_at_data: ClassVar[bool] = True
    default_nodes: ClassVar[int] = 200

    def __init__(self, objective: Objective) -> None:
        self.objective = objective

    @abstractmethod
    def on(self, data: Any) -> Curves:
        """The curves of the family on data: variances of the modes, or moments if it :attr:`needs_moments`."""

    def gradient_flow(self) -> Self:
        """The same family in continuous time."""
        twin = copy.copy(self)
        twin.objective = replace(self.objective, discrete=False)
        return twin

    @property
    def nodes(self) -> int:
        """Noise levels at which the exact flow is evaluated without a closed form."""
        return self.objective.nodes or self.default_nodes

    def __repr__(self) -> str:
        """The objective's settings, then the family's own."""
        names = [name for name in inspect.signature(type(self)).parameters if name != "objective"]
        own = "".join(f", {name}={shown(getattr(self, name))}" for name in names if getattr(self, name) is not None)
        return f"{type(self).__name__}({self.objective.describe()}{own})"
