"""The interface of families that need the data itself, not only the variances of its modes."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NoReturn, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectral_lightning.emergence import PowerLaw, StaysWithin, direction, threshold
from spectral_lightning.sampling import Sampler
from spectral_lightning.theory.dynamics import LearningDynamics
from spectral_lightning.theory.families.one_layer import OneLayer
from spectral_lightning.theory.preconditioning import Preconditioning
from spectral_lightning.theory.solving.affine import flow_propagator, sampled_propagator
from spectral_lightning.theory.solving.blocks import Blocks
from spectral_lightning.theory.solving.passage import passage_time, settling_time, time_grid
from spectral_lightning.theory.solving.regression import AffineRegression

__all__ = ["BoundDynamics"]

Array = NDArray[np.float64]
Field = NDArray[Any]

_CELLS = 2**21  # complex numbers held at a time: 32 MB
_TIMES_PER_DECADE = 8


class BoundDynamics(LearningDynamics):
    """Learning of a denoiser that is bound to the mean and the covariance of its data.

    A subclass says what its affine denoiser is at any time and noise level, block by block; the rest follows. The
    generated distribution comes from integrating the affine flow ``dz/du = z - W z - b``, ``u = log sigma``, whose
    weights need not commute, or from pushing it through a given :class:`~spectral_lightning.sampling.Sampler`.

    The methods are those of :class:`LearningDynamics`. Their ``variance`` may be left out; where it is given it has to be
    that of all modes of the bound data, in the order of :attr:`variance`.

    Args:
        learning_rate: eta, of a loss summed over the coordinates.
        preconditioning: how the layer becomes a denoiser and how its loss is weighted; none if not given.
        sigma_min: where the exact flow ends.
        sigma_max: where the exact flow starts.
        noise_density: multiplies the rates at each noise level, as for :class:`OneLayer`.
        discrete: gradient descent with ``time`` counting steps, instead of gradient flow.
        nodes: noise levels at which the exact flow evaluates the weights.

    Raises:
        ValueError: for an argument out of range; from the methods, before data are bound and for descent that diverges.
    """

    target_is_data = True  # whether the weights can hold the data's spectrum, so that learning ends at it

    def __init__(
        self,
        learning_rate: float,
        preconditioning: Preconditioning | None = None,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        noise_density: Callable[[Any], Any] | None = None,
        discrete: bool = False,
        nodes: int = 200,
    ) -> None:
        super().__init__(learning_rate, sigma_min, sigma_max, nodes)
        self._layer = OneLayer(
            learning_rate, 0.0, preconditioning, sigma_min, sigma_max, noise_density, discrete, nodes
        )
        self.preconditioning = self._layer.preconditioning
        self.noise_density = noise_density
        self.discrete = discrete
        self._bound: tuple[Blocks, AffineRegression] | None = None

    @abstractmethod
    def _affine(self, time: Array, sigma: Array, gain: Array | None) -> tuple[Field, Field]:
        """Weights ``[time, sigma, block, d, d]`` and bias ``[time, sigma, block, d]`` of the denoiser.

        ``gain``, ``[sigma, mode]``, is that of the denoiser before training where the family's own is replaced.
        """

    @property
    def is_bound(self) -> bool:
        """Whether data are bound."""
        return self._bound is not None

    @property
    def blocks(self) -> Blocks:
        """The data this is bound to."""
        return self._require()[0]

    @property
    def regression(self) -> AffineRegression:
        """The learning problem of the weights and the bias on these data."""
        return self._require()[1]

    @property
    def variance(self) -> Array:
        """Data variance of the modes, ``[mode]``; second moments where no bias can carry the mean."""
        return self.blocks.variance.reshape(-1)

    def stable_learning_rate(self, sigma: ArrayLike) -> float:
        """Largest learning rate at which descent converges at all these noise levels."""
        return float(2 * self.learning_rate / self.regression.rates(self._checked(sigma=sigma)[0].reshape(-1)).max())

    def weight(
        self,
        time: ArrayLike,
        sigma: ArrayLike,
        variance: ArrayLike | None = None,
        initial_gain: ArrayLike | None = None,
    ) -> Array:
        """Gain ``Re u_k' W u_k`` of the denoiser along each mode, ``[*time, *sigma, mode]``.

        Args:
            time: gradient-flow time, or number of gradient-descent steps; zero or more, infinity allowed.
            sigma: noise levels.
            variance: that of the bound modes, or nothing.
            initial_gain: gain before training, ``[*sigma, mode]``, in place of the family's own initialisation.

        Raises:
            ValueError: for a negative argument, or a ``variance`` that is not the bound one.
        """
        self._check_bound(variance)
        weight = self._at(time, sigma, initial_gain)[0]
        return self._shaped(self.blocks.along(weight), time, sigma)

    def optimal_weight(self, sigma: ArrayLike, variance: ArrayLike | None = None) -> Array:
        """Gain of the exact denoiser of the data, ``[*sigma, mode]``, whether the family can reach it or not."""
        self._check_bound(variance)
        return super().optimal_weight(sigma, self.variance)

    def initial_weight(self, sigma: ArrayLike, variance: ArrayLike | None = None) -> Array:
        """Gain of the denoiser before training, ``[*sigma, mode]``."""
        return self.weight(0.0, sigma, variance)

    def loss(
        self,
        time: ArrayLike,
        sigma: ArrayLike,
        variance: ArrayLike | None = None,
        initial_gain: ArrayLike | None = None,
    ) -> Array:
        """Expected squared error of the denoiser at each noise level, ``[*time, *sigma]``.

        ``tr[(W - I) Sigma (W - I)' + sigma^2 W W'] + |W mu + b - mu|^2``, without loss weight. Arguments as for
        :meth:`weight`.
        """
        self._check_bound(variance)
        weight, bias = self._at(time, sigma, initial_gain)
        data = self.blocks
        off = weight - np.eye(weight.shape[-1])
        miss = (off @ data.mean[..., None])[..., 0] + bias
        level = np.asarray(sigma, np.float64).reshape(-1, 1, 1, 1)
        error = off @ data.covariance @ np.swapaxes(off.conj(), -1, -2)
        error = error + level**2 * (weight @ np.swapaxes(weight.conj(), -1, -2))
        error = error + miss[..., :, None] * miss[..., None, :].conj()
        return self._shaped(data.along(error).sum(axis=-1), time, sigma)

    def generated_variance(
        self,
        time: ArrayLike,
        variance: ArrayLike | None = None,
        sampler: Sampler | None = None,
        initial_gain: ArrayLike | None = None,
    ) -> Array:
        """Variance lambda~ of the generated samples along each mode of the data, ``[*time, mode]``.

        Args:
            time: gradient-flow time, or number of gradient-descent steps; zero or more, infinity allowed.
            variance: that of the bound modes, or nothing.
            sampler: a discrete sampler in place of the exact flow.
            initial_gain: gain before training at ``sampler.levels``, ``[levels, mode]``.

        Raises:
            ValueError: for a negative argument, a ``variance`` that is not the bound one, or ``initial_gain`` without a
                sampler.
        """
        self._check_bound(variance)
        gain = self._checked_gain(initial_gain, sampler)
        flat = self._checked(time=time)[0].reshape(-1)
        return self._shaped(self._chunked(partial(self._variances, sampler=sampler, gain=gain), flat)[0], time)

    def emergence_time(
        self,
        variance: ArrayLike | None = None,
        criterion: str | float | StaysWithin = "geometric",
        sampler: Sampler | None = None,
        initial_gain: ArrayLike | None = None,
    ) -> Array:
        """Time tau* at which the generated variance is learnt by a criterion, by root finding, ``[mode]``.

        The threshold lies between the generated variance at time 0 and the data's (with a sampler, or where the family
        cannot hold the data's spectrum: the one learning ends at). NaN where a mode never gets there.

        Args:
            variance: that of the bound modes, or nothing.
            criterion: as for :func:`~spectral_lightning.emergence.threshold`, or a
                :class:`~spectral_lightning.emergence.StaysWithin`.
            sampler: a discrete sampler in place of the exact flow.
            initial_gain: as for :meth:`generated_variance`.
        """
        self._check_bound(variance)
        start, end = self._ends(self.variance, sampler, initial_gain)
        gain = self._checked_gain(initial_gain, sampler)

        def curve(time: Array, mode: NDArray[np.int64]) -> Array:
            with np.errstate(divide="ignore"):
                if time.ndim == 2:  # the table over a grid: all modes at once
                    return np.log(self.generated_variance(time[:, 0], None, sampler, initial_gain)[:, mode[0]])
                return np.log(self._variance_at(time, mode, sampler, gain))

        if isinstance(criterion, StaysWithin):
            return settling_time(curve, *criterion.band(end), self._times(), start, whole=self.discrete)
        level, sign = threshold(start, end, criterion), direction(start, end)
        return passage_time(curve, level, sign, self._times(), whole=self.discrete)

    def exponent(
        self,
        variance: ArrayLike | None = None,
        criterion: str | float | StaysWithin = "geometric",
        sampler: Sampler | None = None,
        initial_gain: ArrayLike | None = None,
        gray_factor: float = 2.0,
        min_modes: int = 3,
    ) -> dict[str, PowerLaw]:
        """As :meth:`LearningDynamics.exponent`, over the bound modes."""
        self._check_bound(variance)
        return super().exponent(self.variance, criterion, sampler, initial_gain, gray_factor, min_modes)

    def kl_divergence(
        self,
        time: ArrayLike,
        variance: ArrayLike | None = None,
        sampler: Sampler | None = None,
        initial_gain: ArrayLike | None = None,
    ) -> Array:
        """KL(generated || data) in nats along each mode, ``[*time, mode]``, with the distance of the means.

        ``(r - 1 - log r) / 2 + |m~ - m|^2 / (2 lambda)``, ``r = lambda~ / lambda``; infinite for a null mode. The modes of
        the samples may be correlated; see :meth:`joint_kl_divergence`.
        """
        self._check_bound(variance)
        spread = super().kl_divergence(time, self.variance, sampler, initial_gain)
        if not (self.regression.coupled or np.any(self.regression.bias)):
            return spread  # no bias at any time, so both means are zero
        gain = self._checked_gain(initial_gain, sampler)
        flat = self._checked(time=time)[0].reshape(-1)
        mean = self._chunked(partial(self._moments, sampler=sampler, gain=gain), flat)[0]
        off = np.einsum("bik,...bi->...bk", self.blocks.modes.conj(), mean - self.blocks.mean)
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = np.where(off == 0, 0.0, np.abs(off) ** 2 / (2 * self.blocks.variance))
        return spread + self._shaped(distance.reshape(len(flat), -1), time)

    def joint_kl_divergence(self, time: ArrayLike, sampler: Sampler | None = None) -> Array:
        """KL(generated || data) of the whole Gaussians in nats, ``[*time]``: that of the modes and of their correlations."""
        flat = self._checked(time=time)[0].reshape(-1)
        covariance = self._chunked(partial(self._moments, sampler=sampler, gain=None), flat)[1]
        with np.errstate(divide="ignore"):
            apart = np.log(self.blocks.along(covariance)).sum(axis=-1)
            together = np.linalg.slogdet(covariance)[1].sum(axis=-1)
        correlations = self._shaped((apart - together) / 2, time)
        return np.asarray(self.kl_divergence(time, None, sampler).sum(axis=-1) + correlations, np.float64)

    def gradient_flow(self) -> Self:
        """The same family, on the same data, in continuous time."""
        twin = super().gradient_flow()
        twin._layer = self._layer.gradient_flow()
        if twin._bound is not None:
            twin._bound = twin._bound[0], replace(twin._bound[1], layer=twin._layer)
        return twin

    @property
    def longest_descent(self) -> float:
        """The most steps that :meth:`emergence_time` follows discrete descent for: until the slowest has settled."""
        return float(max(2.0, self._time_range()[1]))

    def _require(self) -> tuple[Blocks, AffineRegression]:
        if self._bound is None:
            raise ValueError(
                f"`{type(self).__name__}` must be bound to data, got none. Call `.bind(mean, covariance)` first."
            )
        return self._bound

    def _attach(self, blocks: Blocks, regression: AffineRegression) -> Self:
        bound = copy.copy(self)
        bound._bound = blocks, regression
        return bound

    def _at(self, time: ArrayLike, sigma: ArrayLike, initial_gain: ArrayLike | None) -> tuple[Field, Field]:
        t, s = (a.reshape(-1) for a in self._checked(time=time, sigma=sigma))
        gain = None
        if initial_gain is not None:
            gain = np.broadcast_to(np.asarray(initial_gain, np.float64), (*np.shape(sigma), len(self.variance)))
            gain = gain.reshape(len(s), -1)
        return self._affine(t, s, gain)

    def _moments(self, time: Array, sampler: Sampler | None, gain: Array | None) -> tuple[Field, Field]:
        """Mean ``[time, block, d]`` and covariance ``[time, block, d, d]`` of the generated samples."""

        def affine(sigma: Array) -> tuple[Field, Field]:
            return self._affine(time, sigma, gain)

        if sampler is None:
            start, end = self.sigma_max, flow_propagator(affine, self.sigma_min, self.sigma_max, self.nodes)
        else:
            start, end = sampler.start, sampled_propagator(affine, sampler)
        linear = start * end[..., :-1]
        return end[..., -1], linear @ np.swapaxes(linear.conj(), -1, -2)

    def _variances(self, time: Array, sampler: Sampler | None, gain: Array | None) -> tuple[Array]:
        return (self.blocks.along(self._moments(time, sampler, gain)[1]),)

    def _variance_at(self, time: Array, mode: NDArray[np.int64], sampler: Sampler | None, gain: Array | None) -> Array:
        """Generated variance of one mode at each time, for root finding."""
        table = self._chunked(partial(self._variances, sampler=sampler, gain=gain), time)[0]
        return np.asarray(table[np.arange(len(time)), mode])

    def _chunked(self, method: Callable[[Array], tuple[Field, ...]], time: Array) -> list[Field]:
        """Results of ``method`` over a time axis, in pieces that bound the memory."""
        data = self.blocks.covariance
        depth = self.nodes if data.shape[-1] == 1 else 32  # the quadrature holds all its nodes, the integrator a panel
        rows = max(1, _CELLS // (depth * data.size))
        parts = [method(time[first : first + rows]) for first in range(0, max(1, len(time)), rows)]
        return [np.concatenate(pieces) for pieces in zip(*parts, strict=True)]

    def _time_range(self) -> tuple[float, float]:
        """From well before the fastest weight moves to after the slowest has settled."""
        rates = self.regression.rates(np.geomspace(self.sigma_min, self.sigma_max, 33))
        return float(1e-6 / rates.max()), float(100 / rates[rates > 0].min())

    def _times(self) -> Array:
        """Times to look at for a passage: each costs a flow, so no more decades than the rates span."""
        if self.discrete:
            return time_grid(self.learning_rate, self.longest_descent)
        low, high = self._time_range()
        return np.geomspace(low, high, int(np.ceil(np.log10(high / low) * _TIMES_PER_DECADE)) + 1)

    def _ends(self, variance: Array, sampler: Sampler | None, gain: ArrayLike | None) -> tuple[Array, Array]:
        start = self.generated_variance(0.0, None, sampler, gain)
        own = sampler is None and self.target_is_data
        return start, self.variance if own else self.generated_variance(np.inf, None, sampler, gain)

    def _check_bound(self, variance: ArrayLike | None) -> None:
        own = self.variance
        if variance is None:
            return
        given = np.asarray(variance, np.float64)
        if given.shape != own.shape or not np.allclose(given, own, rtol=1e-5, atol=1e-9 * own.max(initial=0.0)):
            raise ValueError(
                f"`variance` must be that of the {len(own)} modes this is bound to, got other values of shape "
                f"{given.shape}. Leave it out, or bind to these data."
            )

    def _checked_gain(self, initial_gain: ArrayLike | None, sampler: Sampler | None) -> Array | None:
        if initial_gain is None:
            return None
        if sampler is None:
            raise ValueError("`initial_gain` must come with a `sampler`, at whose levels it was measured.")
        return np.broadcast_to(np.asarray(initial_gain, np.float64), (len(sampler.levels), len(self.variance)))

    @staticmethod
    def _shaped(flat: Field, *axes: ArrayLike) -> Field:
        """Undo the flattening of the leading axes."""
        shape = sum((np.shape(axis) for axis in axes), ())
        return flat.reshape(shape + flat.shape[len(axes) :])

    def _weight(self, time: Array, sigma: Array, variance: Array, initial: Array) -> NoReturn:
        """Not defined: here a gain belongs to a mode, not to a variance."""
        raise TypeError(f"`{type(self).__name__}` gives gains of its bound modes only, through `weight`.")

    def _initial(self, sigma: Array, variance: Array) -> NoReturn:
        """Not defined, for the same reason."""
        raise TypeError(f"`{type(self).__name__}` gives gains of its bound modes only, through `initial_weight`.")
