"""Layer by layer, where there is no closed form: gradient descent step by step, and unbalanced gradient flow.

The layers of one mode at one noise level are the gains ``w_1 .. w_L``, arrays ``[L, *cells]``; ``q = w_1 .. w_L``. With
``rate = 2 eta p w a^2 e`` of :class:`~spectral_lightning.theory.objective.Objective` their gradient is
``rate (q - q*) prod_{j != i} w_j``, L times that where all layers are one and the same.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["descend", "flow", "flow_limit", "require_stable"]

Array = NDArray[np.float64]

_TOLERANCE = 1e-11  # of a step of the flow, relative to the largest layer
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


def flow_limit(layers: Array, target: Array) -> Array:
    """Where the flow of unbalanced layers ends: at the target, unless that lies across a saddle.

    The differences ``w_i^2 - w_j^2`` never change. The product can pass through zero only where one layer alone is the
    smallest.
    """
    size, q = np.abs(layers), layers.prod(axis=0)
    free = (size == size.min(axis=0)).sum(axis=0) == 1
    return np.asarray(np.where(free | (q * target > 0), target, 0.0))


def flow(layers: Array, target: Array, clock: Array) -> Array:
    """Layers ``[L, *cells]`` after ``clock = rate tau`` of gradient flow ``dw_i/ds = (q* - q) prod_{j != i} w_j``.

    Embedded Runge-Kutta 5(4) of Dormand & Prince with a step of its own in every cell. A cell near its target goes the
    rest of the way by the linear solution, so that the late, stiff part costs nothing.
    """
    cells = np.broadcast_shapes(layers.shape[1:], target.shape, clock.shape)
    w = np.broadcast_to(layers, (len(layers), *cells)).reshape(len(layers), -1).copy()
    goal, left = (np.broadcast_to(a, cells).reshape(-1).copy() for a in (target, clock))
    with np.errstate(divide="ignore"):
        step = np.minimum(left, 1e-3 / _speed(w, goal))
    active = np.flatnonzero(left > 0)
    while active.size:
        h = np.minimum(step[active], left[active])
        ahead, error = _dormand_prince(w[:, active], goal[active], h)
        good = error <= 1
        moved = active[good]
        w[:, moved] = ahead[:, good]
        left[moved] -= h[good]
        step[active] = h * np.clip(0.9 * np.maximum(error, 1e-10) ** -0.2, 0.2, 5.0)
        late = _finish(w[:, active], goal[active], left[active])
        w[:, active[late[1]]] = late[0][:, late[1]]
        active = active[(left[active] > 0) & ~late[1]]
    return w.reshape(len(layers), *cells)


def _finish(layers: Array, target: Array, left: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Where the linear solution takes the layers, and the cells in which it is exact to rounding.

    Also done are cells at a saddle that their target lies beyond: two layers have died out together.
    """
    others = _others(layers)
    speed = (others**2).sum(axis=0)
    missing = target - layers.prod(axis=0)
    safe = np.maximum(speed, 1e-280)
    change = others * (missing / safe * -np.expm1(-safe * left))
    near = (np.abs(others * missing / safe) <= 1e-8 * np.abs(layers).max(axis=0)).all(axis=0)
    stuck = (speed < 1e-60) & (layers.prod(axis=0) * target <= 0)
    return layers + np.where(stuck, 0.0, change), (near | stuck) & (left > 0)


def _speed(layers: Array, target: Array) -> Array:
    """A rate the layers change at, for the first step and against a step of infinite length."""
    largest = np.abs(layers).max(axis=0) + np.abs(target) ** (1 / len(layers))
    return np.asarray((np.abs(layers.prod(axis=0)) + np.abs(target)) * largest ** (len(layers) - 2))


_STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


def _dormand_prince(w: Array, target: Array, h: Array) -> tuple[Array, Array]:
    """One step, and its error in units of the tolerance."""

    def slope(at: Array) -> Array:
        return np.asarray((target - at.prod(axis=0)) * _others(at) * h)

    slopes, ahead = [slope(w)], w
    for row in _STAGES:
        ahead = w + sum(a * k for a, k in zip(row, slopes, strict=True))
        slopes.append(slope(ahead))
    error = sum(e * k for e, k in zip(_ERROR, slopes, strict=True))
    scale = _TOLERANCE * np.maximum(np.abs(w), np.abs(ahead))
    scale = scale + 1e-3 * scale.max(axis=0) + 1e-300
    return np.asarray(ahead), np.asarray((np.abs(error) / scale).max(axis=0))
