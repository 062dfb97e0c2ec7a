"""A stack of linear layers on one mode: how its gain follows the gradient, at any depth.

The layers of one mode at one noise level are the gains ``w_1 .. w_L``, arrays ``[L, *cells]``; ``q = w_1 .. w_L``. With
``rate = 2 eta p w a^2 e`` of :class:`~spectral_lightning.theory.objective.Objective` their gradient is
``rate (q - q*) prod_{j != i} w_j``, or L times that if the layers are tied.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spectral_lightning.arguments import positive_integer
from spectral_lightning.theory.objective import Objective
from spectral_lightning.theory.solving.growth import balanced_growth, elapsed

__all__ = ["Stack"]

Array = NDArray[np.float64]

_MOST_STEPS = 100_000


@dataclass(frozen=True)
class Stack:
    """The gain ``q = w_1 .. w_L`` of L layers under ``L(q)`` with optimum ``q*`` and rate r.

    ``dw_i/dtau = -r (q - q*) prod_{j != i} w_j``. Balanced layers, ``|w_i| = |q|^(1/L)``, stay balanced and give
    ``dq/dtau = -r L |q|^(2-2/L) (q - q*)``; one layer used L times (tied) has L times that rate, because its gradient
    and its effect both count L times.

    Args:
        depth: L.
        tied: whether one layer is used L times.
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
        """The gain q at ``time``, arrays broadcast; ``rate`` is the rate of a single layer.

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
            return _descend(self._split(initial), target, rate * (self.depth if self.tied else 1), time)
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


def _others(layers: Array) -> Array:
    """Product of all layers but one, ``[L, *cells]``; exact where a layer is zero."""
    left, right = np.ones(layers.shape), np.ones(layers.shape)
    for i in range(1, len(layers)):
        left[i] = left[i - 1] * layers[i - 1]
        right[-1 - i] = right[-i] * layers[-i]
    return np.asarray(left * right)


def _descend(layers: Array, target: Array, rate: Array, time: Array) -> Array:
    """Product of the layers after whole numbers of descent steps or at the end, broadcast against ``layers[0]``.

    Raises:
        ValueError: for steps that are not whole or too many to be taken one by one, and for descent that diverges.
    """
    done = np.isinf(time)
    steps = np.where(done, 0.0, time)
    if not (steps == np.floor(steps)).all() or steps.max(initial=0) > _MOST_STEPS:
        raise ValueError(
            f"`time` must hold whole numbers of steps up to {_MOST_STEPS} where descent is followed step by step, got "
            f"up to {steps.max(initial=0)!r}. Use gradient flow (discrete=False)."
        )
    shape = np.broadcast_shapes(layers.shape[1:], rate.shape, target.shape)
    w = np.broadcast_to(layers, (len(layers), *shape)).copy()
    result = np.empty(np.broadcast_shapes(shape, steps.shape))
    taken = 0
    for wanted in np.unique(steps):
        with np.errstate(over="ignore", invalid="ignore"):
            for _ in range(taken, int(wanted)):
                w -= rate * (w.prod(axis=0) - target) * _others(w)
        taken = int(wanted)
        mask = np.broadcast_to(steps == wanted, result.shape)
        result[mask] = np.broadcast_to(w.prod(axis=0), result.shape)[mask]
        _require_stable(w, rate)
    if not done.any():
        return result
    # Stable descent ends at the target, unless that lies across a saddle: the differences w_i^2 - w_j^2 hardly change, so
    # the product can pass through zero only if one layer alone is the smallest.
    size = np.abs(layers)
    free = (size == size.min(axis=0)).sum(axis=0) == 1
    limit = np.where(free | (layers.prod(axis=0) * target > 0), target, 0.0)
    _require_stable(np.abs(limit) ** (1 / len(layers)) * np.ones(layers.shape), rate)
    return np.where(done, limit, result)


def _require_stable(layers: Array, rate: Array) -> None:
    """Raise if the layers have diverged, or have reached an optimum that a further step would leave again."""
    with np.errstate(over="ignore", invalid="ignore"):
        sharpness = rate * (_others(layers) ** 2).sum(axis=0)
    if not (np.isfinite(layers).all() and (sharpness < 2).all()):
        raise ValueError(
            "`learning_rate` must be lower for gradient descent on these layers to converge at every noise level and "
            "mode: a step overshoots its optimum by more than it was away from it. Lower it, precondition, or use "
            "gradient flow (discrete=False)."
        )
