"""Several linear layers per noise level, ``D(z; sigma) = W_L .. W_1 z`` (WP appendix F)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectral_lightning.theory.dynamics import LearningDynamics, _outer
from spectral_lightning.theory.objective import Objective
from spectral_lightning.theory.preconditioning import Preconditioning
from spectral_lightning.theory.solving.sampled import wiener_gain
from spectral_lightning.theory.solving.stack import Stack

__all__ = ["DeepLinear"]

Array = NDArray[np.float64]


class DeepLinear(LearningDynamics):
    """Deep linear denoisers of any depth L, independent per noise level.

    With the gain q of the layers' product, ``psi = c_skip + c_out c_in q``, its optimum
    ``q* = (psi* - c_skip) / (c_out c_in)`` and ``f = weight (c_out c_in)^2`` times the noise density,

    ``dq/dtau = -2 eta f (lambda + sigma^2) m |q|^(2-2/L) (q - q*)``,

    ``m = L`` for independent layers and ``m = L^2`` for one layer used L times (``tied``: the gradient sums over its L
    uses, and a change of it enters L times). Depth 1 is :class:`OneLayer`; tied depth 2 is :class:`SymmetricTwoLayer`;
    depth 3 and more have an implicit solution only, which is tabulated to about 1e-11.

    A gain of 0 is a fixed point from depth 2 on: with ``init=0`` nothing is ever learnt. No balanced gain changes its
    sign, so that modes whose q* has the other sign than ``init`` decay to ``q = 0`` and stay there.

    Assumptions: zero mean of the data; layers aligned with the covariance and balanced, ``|w_i| = |q|^(1/L)``, unless
    their gains are given one by one: then each mode is integrated layer by layer, which is exact and slow. Full-batch
    gradients of the expected loss summed over coordinates.

    Reference: WP appendix F (independent, balanced); tied layers, unbalanced layers and preconditioning are beyond WP.

    Args:
        learning_rate: eta, of a loss summed over the coordinates.
        init: gain of the product of the layers before training (Q), or one gain per layer.
        depth: number of layers L.
        tied: whether all layers are one; an even number of tied layers has no negative gain.
        preconditioning: how the layers become a denoiser and how their loss is weighted; none if not given.
        sigma_min: where the exact flow ends.
        sigma_max: where the exact flow starts.
        noise_density: multiplies the rate at each noise level: the probability of a level where levels are discrete; a
            density where they are not, whose variable (sigma or log sigma) then has to be stated.
        discrete: gradient descent with ``time`` counting steps, taken one by one, instead of gradient flow.
        nodes: quadrature nodes of the exact flow.

    Raises:
        ValueError: for an argument out of range; from the methods, for descent that diverges.

    Example:
        >>> theory = DeepLinear(learning_rate=1e-3, init=0.1, depth=3)
        >>> theory.weight([0.0, 1e2, np.inf], 1.0, 1.0).round(4)
        array([0.1   , 0.1251, 0.5   ])
    """

    def __init__(
        self,
        learning_rate: float,
        init: float | Sequence[float] = 0.1,
        depth: int = 2,
        tied: bool = False,
        preconditioning: Preconditioning | None = None,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        noise_density: Callable[[Any], Any] | None = None,
        discrete: bool = False,
        nodes: int = 200,
    ) -> None:
        super().__init__(learning_rate, sigma_min, sigma_max, nodes)
        if not np.isfinite(init).all():
            raise ValueError(f"`init` must be a finite number, or one per layer, got {init!r}.")
        layers = None if isinstance(init, int | float) else tuple(float(gain) for gain in init)
        self.stack = Stack(depth, tied, layers)
        self.init = float(np.prod(init))
        self.preconditioning = preconditioning or Preconditioning("none")
        self.noise_density = noise_density
        self.objective = Objective(learning_rate, self.preconditioning, noise_density)
        self.discrete = discrete

    @property
    def depth(self) -> int:
        """Number of layers."""
        return self.stack.depth

    @property
    def tied(self) -> bool:
        """Whether all layers are one."""
        return self.stack.tied

    @property
    def longest_descent(self) -> float:
        """The most steps the discrete recursion is followed for."""
        return 1e5 if self.depth > 1 else super().longest_descent

    def weight(
        self, time: ArrayLike, sigma: ArrayLike, variance: ArrayLike, initial_gain: ArrayLike | None = None
    ) -> Array:
        """Gain psi of the denoiser, ``[*time, *sigma, *variance]``; see :meth:`LearningDynamics.weight`.

        Raises:
            ValueError: also for an ``initial_gain`` that the layers cannot have: a product of an even number of tied
                layers is not negative, and one gain does not tell the gains of unbalanced layers apart.
        """
        if initial_gain is not None and self.stack.layers is not None:
            raise ValueError(
                "`initial_gain` must not be given with unbalanced layers, whose gains it does not tell apart. Give "
                "`init` as one number."
            )
        return super().weight(time, sigma, variance, initial_gain)

    def rate(self, sigma: ArrayLike, variance: ArrayLike) -> Array:
        """Relaxation rate per unit of time near the optimum, ``2 eta f (lambda + sigma^2) m |q*|^(2-2/L)``.

        Shape ``[*sigma, *variance]``; descent from a small gain converges where it is below 2 everywhere.
        """
        s, lam = _outer(*self._checked(sigma=sigma, variance=variance))
        target = self._target(s, lam)
        clock = self.stack.clock(1.0, self.objective.rate(s, lam + s**2))
        return np.asarray(clock * np.abs(target) ** (2 - 2 / self.depth))

    def _target(self, sigma: Array, variance: Array) -> Array:
        return self.objective.network_gain(sigma, wiener_gain(sigma, variance))

    def _initial(self, sigma: Array, variance: Array) -> Array:
        return self.objective.output_gain(sigma, self.init)

    def _weight(self, time: Array, sigma: Array, variance: Array, initial: Array) -> Array:
        start = self.objective.network_gain(sigma, initial)
        rate = self.objective.rate(sigma, variance + sigma**2)
        gain = self.stack.gain(start, self._target(sigma, variance), rate, time, discrete=self.discrete)
        return self.objective.output_gain(sigma, gain)
