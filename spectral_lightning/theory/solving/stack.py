"""A stack of linear layers on one mode: how its gain follows the gradient, at any depth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectral_lightning.arguments import positive_integer
from spectral_lightning.theory.solving.descent import descend, flow, flow_limit, require_stable
from spectral_lightning.theory.solving.growth import balanced_growth

__all__ = ["Stack", "remaining_error"]

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

    def gain(self, initial: Array, target: Array, rate: Array, time: Array, *, discrete: bool) -> Array:
        """The gain q at ``time``, arguments broadcast; with ``discrete``, time counts steps of gradient descent.

        Raises:
            ValueError: for an initial gain the layers cannot have, and for descent that diverges.
        """
        if self.depth == 1:
            return np.asarray(target + (initial - target) * remaining_error(time, rate, discrete))
        if self.tied and self.depth % 2 == 0 and (initial < 0).any():
            raise ValueError(
                "`init` must be zero or more where an even number of layers is tied, got a gain below 0. A product like "
                "P P' has no negative gain."
            )
        if not discrete and self.layers is None:
            return balanced_growth(initial, target, self.clock(time, rate), self.depth)
        layers = self._split(initial)
        return self._descent(layers, target, rate, time) if discrete else self._flow(layers, target, rate, time)

    def clock(self, time: ArrayLike, rate: ArrayLike) -> Array:
        """``r L tau`` (tied: ``r L^2 tau``); a rate of zero stands still at time infinity too."""
        factor = self.depth**2 if self.tied else self.depth
        return _elapsed(np.asarray(time, np.float64), factor * np.asarray(rate, np.float64))

    def _split(self, initial: Array) -> Array:
        """Gains of the layers, ``[L, *cells]``; a negative product has its sign in the first of independent layers."""
        if self.layers is not None:
            return np.asarray(self.layers).reshape(-1, *(1,) * initial.ndim)
        size = np.broadcast_to(np.abs(initial) ** (1 / self.depth), (self.depth, *initial.shape)).copy()
        signed = slice(None) if self.tied else slice(1)
        size[signed] *= np.where(initial < 0, -1.0, 1.0)
        return size

    def _descent(self, layers: Array, target: Array, rate: Array, time: Array) -> Array:
        rate = rate * (self.depth if self.tied else 1)
        done = np.isinf(time)
        result = descend(layers, rate, target, np.where(done, 0.0, time))
        if not done.any():
            return result
        limit = flow_limit(layers, target)
        require_stable(np.abs(limit) ** (1 / self.depth) * np.ones(layers.shape), rate)
        return np.where(done, limit, result)

    def _flow(self, layers: Array, target: Array, rate: Array, time: Array) -> Array:
        """Unbalanced layers, from one time to the next where all cells share their times, else each to its own."""
        cells = np.broadcast_shapes(layers.shape[1:], target.shape, rate.shape)
        done = np.isinf(time)
        shared = all(1 in pair for pair in zip(time.shape[::-1], cells[::-1], strict=False))
        limit = np.where(rate > 0, flow_limit(layers, target), layers.prod(axis=0))
        if not shared:
            layers = flow(layers, target, np.where(done, 0.0, time) * rate)
            return np.where(done, limit, layers.prod(axis=0))
        result = np.empty(np.broadcast_shapes(cells, time.shape))
        before = 0.0
        for end in np.unique(time[~done]):
            layers = flow(layers, target, np.broadcast_to((end - before) * rate, cells))
            mask = np.broadcast_to(time == end, result.shape)
            result[mask] = np.broadcast_to(layers.prod(axis=0), result.shape)[mask]
            before = end
        return np.where(done, limit, result)


def _elapsed(time: Array, rate: Array) -> Array:
    """``rate tau``, zero where the rate is."""
    if (rate > 0).all():  # the usual case, several times as fast as under a mask
        return np.asarray(time * rate)
    t, r = np.broadcast_arrays(time, rate)
    return np.asarray(np.multiply(t, r, out=np.zeros(t.shape), where=r > 0))


def remaining_error(time: Array, rate: Array, discrete: bool) -> Array:
    """Share of the initial error of one layer that is left: ``exp(-r tau)``, or ``(1 - r)^tau`` for descent.

    A rate of zero leaves all of it, at infinity too.

    Raises:
        ValueError: for descent that diverges, and for times between the steps of descent that oscillates.
    """
    if not discrete:
        clock = _elapsed(time, rate)
        np.negative(clock, out=clock)
        return np.asarray(np.exp(clock, out=clock))
    t, r = np.broadcast_arrays(time, rate)
    if (rate >= 2).any():
        raise ValueError(
            "`learning_rate` must be lower for gradient descent to converge at every noise level and mode, got "
            f"{float(rate.max()) / 2:.3g} times the largest stable one. Lower it, precondition, or use gradient flow "
            "(discrete=False)."
        )
    base = 1 - r
    if (base < 0).any() and not (t == np.floor(t)).all():
        raise ValueError(
            "`time` must hold whole numbers of steps where descent oscillates (2 eta f (lambda + sigma^2) > 1). "
            "Lower the learning rate or use gradient flow (discrete=False)."
        )
    odd = np.mod(np.where(np.isfinite(t), t, 0.0), 2) == 1
    at_once = base == 0
    magnitude = np.where(at_once & (t > 0), 0.0, np.abs(np.where(at_once, 1.0, base)) ** t)
    return np.where((base < 0) & odd, -magnitude, magnitude)
