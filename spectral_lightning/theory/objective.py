"""What is trained and how: the settings every family shares, and what they do to one mode at one noise level."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectral_lightning.arguments import positive, positive_integer
from spectral_lightning.theory.preconditioning import Preconditioning
from spectral_lightning.theory.solving.growth import elapsed

__all__ = ["LogNormalDensity", "Objective", "shown"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class LogNormalDensity:
    """Density of ln sigma, normal with ``mean`` and ``std``: EDM's training noise, as a ``noise_density``.

    Reference: Karras et al. 2022, table 1 (P_mean, P_std).

    Args:
        mean: mean of ln sigma.
        std: standard deviation of ln sigma.

    Raises:
        ValueError: if ``std`` is not above 0.

    Example:
        >>> f"{LogNormalDensity(mean=0.0, std=1.0)(1.0):.4f}"
        '0.3989'
    """

    mean: float = -1.2
    std: float = 1.2

    def __post_init__(self) -> None:
        positive("std", self.std)

    def __call__(self, sigma: Any) -> Any:
        """Density per natural logarithm at ``sigma``, a float or NumPy array."""
        u = (np.log(sigma) - self.mean) / self.std
        return np.exp(-(u**2) / 2) / (self.std * np.sqrt(2 * np.pi))


@dataclass(frozen=True, repr=False)
class Objective:
    """The quadratic loss of one mode at one noise level, and how it is descended.

    With the gain q of the linear network F and the preconditioned output ``psi = c_skip + a q``, ``a = c_out c_in``, the
    weighted loss of a mode is

    ``L(q) = p w e (c_skip + a q - psi*)^2 + const = p w a^2 e (q - q*)^2 + const``,

    with the noise density p, the loss weight w and the second moment e of the input. So q has the optimum
    ``q* = (psi* - c_skip) / a`` and relaxes towards it at ``2 eta p w a^2 e``. Noise levels do not share weights.

    The last three settings say where and how finely the exact sampling flow is integrated.

    Args:
        learning_rate: eta, of a loss summed over the coordinates; a mean over d coordinates divides it by d.
        preconditioning: how F becomes the denoiser and how its loss is weighted; neither by default.
        noise_density: multiplies the rate at each noise level: the probability of a level if levels are discrete, a
            density if they are continuous. The variable of a density (sigma or log sigma) matters and must be stated.
        discrete: plain gradient descent with ``time`` counting steps, instead of gradient flow.
        sigma_min: sigma_0, where the exact flow ends.
        sigma_max: sigma_T, where the exact flow starts from ``N(0, sigma_T^2 I)``.
        nodes: noise levels at which the exact flow evaluates the weights if it has no closed form; the family's default
            (200; 800 for flow matching) if not given. Families solved mode by mode add more, wherever the gain of a mode
            has a kink or a front, until the error of log lambda~ is below 1e-6, and warn where it is not.

    Raises:
        ValueError: for an argument out of range.

    Example:
        >>> Objective(1e-4, Preconditioning("edm", sigma_data=0.5))
        Objective(learning_rate=0.0001, preconditioning=Preconditioning('edm', sigma_data=0.5))
    """

    learning_rate: float
    preconditioning: Preconditioning = field(default_factory=lambda: Preconditioning("none"))
    noise_density: Callable[[Any], Any] | None = None
    discrete: bool = False
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    nodes: int | None = None

    def __post_init__(self) -> None:
        positive("learning_rate", self.learning_rate)
        positive("sigma_min", self.sigma_min)
        positive("sigma_max", self.sigma_max)
        if self.sigma_min >= self.sigma_max:
            raise ValueError(f"`sigma_min` must be below `sigma_max`, got {self.sigma_min!r} and {self.sigma_max!r}.")
        if self.nodes is not None:
            positive_integer("nodes", self.nodes, minimum=2)

    def __repr__(self) -> str:
        return f"Objective({self.describe()})"

    def describe(self) -> str:
        """The settings that differ from their defaults, as they are passed."""
        default = Objective(1.0)
        changed = (f.name for f in fields(self) if getattr(self, f.name) != getattr(default, f.name))
        names = dict.fromkeys(("learning_rate", *changed))
        return ", ".join(f"{name}={shown(getattr(self, name))}" for name in names)

    @property
    def plain(self) -> bool:
        """Whether F is the denoiser itself, under gradient flow, its loss unweighted and all noise levels equally likely."""
        given = self.preconditioning
        unweighted = given.kind == "none" and given.weight is None and self.noise_density is None
        return unweighted and not self.discrete

    def rate(self, level: Array, energy: Array) -> Array:
        """``2 eta p w a^2 e``, per unit of time."""
        factor = np.asarray(self.preconditioning.rate_factor(level), np.float64)
        if self.noise_density is not None:
            factor = factor * np.asarray(self.noise_density(level), np.float64)
        return np.asarray(2 * self.learning_rate * factor * energy, np.float64)

    def output_gain(self, level: Array, network: Array | float) -> Array:
        """``c_skip + a q``."""
        return np.asarray(self.preconditioning.gain(level, network), np.float64)

    def network_gain(self, level: Array, output: Array) -> Array:
        """``q = (psi - c_skip) / a``; 0 if a is 0 and q makes no difference."""
        skip = np.asarray(self.preconditioning.c_skip(level), np.float64)
        scale = np.asarray(self.preconditioning.c_out(level) * self.preconditioning.c_in(level), np.float64)
        difference = output - skip
        # What is left of two equal gains is rounding, and would grow when it is divided by a small a.
        difference = np.where(np.abs(difference) <= 4e-16 * (np.abs(output) + np.abs(skip)), 0.0, difference)
        scale = np.broadcast_to(scale, difference.shape)
        return np.divide(difference, scale, out=np.zeros(difference.shape), where=scale != 0)

    def remaining(self, time: Array, rate: Array) -> Array:
        """Share of one layer's initial error that remains: ``exp(-r tau)``, or ``(1 - r)^tau`` for descent.

        With a rate of zero all of it remains, even at infinite time.

        Raises:
            ValueError: for descent that diverges, and for times between the steps of descent that oscillates.
        """
        if not self.discrete:
            clock = elapsed(time, rate)
            np.negative(clock, out=clock)
            return np.asarray(np.exp(clock, out=clock))
        if (rate >= 2).any():
            raise ValueError(
                f"`learning_rate` must be below {2 * self.learning_rate / float(rate.max()):.3g} for gradient descent to "
                f"converge at every noise level and mode, got {self.learning_rate!r}. Lower it, precondition, or use "
                "gradient flow (discrete=False)."
            )
        t, base = np.broadcast_arrays(time, 1 - rate)
        if (base < 0).any() and not (t == np.floor(t)).all():
            raise ValueError(
                "`time` must hold whole numbers of steps where descent oscillates (2 eta f (lambda + sigma^2) > 1). "
                "Lower the learning rate or use gradient flow (discrete=False)."
            )
        odd = np.mod(np.where(np.isfinite(t), t, 0.0), 2) == 1
        at_once = base == 0
        magnitude = np.where(at_once & (t > 0), 0.0, np.abs(np.where(at_once, 1.0, base)) ** t)
        return np.where((base < 0) & odd, -magnitude, magnitude)


def shown(value: object) -> str:
    """A value as it is logged: arrays by their shape, functions by name, because their address changes from run to run."""
    if isinstance(value, np.ndarray):
        return f"array{list(value.shape)}" if value.ndim else repr(value.item())
    return str(getattr(value, "__qualname__", None) or repr(value))
