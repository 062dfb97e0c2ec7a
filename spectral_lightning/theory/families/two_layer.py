"""Two tied linear layers per noise level, ``D(z; sigma) = P_sigma P_sigma' z`` (WP proposition 5.1)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spectral_lightning.arguments import non_negative
from spectral_lightning.theory.families.deep_linear import DeepLinear
from spectral_lightning.theory.objective import Objective

__all__ = ["SymmetricTwoLayer"]

Array = NDArray[np.float64]


class SymmetricTwoLayer(DeepLinear):
    """Symmetric two-layer denoisers ``P P'``, independent per noise level.

    ``psi(tau) = psi* Q / ((psi* - Q) E + Q)``, ``E = exp(-8 eta tau lambda)``, ``psi* = lambda / (lambda + sigma^2)``,

    and through the exact flow, with ``c = (1 - E) / lambda`` and ``n = E + (1 - E) Q``,

    ``log lambda~ = 2 log sigma_T - 2 (1-Q) E/n log(sigma_T/sigma_0) - Q/n log[(n + Q c sigma_T^2) / (n + Q c sigma_0^2)]``.

    At ``lambda = 0``: ``E = 1``, ``c = 8 eta tau``. With preconditioning, weights or a noise density the same logistic
    equation holds in the gain q of the network, with rate ``8 eta f (lambda + sigma^2) q*`` (see :class:`DeepLinear`),
    and the flow is a quadrature; modes with ``q* < 0`` are never learnt.

    ``Q = 0`` is a fixed point: nothing is ever learnt. By the harmonic criterion the *weight* emerges at
    ``ln 2 / (8 eta lambda)``, whatever Q.

    Assumptions: zero mean of the data, P P' aligned with its covariance, ``Q >= 0``, full-batch gradients of the expected
    loss summed over coordinates.

    Reference: WP proposition 5.1; preconditioning, noise density and the limits are beyond WP.

    Args:
        objective: learning rate, preconditioning, and how the loss is descended: discrete steps of P are taken one by one.
        init: gain of P P' before training (Q, or q under preconditioning), zero or more.

    Raises:
        ValueError: for an argument out of range; from the curves, for descent that diverges.

    Example:
        >>> curves = SymmetricTwoLayer(Objective(learning_rate=1e-3), init=0.1).on(1.0)
        >>> curves.weight([0.0, np.log(2) / 8e-3, np.inf], 1.0).round(4)  # harmonic mean of 0.1 and 0.5 between
        array([0.1   , 0.1667, 0.5   ])
    """

    init: float
    closed_flow = True

    def __init__(self, objective: Objective, init: float = 0.1) -> None:
        gain = non_negative("init", init, remedy="P P' has no negative gain.")
        super().__init__(objective, gain, depth=2, tied=True)

    def _closed_flow(self, time: Array, variance: Array) -> Array:
        low, high, q = self.objective.sigma_min, self.objective.sigma_max, self.init
        t, lam = np.broadcast_arrays(8 * self.objective.learning_rate * time, variance)
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
