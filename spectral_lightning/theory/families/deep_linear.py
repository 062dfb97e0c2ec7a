"""Several linear layers per noise level, ``D(z; sigma) = W_L .. W_1 z`` (WP appendix F)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from spectral_lightning.arguments import finite
from spectral_lightning.theory.modewise import ModewiseDynamics
from spectral_lightning.theory.objective import Objective
from spectral_lightning.theory.solving.generation import wiener_gain
from spectral_lightning.theory.solving.stack import Stack

__all__ = ["DeepLinear"]

Array = NDArray[np.float64]


class DeepLinear(ModewiseDynamics):
    """Deep linear denoisers of any depth L, independent per noise level.

    With the gain q of the layers' product, ``psi = c_skip + c_out c_in q``, its optimum
    ``q* = (psi* - c_skip) / (c_out c_in)`` and ``f = weight (c_out c_in)^2`` times the noise density,

    ``dq/dtau = -2 eta f (lambda + sigma^2) m |q|^(2-2/L) (q - q*)``,

    ``m = L`` for independent layers and ``m = L^2`` for one layer used L times (``tied``: the gradient sums over its L
    uses, and a change of it enters L times). Depth 1 is :class:`OneLayer`; tied depth 2 is :class:`SymmetricTwoLayer`;
    depth 3 and more have an implicit solution only, which is tabulated to about 1e-11.

    A gain of 0 is a fixed point from depth 2 on: with ``init=0`` nothing is ever learnt. No balanced gain changes its
    sign, so modes with q* and ``init`` of opposite signs decay to ``q = 0`` and stay there.

    Assumptions: zero mean of the data; layers aligned with the covariance and balanced, ``|w_i| = |q|^(1/L)``, unless
    their gains are given one by one, which discrete descent follows layer by layer. Full-batch gradients of the expected
    loss summed over coordinates.

    Reference: WP appendix F (independent, balanced); tied layers, unbalanced layers and preconditioning are beyond WP.

    Args:
        objective: learning rate, preconditioning, and how the loss is descended: discrete steps are taken one by one.
        init: gain of the product of the layers before training (Q), or, for discrete descent, one gain per layer.
        depth: number of layers L.
        tied: whether one layer is used L times; an even number of tied layers has no negative gain.

    Raises:
        ValueError: for an argument out of range; from the curves, for descent that diverges, gradient flow of unbalanced
            layers, and an ``initial_gain`` the layers cannot have: one below 0 if an even number of layers is tied, any
            if the layers are unbalanced.

    Example:
        >>> theory = DeepLinear(Objective(learning_rate=1e-3), init=0.1, depth=3)
        >>> theory.on(1.0).weight([0.0, 1e2, np.inf], 1.0).round(4)
        array([0.1   , 0.1251, 0.5   ])
    """

    def __init__(
        self, objective: Objective, init: float | Sequence[float] = 0.1, depth: int = 2, tied: bool = False
    ) -> None:
        super().__init__(objective)
        gains = tuple(finite("init", gain) for gain in np.atleast_1d(np.asarray(init, np.float64)))
        self.init = gains if np.ndim(init) else gains[0]
        self.depth, self.tied = depth, tied
        self.stack = Stack(depth, tied, gains if np.ndim(init) else None)
        self.takes_gain = not np.ndim(init)  # one gain does not determine those of unbalanced layers

    def gain(self, time: Array, sigma: Array, variance: Array, initial: Array) -> Array:
        """Gain of the denoiser, arguments broadcast."""
        start = self.objective.network_gain(sigma, initial)
        target = self.objective.network_gain(sigma, wiener_gain(sigma, variance))
        rate = self.rate(sigma, variance)
        return self.objective.output_gain(sigma, self.stack.gain(self.objective, start, target, rate, time))
