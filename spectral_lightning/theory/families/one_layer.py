"""One linear layer per noise level, ``D(z; sigma) = W_sigma z + b_sigma`` (WP section 4.2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import exp1

from spectral_lightning.theory.dynamics import LearningDynamics, _outer
from spectral_lightning.theory.objective import Objective
from spectral_lightning.theory.preconditioning import Preconditioning
from spectral_lightning.theory.solving.sampled import wiener_gain
from spectral_lightning.theory.solving.stack import remaining_error

__all__ = ["OneLayer"]

Array = NDArray[np.float64]


class OneLayer(LearningDynamics):
    """Independent linear denoisers per noise level, learnt by gradient flow or plain gradient descent.

    ``psi(tau) = psi* + (psi(0) - psi*) exp(-2 eta f (lambda + sigma^2) tau)``, ``psi* = lambda / (lambda + sigma^2)``,

    or ``(1 - 2 eta f (lambda + sigma^2))^tau`` in place of the exponential for ``discrete=True``. Without
    preconditioning ``f = 1`` and ``psi(0) = init``; with it ``psi(0) = c_skip + c_out c_in init`` and
    ``f = weight (c_out c_in)^2``; a noise density multiplies f.

    Assumptions: zero mean of the data, weights independent between noise levels, initial weights that commute with the
    covariance, full-batch gradients of the expected loss summed over coordinates.

    Reference: WP section 4.2, proposition 4.2; preconditioning and noise density are beyond WP.

    Args:
        learning_rate: eta, of a loss summed over the coordinates.
        init: gain of the linear layer before training (Q, or q under preconditioning).
        preconditioning: how the layer becomes a denoiser and how its loss is weighted; none if not given.
        sigma_min: where the exact flow ends.
        sigma_max: where the exact flow starts.
        noise_density: multiplies the rate at each noise level: the probability of a level where levels are discrete; a
            density where they are not, whose variable (sigma or log sigma) then has to be stated.
        discrete: gradient descent with ``time`` counting steps, instead of gradient flow.
        nodes: quadrature nodes, used where no closed form exists.

    Raises:
        ValueError: for an argument out of range; from the methods, for descent that diverges.

    Example:
        >>> theory = OneLayer(learning_rate=1e-3, init=0.0)
        >>> theory.weight(0.0, 1.0, 1.0), theory.weight(np.inf, 1.0, 1.0)
        (array(0.), array(0.5))
    """

    def __init__(
        self,
        learning_rate: float,
        init: float = 0.0,
        preconditioning: Preconditioning | None = None,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        noise_density: Callable[[Any], Any] | None = None,
        discrete: bool = False,
        nodes: int = 200,
    ) -> None:
        super().__init__(learning_rate, sigma_min, sigma_max, nodes)
        if not np.isfinite(init):
            raise ValueError(f"`init` must be a finite number, got {init!r}.")
        self.init = float(init)
        self.preconditioning = preconditioning or Preconditioning("none")
        self.noise_density = noise_density
        self.objective = Objective(learning_rate, self.preconditioning, noise_density)
        self.discrete = discrete

    @property
    def closed_form(self) -> bool:
        """Whether the exact flow has the exponential-integral form, or needs the quadrature."""
        return self.objective.plain and not self.discrete

    def rate(self, sigma: ArrayLike, variance: ArrayLike) -> Array:
        """Relaxation rate per unit of time, ``2 eta f (lambda + sigma^2)``, ``[*sigma, *variance]``."""
        return self._rate(*_outer(*self._checked(sigma=sigma, variance=variance)))

    def stable_learning_rate(self, sigma: ArrayLike, variance: ArrayLike) -> float:
        """Largest learning rate at which descent converges at all these levels and modes: ``1 / max f (lambda+sigma^2)``.

        1.56e-4 without preconditioning at sigma = 80.
        """
        return float(2 * self.learning_rate / self.rate(sigma, variance).max())

    def _rate(self, sigma: Array, variance: Array) -> Array:
        return self.objective.rate(sigma, variance + sigma**2)

    def _initial(self, sigma: Array, variance: Array) -> Array:
        return self.objective.output_gain(sigma, self.init)

    def _weight(self, time: Array, sigma: Array, variance: Array, initial: Array) -> Array:
        optimum = wiener_gain(sigma, variance)
        error = (initial - optimum) * self._remaining(time, self._rate(sigma, variance))
        return np.asarray(optimum + error)

    def _remaining(self, time: Array, rate: Array) -> Array:
        """Share of the initial error that is left; a rate of zero leaves all of it, at infinity too."""
        if self.discrete and (rate >= 2).any():
            largest = 2 * self.learning_rate / float(rate.max())
            raise ValueError(
                f"`learning_rate` must be below {largest:.3g} for gradient descent to converge at every noise level and "
                f"mode, got {self.learning_rate!r}. Lower it, precondition, or use gradient flow (discrete=False)."
            )
        return remaining_error(time, rate, self.discrete)

    def _log_flow(self, time: Array, variance: Array) -> Array:
        if not self.closed_form:
            return super()._log_flow(time, variance)
        low, high, q = self.sigma_min**2, self.sigma_max**2, self.init
        t, lam = 2 * self.learning_rate * time, variance
        # The exponential integral runs from infinity at time 0 to 0 at time infinity; both ends have their own form.
        inside = np.where((t > 0) & np.isfinite(t), t, 1.0)
        done = np.log((lam + low) / (lam + high))
        start = (1 - q) * np.exp(-inside * lam) * (_e1(inside * high) - _e1(inside * low))
        moving = done + start - (_e1(inside * (lam + high)) - _e1(inside * (lam + low)))
        untrained = (1 - q) * np.log(low / high)
        return np.asarray(np.log(high) + np.where(t == 0, untrained, np.where(np.isinf(t), done, moving)))


def _e1(x: Array) -> Array:
    """Exponential integral of positive arguments; beyond 40 it is 1e-19, far below the rounding of what it is added to."""
    result, near = np.zeros(x.shape), x < 40
    result[near] = exp1(x[near])
    return result
