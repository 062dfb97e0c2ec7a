"""A Gaussian of known spectrum, and samples of it.

Notation: the covariance is ``Sigma = U diag(lambda) U'`` with the eigenvalues lambda in descending order and the modes
u_k in the columns of U; ``mu`` is the mean and d the dimension. Everything is float64 on the CPU, and every draw uses the
generator that is passed in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from spectral_lightning.arguments import non_negative, one_of, positive
from spectral_lightning.seeds import haar_directions

__all__ = [
    "GaussianPopulation",
    "SpectrumChoice",
    "finite_numbers",
    "haar_rotation",
    "power_law_spectrum",
    "whiten",
]


def finite_numbers(name: str, values: list[float] | tuple[float, ...], count: int) -> Tensor:
    """``count`` finite numbers as a float64 tensor ``[count]``; ``ValueError`` that names the argument otherwise."""
    numbers = all(isinstance(v, int | float) and math.isfinite(v) for v in values)
    if not numbers or len(values) != count:
        raise ValueError(f"`{name}` must be {count} finite numbers, got {values!r}.")
    return torch.tensor(values, dtype=torch.float64)


def power_law_spectrum(dim: int, exponent: float) -> Tensor:
    """Variances ``k^-exponent`` for k = 1 ... dim, ``[dim]``.

    Example:
        >>> power_law_spectrum(4, 1.0).tolist()
        [1.0, 0.5, 0.3333333333333333, 0.25]
    """
    return torch.arange(1, dim + 1, dtype=torch.float64).pow(-exponent)


def haar_rotation(dim: int, generator: np.random.Generator) -> Tensor:
    """An orthogonal matrix ``[dim, dim]`` drawn uniformly (Haar)."""
    return torch.from_numpy(haar_directions(generator, dim, dim).T)


def whiten(samples: Tensor) -> Tensor:
    """Samples ``[n, d]`` transformed by their own moments to mean 0 and covariance (with 1/n) the identity.

    With the QR factors of the centred samples, ``X - mean = Q R``, these are ``sqrt(n) Q``. This is exact to rounding
    however ill-conditioned the samples are; forming their covariance would not be.

    Raises:
        ValueError: unless there are more samples than dimensions.
    """
    n, dim = samples.shape
    if n <= dim:
        raise ValueError(f"`samples` must be more than the dimension, {dim}, to be whitened, got {n}.")
    q: Tensor = torch.linalg.qr(samples - samples.mean(0)).Q
    return q.mul(n**0.5)


@dataclass(frozen=True)
class SpectrumChoice:
    """Variances by name.

    They are ``scale`` times one of

    - ``"lognormal"``: ``exp(g_k) / mean(exp(g))`` with independent standard normal g_k, descending (Wang & Pehlevan 2025,
      the Gaussian experiment);
    - ``"power_law"``: ``k^-exponent`` for k = 1 ... d;
    - ``"given"``: the numbers in ``variance``, in their order.

    Args:
        spectrum: ``"lognormal"``, ``"power_law"`` or ``"given"``.
        exponent: of the power law only; 0 gives white noise.
        scale: factor on all variances: the mean variance of ``"lognormal"``, the largest of ``"power_law"``.
        variance: d numbers of zero or more, for ``"given"`` only.

    Raises:
        ValueError: for an argument out of range.

    Example:
        >>> SpectrumChoice("power_law", exponent=2.0, scale=4.0).variances(2, np.random.default_rng(0)).tolist()
        [4.0, 1.0]
    """

    spectrum: Literal["lognormal", "power_law", "given"] = "power_law"
    exponent: float = 1.0
    scale: float = 1.0
    variance: list[float] | None = None

    def __post_init__(self) -> None:
        one_of("spectrum", self.spectrum, ("lognormal", "power_law", "given"))
        non_negative("exponent", self.exponent)
        positive("scale", self.scale)
        if (self.spectrum == "given") != (self.variance is not None):
            raise ValueError(
                "`variance` must be given with `spectrum` 'given' and only then, "
                f"got {self.variance!r} with {self.spectrum!r}."
            )

    def check(self, dim: int) -> None:
        """Raise ``ValueError`` unless given variances are ``dim`` numbers of zero or more, and not all zero."""
        if self.variance is None:
            return
        values = finite_numbers("variance", self.variance, dim)
        if (values < 0).any() or not (values > 0).any():
            raise ValueError(f"`variance` must be zero or more and not all zero, got {self.variance!r}.")

    def variances(self, dim: int, generator: np.random.Generator) -> Tensor:
        """The variances, ``[dim]``, float64; only ``"lognormal"`` draws from the generator."""
        if self.variance is not None:
            return self.scale * finite_numbers("variance", self.variance, dim)
        if self.spectrum == "power_law":
            return self.scale * power_law_spectrum(dim, self.exponent)
        variance = torch.from_numpy(generator.standard_normal(dim)).exp()
        return self.scale * (variance / variance.mean()).sort(descending=True).values


@dataclass(frozen=True)
class GaussianPopulation:
    """The normal distribution with mean ``mu`` and covariance ``Sigma = U diag(lambda) U'``.

    Args:
        mean: mu, ``[d]``.
        variance: lambda, ``[d]``, zero or more.
        modes: U, ``[d, d]``, the mode of ``variance[k]`` in column k.

    Example:
        >>> population = GaussianPopulation(torch.zeros(2), torch.tensor([4.0, 1.0]), torch.eye(2))
        >>> population.covariance.tolist()
        [[4.0, 0.0], [0.0, 1.0]]
    """

    mean: Tensor
    variance: Tensor
    modes: Tensor

    @classmethod
    def ordered(cls, mean: Tensor, variance: Tensor, modes: Tensor) -> GaussianPopulation:
        """The population of these variances and modes, both put in descending order of variance."""
        descending, order = variance.sort(descending=True, stable=True)
        return cls(mean, descending, modes[:, order])

    @property
    def covariance(self) -> Tensor:
        """Sigma, ``[d, d]``."""
        return (self.modes * self.variance) @ self.modes.T

    @property
    def moments(self) -> tuple[Tensor, Tensor]:
        """Mu ``[d]`` and Sigma ``[d, d]``."""
        return self.mean, self.covariance

    def sample(self, count: int, generator: np.random.Generator, *, exact_moments: bool = False) -> Tensor:
        """Draw ``mu + U diag(sqrt(lambda)) z`` with standard normal z, ``[count, d]``.

        Args:
            count: number of samples.
            generator: source of every draw.
            exact_moments: whether to whiten the z first, so that the mean of the samples is mu and their covariance
                (with 1/n) Sigma, to rounding. The samples are then slightly dependent.
        """
        z = torch.from_numpy(generator.standard_normal((count, len(self.mean))))
        if exact_moments and count:
            z = whiten(z)
        return self.mean + (z * self.variance.sqrt()) @ self.modes.T

    def log_density(self, samples: Tensor, floor: float = 0.0) -> Tensor:
        """``-1/2 sum_k [(u_k' (x - mu))^2 / lambda_k + log(2 pi lambda_k)]`` of each row of ``[n, d]``, ``[n]``.

        Args:
            samples: the rows x.
            floor: smallest variance; smaller ones are raised to it, as if noise had been added along those modes. Without
                it, a distribution with a null mode has no density.
        """
        variance = self.variance.clamp_min(floor)
        squares = ((samples.double().cpu() - self.mean) @ self.modes).square() / variance
        return -0.5 * (squares + (2 * math.pi * variance).log()).sum(1)
