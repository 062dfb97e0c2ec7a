"""Gradient descent on a stack of linear layers, step by step.

The layers of one mode at one noise level are the gains ``w_1 .. w_L``, arrays ``[L, *cells]``; ``q = w_1 .. w_L``. With
``rate = 2 eta p w a^2 e`` of :class:`~spectral_lightning.theory.objective.Objective` their gradient is
``rate (q - q*) prod_{j != i} w_j``, L times that where all layers are one and the same.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["descend", "descent_limit", "require_stable"]

Array = NDArray[np.float64]

_MOST_STEPS = 100_000


def _others(layers: Array) -> Array:
    """Product of all layers but one, ``[L, *cells]``; exact where a layer is zero."""
    left, right = np.ones(layers.shape), np.ones(layers.shape)
    for i in range(1, len(layers)):
        left[i] = left[i - 1] * layers[i - 1]
        right[-1 - i] = right[-i] * layers[-i]
    return np.asarray(left * right)


def descend(layers: Array, rate: Array, target: Array, steps: Array) -> Array:
    """Product of the layers after whole numbers of descent steps, arguments broadcast against ``layers[0]``.

    Raises:
        ValueError: for steps that are not whole or too many to be taken one by one, and for descent that diverges.
    """
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
        require_stable(w, rate)
    return result


def require_stable(layers: Array, rate: Array) -> None:
    """Raise where the layers have gone to infinity, or to where a further step moves them away again."""
    with np.errstate(over="ignore", invalid="ignore"):
        sharpness = rate * (_others(layers) ** 2).sum(axis=0)
    if not (np.isfinite(layers).all() and (sharpness < 2).all()):
        raise ValueError(
            "`learning_rate` must be lower for gradient descent on these layers to converge at every noise level and "
            "mode: a step overshoots its optimum by more than it was away from it. Lower it, precondition, or use "
            "gradient flow (discrete=False)."
        )


def descent_limit(layers: Array, target: Array) -> Array:
    """Where stable descent ends: at the target, unless that lies across a saddle.

    The differences ``w_i^2 - w_j^2`` hardly change. So the product can pass through zero only if one layer alone is the
    smallest.
    """
    size, q = np.abs(layers), layers.prod(axis=0)
    free = (size == size.min(axis=0)).sum(axis=0) == 1
    return np.asarray(np.where(free | (q * target > 0), target, 0.0))
