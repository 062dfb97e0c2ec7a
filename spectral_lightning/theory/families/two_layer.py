"""Two tied linear layers per noise level, ``D(z; sigma) = P_sigma P_sigma' z`` (WP proposition 5.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectral_lightning.theory.families.deep_linear import DeepLinear
from spectral_lightning.theory.preconditioning import Preconditioning

__all__ = ["SymmetricTwoLayer"]

Array = NDArray[np.float64]


class SymmetricTwoLayer(DeepLinear):
    """Symmetric two-layer denoisers ``P P'``, independent per noise level.

    ``psi(tau) = psi* Q / ((psi* - Q) E + Q)``, ``E = exp(-8 eta tau lambda)``, ``psi* = lambda / (lambda + sigma^2)``,

    and through the exact flow, with ``c = (1 - E) / lambda`` and ``n = E + (1 - E) Q``,

    ``log lambda~ = 2 log sigma_T - 2 (1-Q) E/n log(sigma_T/sigma_0) - Q/n log[(n + Q c sigma_T^2) / (n + Q c sigma_0^2)]``.

    At ``lambda = 0``: ``E = 1``, ``c = 8 eta tau``. With preconditioning, weights or a noise density the same logistic
    equation holds in the gain q of the network, with rate ``8 eta f (lambda + sigma^2) q*`` (see :class:`DeepLinear`),
    and the quadrature serves; modes with ``q* < 0`` are never learnt.

    ``Q = 0`` is a fixed point: nothing is ever learnt. By the harmonic criterion the *weight* emerges at
    ``ln 2 / (8 eta lambda)``, whatever Q.

    Assumptions: zero mean of the data, P P' aligned with its covariance, ``Q >= 0``, full-batch gradients of the expected
    loss summed over coordinates.

    Reference: WP proposition 5.1; preconditioning, noise density and the limits are beyond WP.

    Args:
        learning_rate: eta, of a loss summed over the coordinates.
        init: gain of P P' before training (Q, or q under preconditioning), zero or more.
        preconditioning: how P P' becomes a denoiser and how its loss is weighted; none if not given.
        sigma_min: where the exact flow ends.
        sigma_max: where the exact flow starts.
        noise_density: multiplies the rate at each noise level, as for :class:`OneLayer`.
        discrete: gradient descent on P with ``time`` counting steps, taken one by one, instead of gradient flow.
        nodes: quadrature nodes, used where no closed form exists.

    Raises:
        ValueError: for an argument out of range; from the methods, for descent that diverges.

    Example:
        >>> theory = SymmetricTwoLayer(learning_rate=1e-3, init=0.1)
        >>> theory.weight([0.0, np.log(2) / 8e-3, np.inf], 1.0, 1.0).round(4)  # harmonic mean of 0.1 and 0.5 between
        array([0.1   , 0.1667, 0.5   ])
    """

    def __init__(
        self,
        learning_rate: float,
        init: float = 0.1,
        preconditioning: Preconditioning | None = None,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        noise_density: Callable[[Any], Any] | None = None,
        discrete: bool = False,
        nodes: int = 200,
    ) -> None:
        if not init >= 0:
            raise ValueError(f"`init` must be a number of zero or more, got {init!r}. P P' has no negative gain.")
        super().__init__(
            learning_rate, float(init), 2, True, preconditioning, sigma_min, sigma_max, noise_density, discrete, nodes
        )

    @property
    def closed_form(self) -> bool:
        """Whether the exact flow has a closed form, or needs the quadrature."""
        return self.objective.plain and not self.discrete

    def _log_flow(self, time: Array, variance: Array) -> Array:
        if not self.closed_form:
            return super()._log_flow(time, variance)
        low, high, q = self.sigma_min, self.sigma_max, self.init
        t, lam = np.broadcast_arrays(8 * self.learning_rate * time, variance)
        if q == 0:
            return np.full(t.shape, 2 * np.log(low))
        exponent = np.multiply(t, lam, out=np.zeros(t.shape), where=lam > 0)
        decay, learnt = np.exp(-exponent), -np.expm1(-exponent)
        # By 1/c, which at time infinity is 0 for a null mode, where c itself is infinite.
        with np.errstate(divide="ignore"):
            inverse = 1 / np.divide(learnt, lam, out=t.copy(), where=lam > 0)
        total = decay + learnt * q
        ratio = np.log1p(q * (high**2 - low**2) / (total * inverse + q * low**2))
        return np.asarray(2 * np.log(high) - 2 * (1 - q) * decay / total * np.log(high / low) - q / total * ratio)
