"""The interface of every solvable family, with the quadrature that serves them all."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectral_lightning.arguments import positive, positive_integer
from spectral_lightning.emergence import (
    PowerLaw,
    StaysWithin,
    direction,
    fit_power_law,
    gray_zone,
    threshold,
)
from spectral_lightning.sampling import Sampler
from spectral_lightning.theory.solving.passage import passage_time, settling_time, time_grid
from spectral_lightning.theory.solving.sampled import wiener_gain

__all__ = ["LearningDynamics"]

Array = NDArray[np.float64]

_CELLS = 2**18  # of weight held at a time: 2 MB, which stays near the processor


def _outer(*axes: ArrayLike) -> list[Array]:
    """Arrays of any shape, broadcast against each other as an outer product."""
    arrays = [np.asarray(axis, np.float64) for axis in axes]
    total = sum(a.ndim for a in arrays)
    shaped, offset = [], 0
    for a in arrays:
        shaped.append(a.reshape((1,) * offset + a.shape + (1,) * (total - offset - a.ndim)))
        offset += a.ndim
    return shaped


def _blocks(shape: tuple[int, ...], rows: int, columns: int) -> Iterator[tuple[slice, ...]]:
    """Slices that cover an array of one or two axes."""
    steps = (columns,) if len(shape) == 1 else (rows, columns)
    starts = (range(0, size, step) for size, step in zip(shape, steps, strict=True))
    for firsts in product(*starts):
        yield tuple(slice(first, first + step) for first, step in zip(firsts, steps, strict=True))


def _cut(array: Array, part: tuple[slice, ...]) -> Array:
    """The part of an array that is broadcast along its axes of length one."""
    return array[tuple(slice(None) if size == 1 else cut for size, cut in zip(array.shape, part, strict=True))]


@lru_cache(maxsize=8)
def _gauss_legendre(nodes: int) -> tuple[Array, Array]:
    return np.polynomial.legendre.leggauss(nodes)


class LearningDynamics(ABC):
    """Learning of one denoiser family, mode by mode.

    A family whose weights commute with each other and with the covariance gives :meth:`_weight`; the rest follows. The
    variance of the generated samples is, through the exact probability flow,

    ``log lambda~ = 2 log sigma_T - 2 Integral_{log sigma_0}^{log sigma_T} (1 - psi(e^u, tau)) du``

    by Gauss-Legendre quadrature in ``u = log sigma``, or what a given discrete :class:`~spectral_lightning.sampling.Sampler`
    makes of the same weights.

    Args:
        learning_rate: eta, of a loss summed over the coordinates; a mean over d coordinates divides it by d.
        sigma_min: sigma_0, where the exact flow ends.
        sigma_max: sigma_T, where the exact flow starts from ``N(0, sigma_T^2 I)``.
        nodes: quadrature nodes; 200 are exact to 1e-11 for all families.

    Raises:
        ValueError: for an argument out of range.
    """

    def __init__(
        self, learning_rate: float, sigma_min: float = 0.002, sigma_max: float = 80.0, nodes: int = 200
    ) -> None:
        self.learning_rate = positive("learning_rate", learning_rate)
        self.sigma_min = positive("sigma_min", sigma_min)
        self.sigma_max = positive("sigma_max", sigma_max)
        if sigma_min >= sigma_max:
            raise ValueError(f"`sigma_min` must be below `sigma_max`, got {sigma_min!r} and {sigma_max!r}.")
        self.nodes = positive_integer("nodes", nodes, minimum=2)

    discrete: bool = False
    """Whether ``time`` counts steps of gradient descent; gradient flow otherwise."""

    def __repr__(self) -> str:
        settings = (
            f"{k}={v!r}"
            for k, v in vars(self).items()
            if k not in ("objective", "nodes") and k[0] != "_" and v is not None
        )
        return f"{type(self).__name__}({', '.join(settings)})"

    def gradient_flow(self) -> Self:
        """The same family in continuous time."""
        twin = copy.copy(self)
        twin.discrete = False
        return twin

    @abstractmethod
    def _weight(self, time: Array, sigma: Array, variance: Array, initial: Array) -> Array:
        """The gain at ``time``, arguments broadcast; ``initial`` is the gain of D at time 0."""

    @abstractmethod
    def _initial(self, sigma: Array, variance: Array) -> Array:
        """The gain of D at time 0, arguments broadcast."""

    def weight(
        self, time: ArrayLike, sigma: ArrayLike, variance: ArrayLike, initial_gain: ArrayLike | None = None
    ) -> Array:
        """Gain psi of the denoiser, ``[*time, *sigma, *variance]``.

        Args:
            time: gradient-flow time, or number of gradient-descent steps; zero or more, infinity allowed.
            sigma: noise levels.
            variance: data variance of the modes.
            initial_gain: gain of D before training, ``[*sigma, *variance]``, in place of the family's own initialisation;
                a measured one makes the prediction start where the network does.

        Raises:
            ValueError: for a negative argument, or where the family's formula does not hold.
        """
        t, s, lam = _outer(*self._checked(time=time, sigma=sigma, variance=variance))
        if initial_gain is None:
            initial = self._initial(s, lam)
        else:
            initial = np.broadcast_to(np.asarray(initial_gain, np.float64), np.shape(sigma) + np.shape(variance))
        return np.asarray(self._weight(t, s, lam, initial), np.float64)

    def optimal_weight(self, sigma: ArrayLike, variance: ArrayLike) -> Array:
        """Gain of the exact denoiser, ``lambda / (lambda + sigma^2)``, ``[*sigma, *variance]``."""
        return wiener_gain(*_outer(*self._checked(sigma=sigma, variance=variance)))

    def initial_weight(self, sigma: ArrayLike, variance: ArrayLike) -> Array:
        """Gain of the denoiser before training, ``[*sigma, *variance]``."""
        s, lam = _outer(*self._checked(sigma=sigma, variance=variance))
        return np.broadcast_to(self._initial(s, lam), np.shape(sigma) + np.shape(variance)).copy()

    def generated_variance(
        self,
        time: ArrayLike,
        variance: ArrayLike,
        sampler: Sampler | None = None,
        initial_gain: ArrayLike | None = None,
    ) -> Array:
        """Variance lambda~ of the generated samples along each mode, ``[*time, *variance]``.

        Through the exact flow from ``sigma_max`` to ``sigma_min``, or through ``sampler`` where one is given.

        Args:
            time: gradient-flow time, or number of gradient-descent steps; zero or more, infinity allowed.
            variance: data variance of the modes.
            sampler: a discrete sampler, whose own error then is part of the answer.
            initial_gain: gain of D before training at ``sampler.levels``, ``[levels, *variance]``.

        Raises:
            ValueError: for a negative argument, or ``initial_gain`` without a sampler.
        """
        t, lam = self._checked(time=time, variance=variance)
        if initial_gain is not None and sampler is None:
            raise ValueError("`initial_gain` must come with a `sampler`, at whose levels it was measured.")
        flat_t, flat_lam = t.reshape(-1, 1), lam.reshape(1, -1)
        gain = None
        if initial_gain is not None and sampler is not None:
            gain = np.broadcast_to(np.asarray(initial_gain, np.float64), (len(sampler.levels), *lam.shape))
            gain = gain.reshape(len(sampler.levels), 1, -1)
        return self._log_generated(flat_t, flat_lam, sampler, gain, exponentiate=True).reshape(t.shape + lam.shape)

    def emergence_time(
        self,
        variance: ArrayLike,
        criterion: str | float | StaysWithin = "geometric",
        sampler: Sampler | None = None,
        initial_gain: ArrayLike | None = None,
    ) -> Array:
        """Time tau* at which the generated variance is learnt by a criterion, by root finding, shape of ``variance``.

        A first passage through a threshold between the generated variance at time 0 and the data's variance (with a
        sampler: what the family ends at through it); or, for :class:`~spectral_lightning.emergence.StaysWithin`, the last
        entry into a band about it. NaN where a mode never gets there, and for a passage where it starts at its target;
        descent (``discrete``) is interpolated between its steps.

        Args:
            variance: data variance of the modes.
            criterion: as for :func:`~spectral_lightning.emergence.threshold`, or a ``StaysWithin``.
            sampler: a discrete sampler in place of the exact flow.
            initial_gain: as for :meth:`generated_variance`.
        """
        lam = self._checked(variance=variance)[0]
        flat = lam.reshape(-1)
        gain = None
        if initial_gain is not None:
            gain = np.asarray(initial_gain, np.float64).reshape(-1, len(flat))
        start, end = self._ends(flat, sampler, gain)

        def curve(time: Array, mode: NDArray[np.int64]) -> Array:
            return self._log_generated(time, flat[mode], sampler, None if gain is None else gain[:, mode])

        grid = time_grid(self.learning_rate, self.longest_descent if self.discrete else None)
        if isinstance(criterion, StaysWithin):
            result = settling_time(curve, *criterion.band(end), grid, start, whole=self.discrete)
        else:
            sign = direction(start, end)
            result = passage_time(curve, threshold(start, end, criterion), sign, grid, whole=self.discrete)
        return result.reshape(lam.shape)

    def exponent(
        self,
        variance: ArrayLike,
        criterion: str | float | StaysWithin = "geometric",
        sampler: Sampler | None = None,
        initial_gain: ArrayLike | None = None,
        gray_factor: float = 2.0,
        min_modes: int = 3,
    ) -> dict[str, PowerLaw]:
        """The emergence law ``tau* = C lambda^(-alpha)`` over ``variance``, for ``"rising"`` and ``"falling"`` modes.

        Args:
            variance: data variance of the modes, ``[K]``; the exponent belongs to this range of variances.
            criterion: as for :meth:`emergence_time`.
            sampler: a discrete sampler in place of the exact flow.
            initial_gain: as for :meth:`generated_variance`.
            gray_factor: modes whose initial variance lies within this factor of the target are left out.
            min_modes: fewer modes than this give no exponent; there is no noise here, so that few will do.
        """
        lam = self._checked(variance=variance)[0].reshape(-1)
        start, end = self._ends(lam, sampler, initial_gain)
        time = self.emergence_time(lam, criterion, sampler, initial_gain)
        sign = np.where(gray_zone(start, end, gray_factor), 0, direction(start, end))
        return {
            name: fit_power_law(lam[sign == way], time[sign == way], min_modes=min_modes, min_decades=0.0)
            for name, way in (("rising", 1), ("falling", -1))
        }

    def loss(
        self, time: ArrayLike, sigma: ArrayLike, variance: ArrayLike, initial_gain: ArrayLike | None = None
    ) -> Array:
        """Expected squared error of the denoiser at each noise level, summed over the modes, ``[*time, *sigma]``.

        ``L_sigma = sum_k (1 - psi_k)^2 lambda_k + psi_k^2 sigma^2``, without loss weight; the optimum leaves
        ``sum_k lambda_k sigma^2 / (lambda_k + sigma^2)``.

        Args:
            time: as for :meth:`weight`.
            sigma: noise levels.
            variance: data variance of all modes of the data.
            initial_gain: as for :meth:`weight`.
        """
        psi = self.weight(time, sigma, variance, initial_gain)
        s, lam = _outer(*self._checked(sigma=sigma, variance=variance))
        return np.asarray(((1 - psi) ** 2 * lam + (psi * s) ** 2).sum(axis=tuple(range(-np.ndim(variance), 0))))

    def kl_divergence(
        self,
        time: ArrayLike,
        variance: ArrayLike,
        sampler: Sampler | None = None,
        initial_gain: ArrayLike | None = None,
    ) -> Array:
        """KL(generated || data) of zero-mean Gaussians in nats, mode by mode, ``[*time, *variance]``.

        ``(r - 1 - log r) / 2``, ``r = lambda~ / lambda``. Infinite for a null mode of the data, which is to be reported
        apart, and for a mode the sampler gives no variance.

        Args:
            time: as for :meth:`generated_variance`.
            variance: data variance of the modes.
            sampler: a discrete sampler in place of the exact flow.
            initial_gain: as for :meth:`generated_variance`.
        """
        lam = self._checked(variance=variance)[0]
        generated = self.generated_variance(time, variance, sampler, initial_gain)
        ratio = np.divide(generated, lam, out=np.full(generated.shape, np.inf), where=lam > 0)
        with np.errstate(divide="ignore"):
            plain = ratio - 1 - np.log(np.where(np.isinf(ratio), 1.0, ratio))
        # Near 1 the logarithm cancels what it is subtracted from.
        x = np.where(np.abs(ratio - 1) < 1e-3, ratio - 1, 0.0)
        series = x**2 * (1 / 2 - x * (1 / 3 - x * (1 / 4 - x * (1 / 5 - x / 6))))
        return np.asarray(np.where(np.abs(ratio - 1) < 1e-3, series, plain) / 2)

    @property
    def closed_form(self) -> bool:
        """Whether the exact flow has a closed form, or needs the quadrature."""
        return False

    @property
    def longest_descent(self) -> float:
        """The most steps that :meth:`emergence_time` follows discrete descent for."""
        return 1e20 / self.learning_rate

    def _ends(self, variance: Array, sampler: Sampler | None, gain: ArrayLike | None) -> tuple[Array, Array]:
        """Variance before training, and what learning is measured against."""
        start = self.generated_variance(0.0, variance, sampler, gain)
        return start, variance if sampler is None else self.generated_variance(np.inf, variance, sampler, gain)

    def _log_generated(
        self,
        time: Array,
        variance: Array,
        sampler: Sampler | None,
        initial: Array | None,
        *,
        exponentiate: bool = False,
    ) -> Array:
        """Log of the generated variance, ``time`` and ``variance`` broadcast, in chunks along the first axis."""
        depth = len(sampler.levels) if sampler is not None else 8 if self.closed_form else self.nodes
        shape = np.broadcast_shapes(time.shape, variance.shape)
        # At least eight times together, where there are that many: rates and initial gains are shared by the times.
        columns = max(1, _CELLS // (depth * (min(8, shape[0]) if len(shape) > 1 else 1)))
        rows = max(1, _CELLS // (depth * min(columns, shape[-1] or 1)))
        result = np.empty(shape)
        for part in _blocks(shape, rows, columns):
            t, lam = _cut(time, part), _cut(variance, part)
            if sampler is None:
                result[part] = self._log_flow(t, lam)
            else:
                local = None if initial is None else _cut(initial, (slice(None), *part))
                result[part] = self._log_sampled(t, lam, sampler, local)
        return np.exp(result) if exponentiate else result

    def _log_flow(self, time: Array, variance: Array) -> Array:
        """The quadrature; a family that knows a closed form overrides this."""
        x, w = _gauss_legendre(self.nodes)
        low, high = np.log(self.sigma_min), np.log(self.sigma_max)
        axes = (1,) * max(time.ndim, variance.ndim)
        sigma = np.exp((high - low) / 2 * x + (high + low) / 2).reshape(-1, *axes)
        psi = self._weight(time[None], sigma, variance[None], self._initial(sigma, variance[None]))
        # The weights sum to 2.
        return np.asarray(2 * low + (high - low) * np.tensordot(w, psi, axes=(0, 0)), np.float64)

    def _log_sampled(self, time: Array, variance: Array, sampler: Sampler, initial: Array | None) -> Array:
        axes = (1,) * max(time.ndim, variance.ndim)
        sigma = np.asarray(sampler.levels).reshape(-1, *axes)
        start = self._initial(sigma, variance[None]) if initial is None else initial
        psi = self._weight(time[None], sigma, variance[None], start)
        index = {level: i for i, level in enumerate(sampler.levels)}
        shape = np.broadcast_shapes(time.shape, variance.shape)
        amplitude = sampler(lambda z, level: psi[index[level]] * z, np.full(shape, sampler.start))
        with np.errstate(divide="ignore"):
            return np.asarray(2 * np.log(np.abs(amplitude)), np.float64)

    @staticmethod
    def _checked(**arguments: ArrayLike) -> list[Array]:
        arrays = []
        for name, value in arguments.items():
            array = np.asarray(value, np.float64)
            if not (array >= 0).all():
                raise ValueError(f"`{name}` must hold numbers of zero or more, got one that is negative or NaN.")
            arrays.append(array)
        return arrays
