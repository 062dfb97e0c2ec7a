"""One linear layer per noise level, ``D(z; sigma) = W_sigma z + b_sigma`` (WP section 4.2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import exp1

from spectral_lightning.arguments import finite
from spectral_lightning.theory.dynamics import checked, outer
from spectral_lightning.theory.modewise import ModeCurves, ModewiseDynamics
from spectral_lightning.theory.objective import Objective
from spectral_lightning.theory.solving.generation import wiener_gain

__all__ = ["OneLayer", "OneLayerCurves"]

Array = NDArray[np.float64]


class OneLayer(ModewiseDynamics):
    """Independent linear denoisers per noise level, learnt by gradient flow or plain gradient descent.

    ``psi(tau) = psi* + (psi(0) - psi*) exp(-2 eta f (lambda + sigma^2) tau)``, ``psi* = lambda / (lambda + sigma^2)``,

    or ``(1 - 2 eta f (lambda + sigma^2))^tau`` instead of the exponential for discrete descent. Without
    preconditioning ``f = 1`` and ``psi(0) = init``; with it ``psi(0) = c_skip + c_out c_in init`` and
    ``f = weight (c_out c_in)^2``; a noise density multiplies f.

    Assumptions: zero mean of the data, weights independent between noise levels, initial weights that commute with the
    covariance, full-batch gradients of the expected loss summed over coordinates.

    Reference: WP section 4.2, proposition 4.2; preconditioning and noise density are beyond WP.

    Args:
        objective: learning rate, preconditioning, and how the loss is descended.
        init: gain of the linear layer before training (Q, or q under preconditioning).

    Raises:
        ValueError: for an argument out of range; from the curves, for descent that diverges.

    Example:
        >>> curves = OneLayer(Objective(learning_rate=1e-3)).on([1.0, 4.0])
        >>> curves.weight(0.0, 1.0), curves.weight(np.inf, 1.0)
        (array([0., 0.]), array([0.5, 0.8]))
    """

    init: float
    closed_flow = True
    takes_response = True

    def __init__(self, objective: Objective, init: float = 0.0) -> None:
        super().__init__(objective)
        self.init = finite("init", init)

    def on(self, data: ArrayLike) -> OneLayerCurves:
        """The curves of modes with these variances, of any shape."""
        return OneLayerCurves(self, data)

    def gain(self, time: Array, sigma: Array, variance: Array, initial: Array) -> Array:
        """Gain of the denoiser, arguments broadcast."""
        optimum = wiener_gain(sigma, variance)
        return np.asarray(optimum + (initial - optimum) * self.objective.remaining(time, self.rate(sigma, variance)))

    def _closed_flow(self, time: Array, variance: Array) -> Array:
        low, high, q = self.objective.sigma_min**2, self.objective.sigma_max**2, self.init
        t, lam = 2 * self.objective.learning_rate * time, variance
        # The exponential integral runs from infinity at time 0 to 0 at time infinity; both ends have their own form.
        inside = np.where((t > 0) & np.isfinite(t), t, 1.0)
        done = np.log((lam + low) / (lam + high))
        start = (1 - q) * np.exp(-inside * lam) * (_e1(inside * high) - _e1(inside * low))
        moving = done + start - (_e1(inside * (lam + high)) - _e1(inside * (lam + low)))
        untrained = (1 - q) * np.log(low / high)
        return np.asarray(np.log(high) + np.where(t == 0, untrained, np.where(np.isinf(t), done, moving)))


class OneLayerCurves(ModeCurves):
    """Curves of one layer, whose rates are known in closed form."""

    family: OneLayer

    def stable_learning_rate(self, sigma: ArrayLike) -> float:
        """Largest learning rate at which descent converges at all these levels and modes: ``1 / max f (lambda+sigma^2)``.

        1.56e-4 without preconditioning at sigma = 80.
        """
        rate = self.family.rate(*outer(*checked(sigma=sigma), self.variance))
        return float(2 * self.objective.learning_rate / rate.max())


def _e1(x: Array) -> Array:
    """Exponential integral of positive arguments; beyond 40 it is below 1e-19 and lost in the rounding of the sum."""
    result, near = np.zeros(x.shape), x < 40
    result[near] = exp1(x[near])
    return result
