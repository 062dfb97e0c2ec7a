"""Linear velocity fields of flow matching, ``v(x, t) = W_t x``, in one or more layers (WP appendix H)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicHermiteSpline
from scipy.special import erf, exp1

from spectral_lightning.arguments import finite
from spectral_lightning.theory.dynamics import checked, outer
from spectral_lightning.theory.modewise import ModeCurves, ModewiseDynamics
from spectral_lightning.theory.objective import Objective
from spectral_lightning.theory.solving.stack import Stack

__all__ = ["FlowMatching", "FlowMatchingCurves"]

Array = NDArray[np.float64]

_REACH = 36.0  # e^-36 = 2e-16: the share of the flow's time that the quadrature leaves out at either end
_SMALL = 1e-2  # the series of Ein to five terms is exact to rounding below it


class FlowMatching(ModewiseDynamics):
    """Linear velocity fields, independent per flow time t, trained on ``||v(x_t, t) - (x0 - z)||^2``.

    With ``x_t = (1-t) z + t x0``, t from 0 (noise of variance 1) to 1 (data) and ``g(t) = t^2 lambda + (1-t)^2``, the gain w
    of the velocity on a mode has the optimum ``w* = (t lambda - (1-t)) / g``. One layer learns

    ``w(tau) = w* + (Q - w*) exp(-2 eta tau g)``, and with ``T = 2 eta tau``, ``a = sqrt(T / (1 + lambda))``,
    ``log lambda~ = Ein(T lambda) - Ein(T) + Q sqrt(pi) / (1 + lambda) e^(-lambda a^2) [erf(a) + erf(lambda a)] / a``,

    ``Ein(x) = E1(x) + log x + gamma`` (entire, so the limits ``tau = 0``, 2Q, and ``lambda = 0`` need no care).
    Deeper stacks grow as in :class:`DeepLinear`, ``dw/dtau = -2 eta g m |w|^(2-2/L) (w - w*)``, and their flow is a
    quadrature over t. Their gain never changes its sign, so they learn nothing where w* and Q have opposite signs.

    :meth:`FlowMatchingCurves.velocity_weight` is in the flow's own time. All other curves use the noise level of the other
    families, ``sigma = (1-t)/t``, at which ``x_t / t = x0 + sigma z``: the velocity is a denoiser of gain
    ``psi = t (1 + (1-t) w)``, with optimum ``lambda / (lambda + sigma^2)``. An Euler step of the velocity in t is an Euler
    step of that denoiser in sigma, so a :class:`~spectral_lightning.sampling.Sampler` over ``grid = (1-t)/t`` samples the
    flow itself. The exact flow runs over all of [0, 1], whatever ``sigma_min`` and ``sigma_max``.

    Assumptions: zero mean of the data, initial weights aligned with the covariance (balanced, from two layers on),
    full-batch gradients of the expected loss summed over coordinates.

    Reference: WP appendix H; more than one layer, weights and densities are beyond WP.

    Args:
        objective: its ``noise_density`` is that of t, 1 if t is drawn uniformly. Its preconditioning must be ``"none"`` or
            ``"given"``, whose callables are functions of t and act on the velocity: ``v = skip x + out F(scale x)``, trained
            with ``weight``.
        init: gain of the linear network before training (Q).
        depth: number of layers.
        tied: whether one layer is used ``depth`` times; two tied layers are ``P P'``.

    Raises:
        ValueError: for an argument out of range; from the curves, for descent that diverges.

    Example:
        >>> curves = FlowMatching(Objective(learning_rate=1e-2)).on(4.0)
        >>> curves.generated_variance([0.0, 1e2, np.inf]).round(4), curves.weight(np.inf, 1.0)
        (array([1.    , 3.8092, 4.    ]), array(0.8))
    """

    init: float
    default_nodes = 800

    def __init__(self, objective: Objective, init: float = 0.0, depth: int = 1, tied: bool = False) -> None:
        super().__init__(objective)
        if objective.preconditioning.kind not in ("none", "given"):
            raise ValueError(
                "`preconditioning` must be of kind 'none' or 'given' for a velocity, got "
                f"{objective.preconditioning.kind!r}. The other kinds are functions of sigma and make a denoiser."
            )
        self.init, self.depth, self.tied = finite("init", init), depth, tied
        self.stack, self.closed_flow, self.takes_response = Stack(depth, tied), depth == 1, depth == 1

    def on(self, data: ArrayLike) -> FlowMatchingCurves:
        """The curves of modes with these variances, of any shape."""
        return FlowMatchingCurves(self, data)

    def velocity(self, time: Array, t: Array, rest: Array, variance: Array, start: Array) -> Array:
        """The gain w from the network's gain ``start``; ``rest`` is 1 - t, which t itself loses near 1."""
        energy = t**2 * variance + rest**2
        shift = t * variance - rest
        # At t = 1 a null mode has an input of zero: any gain is optimal, and none is ever learnt.
        optimum = np.divide(shift, energy, out=np.zeros(shift.shape), where=energy > 0)
        target = self.objective.network_gain(t, optimum)
        gain = self.stack.gain(self.objective, start, target, self.objective.rate(t, energy), time)
        return self.objective.output_gain(t, gain)

    def rate(self, sigma: Array, variance: Array) -> Array:
        """Relaxation rate of a single layer per unit of time, ``2 eta f g(t)``, arguments broadcast."""
        t, rest = _flow_time(sigma)
        return self.objective.rate(t, t**2 * variance + rest**2)

    def start(self, sigma: Array, variance: Array) -> Array:
        """Gain of the denoiser at time 0, arguments broadcast."""
        t, rest = _flow_time(sigma)
        return np.asarray(t * (1 + rest * self.objective.output_gain(t, self.init)))

    def gain(self, time: Array, sigma: Array, variance: Array, initial: Array) -> Array:
        """Gain of the denoiser, arguments broadcast."""
        t, rest = _flow_time(sigma)
        shape = np.broadcast_shapes(initial.shape, t.shape)
        known = np.broadcast_to((t > 0) & (rest > 0), shape)
        gain = np.divide(initial, t, out=np.ones(shape), where=known) - 1
        velocity = np.divide(gain, rest, out=np.zeros(shape), where=known)
        start = self.objective.network_gain(t, velocity)
        return np.asarray(t * (1 + rest * self.velocity(time, t, rest, variance, start)))

    def _closed_flow(self, time: Array, variance: Array) -> Array:
        clock, lam = 2 * self.objective.learning_rate * time, variance
        done = np.isinf(clock)
        with np.errstate(divide="ignore"):
            end = np.log(lam)
        clock = np.where(done, 1.0, clock)
        moving = _ein(clock * lam) - _ein(clock)
        if self.init != 0:
            a = np.sqrt(clock / (1 + lam))
            share = np.full(a.shape, 2 / np.sqrt(np.pi)) * (1 + lam)
            np.divide(erf(a) + erf(lam * a), a, out=share, where=a > 0)
            moving = moving + self.init * np.sqrt(np.pi) / (1 + lam) * np.exp(-lam * a**2) * share
        return np.asarray(np.where(done, end, moving))

    def _quadrature(self, time: Array, variance: Array) -> Array:
        """``2 Integral_0^1 w dt`` in log sigma."""

        def slope(u: Array, tau: Array, lam: Array) -> Array:
            t, rest = _flow_time(np.exp(u))
            return t * rest * self.velocity(tau, t, rest, lam, np.asarray(self.init))

        return self._twice_integral(slope, -_REACH, _REACH, time, variance)


class FlowMatchingCurves(ModeCurves):
    """Curves of flow matching, also in the flow's own time."""

    family: FlowMatching

    def velocity_weight(self, time: ArrayLike, flow_time: ArrayLike) -> Array:
        """Gain w of the velocity, ``[*time, *flow_time, *mode]``.

        Args:
            time: training time.
            flow_time: t, from 0 (noise) to 1 (data).

        Raises:
            ValueError: for a negative argument, a flow time above 1, or descent that diverges.
        """
        tau, t, lam = outer(*checked(time=time, flow_time=flow_time), self.variance)
        if (t > 1).any():
            raise ValueError(f"`flow_time` must hold numbers from 0 to 1, got {float(t.max())!r}.")
        return self.family.velocity(tau, t, 1 - t, lam, np.asarray(self.family.init))


def _flow_time(sigma: Array) -> tuple[Array, Array]:
    """``t = 1 / (1 + sigma)`` and ``1 - t``, neither by subtraction; at sigma infinity too."""
    t = 1 / (1 + sigma)
    infinite = np.isinf(sigma)
    return t, np.where(infinite, 1.0, np.where(infinite, 1.0, sigma) * t)


def _ein(x: Array) -> Array:
    """Entire exponential integral ``E1(x) + log x + gamma``, to an absolute 1e-13.

    By its series for small x, where the three terms cancel, then by interpolation in log x, several times as fast as E1.
    """
    small = np.where(x < _SMALL, x, 0.0)
    result = np.asarray(small * (1 - small / 4 * (1 - small * 2 / 9 * (1 - small * 3 / 16 * (1 - small * 4 / 25)))))
    rest = x >= _SMALL
    logarithm = np.log(x[rest])
    table = _ein_table()
    end = table.x[-1]  # beyond it E1 is below rounding
    result[rest] = np.where(logarithm < end, table(np.minimum(logarithm, end)), logarithm + np.euler_gamma)
    return result


@lru_cache(maxsize=1)
def _ein_table() -> CubicHermiteSpline:
    """The function of log x, whose derivative is ``1 - e^-x``; the error, of fourth order in the step, is 2e-14."""
    y = np.arange(np.log(_SMALL) - 0.01, np.log(45.0), 0.002)
    x = np.exp(y)
    return CubicHermiteSpline(y, exp1(x) + y + np.euler_gamma, -np.expm1(-x))
