"""A stack of linear layers on one mode: how its gain follows the gradient, at any depth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spectral_lightning.arguments import positive_integer
from spectral_lightning.theory.objective import Objective
from spectral_lightning.theory.solving.descent import descend, descent_limit, require_stable
from spectral_lightning.theory.solving.growth import balanced_growth, elapsed

__all__ = ["Stack"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Stack:
    """The gain ``q = w_1 .. w_L`` of L layers under ``L(q)`` with optimum ``q*`` and rate r.

    ``dw_i/dtau = -r (q - q*) prod_{j != i} w_j``. Balanced layers, ``|w_i| = |q|^(1/L)``, stay balanced and give
    ``dq/dtau = -r L |q|^(2-2/L) (q - q*)``; one layer used L times (tied) has L times that rate, because its gradient
    and its effect both count L times.

    Args:
        depth: L.
        tied: whether all layers are one.
        layers: gains of unbalanced layers before training; balanced if not given.

    Raises:
        ValueError: for a depth below 1, or unbalanced layers that are tied or not ``depth`` in number.
    """

    depth: int = 1
    tied: bool = False
    layers: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        positive_integer("depth", self.depth)
        if self.layers is not None and (self.tied or len(self.layers) != self.depth):
            raise ValueError(
                f"`init` must hold one gain per layer, {self.depth} of them, and only independent layers can have "
                f"different ones, got {self.layers!r} with tied={self.tied!r}."
            )

    def gain(self, objective: Objective, initial: Array, target: Array, rate: Array, time: Array) -> Array:
        """The gain q at ``time``, arrays broadcast; ``rate`` is that of one layer.

        Raises:
            ValueError: for an initial gain the layers cannot have, descent that diverges, and unbalanced gradient flow.
        """
        if self.depth == 1:
            return np.asarray(target + (initial - target) * objective.remaining(time, rate))
        if self.tied and self.depth % 2 == 0 and (initial < 0).any():
            raise ValueError(
                "`init` must be zero or more where an even number of layers is tied, got a gain below 0. A product like "
                "P P' has no negative gain."
            )
        if objective.discrete:
            return self._descent(self._split(initial), target, rate * (self.depth if self.tied else 1), time)
        if self.layers is not None:
            raise ValueError(
                f"`init` must be one number under gradient flow, got {self.layers!r}: only balanced layers have a known "
                "solution. Follow unbalanced ones step by step (discrete=True)."
            )
        factor = self.depth**2 if self.tied else self.depth
        return balanced_growth(initial, target, elapsed(time, factor * rate), self.depth)

    def _split(self, initial: Array) -> Array:
        """Gains of the layers, ``[L, *cells]``; a negative product has its sign in the first of independent layers."""
        if self.layers is not None:
            return np.asarray(self.layers).reshape(-1, *(1,) * initial.ndim)
        size = np.broadcast_to(np.abs(initial) ** (1 / self.depth), (self.depth, *initial.shape)).copy()
        signed = slice(None) if self.tied else slice(1)
        size[signed] *= np.where(initial < 0, -1.0, 1.0)
        return size

    def _descent(self, layers: Array, target: Array, rate: Array, time: Array) -> Array:
        done = np.isinf(time)
        result = descend(layers, rate, target, np.where(done, 0.0, time))
        if not done.any():
            return result
        limit = descent_limit(layers, target)
        require_stable(np.abs(limit) ** (1 / self.depth) * np.ones(layers.shape), rate)
        return np.where(done, limit, result)
