"""The curves of affine denoisers whose weights need not commute: those of families that need the data themselves."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectral_lightning.sampling import Sampler
from spectral_lightning.theory.curves import Curves, checked
from spectral_lightning.theory.dynamics import LearningDynamics
from spectral_lightning.theory.solving.generation import flow_propagator, sampled_propagator
from spectral_lightning.theory.solving.regression import AffineRegression, Blocks

__all__ = ["AffineCurves"]

Array = NDArray[np.float64]
Field = NDArray[Any]

_CELLS = 2**21  # complex numbers held at a time: 32 MB


class AffineCurves(Curves):
    """Curves of an affine denoiser on the mean and the covariance of its data, block by block.

    The generated distribution comes from integrating the affine flow ``dz/du = z - W z - b``, ``u = log sigma``, whose
    weights need not commute, or from pushing it through a given :class:`~spectral_lightning.sampling.Sampler`.

    Args:
        family: the family.
        blocks: moments of the data.
        regression: the learning problem of the weights and the bias on these data.
        size: axes of the blocks in matrices and vectors; none for a single block.
    """

    def __init__(
        self, family: LearningDynamics, blocks: Blocks, regression: AffineRegression, size: tuple[int, ...] = ()
    ) -> None:
        super().__init__(family, blocks.variance.reshape(-1))
        self.blocks, self.regression, self.size = blocks, regression, size

    def stable_learning_rate(self, sigma: ArrayLike) -> float:
        """Largest learning rate at which descent converges at all these noise levels."""
        rates = self.regression.rates(checked(sigma=sigma)[0].reshape(-1))
        return float(2 * self.objective.learning_rate / rates.max())

    def weight(self, time: ArrayLike, sigma: ArrayLike, initial_gain: ArrayLike | None = None) -> Array:
        """Gain ``Re u_k' W u_k`` of the denoiser along each mode; see :meth:`Curves.weight`."""
        return _shaped(self.blocks.along(self._at(time, sigma, initial_gain)[0]), time, sigma)

    def loss(self, time: ArrayLike, sigma: ArrayLike, initial_gain: ArrayLike | None = None) -> Array:
        """Expected squared error; see :meth:`Curves.loss`.

        ``tr[(W - I) Sigma (W - I)' + sigma^2 W W'] + |W mu + b - mu|^2``.
        """
        weight, bias = self._at(time, sigma, initial_gain)
        data = self.blocks
        off = weight - np.eye(weight.shape[-1])
        miss = (off @ data.mean[..., None])[..., 0] + bias
        level = np.asarray(sigma, np.float64).reshape(-1, 1, 1, 1)
        error = off @ data.covariance @ np.swapaxes(off.conj(), -1, -2)
        error = error + level**2 * (weight @ np.swapaxes(weight.conj(), -1, -2))
        total = np.trace(error.real, axis1=-2, axis2=-1) + (np.abs(miss) ** 2).sum(axis=-1)
        return _shaped(total.sum(axis=-1), time, sigma)

    def kl_divergence(
        self, time: ArrayLike, sampler: Sampler | None = None, initial_gain: ArrayLike | None = None
    ) -> Array:
        """KL(generated || data) in nats along each mode, ``[*time, mode]``, with the distance of the means.

        ``(r - 1 - log r) / 2 + |m~ - m|^2 / (2 lambda)``, ``r = lambda~ / lambda``; infinite for a null mode. The modes of
        the samples may be correlated; see :meth:`joint_kl_divergence`.
        """
        spread = super().kl_divergence(time, sampler, initial_gain)
        if not (self.regression.coupled or np.any(self.regression.bias)):
            return spread  # no bias at any time, so both means are zero
        mean, _ = self._distribution(time, sampler, initial_gain)
        off = np.einsum("bik,...bi->...bk", self.blocks.modes.conj(), mean - self.blocks.mean)
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = np.where(off == 0, 0.0, np.abs(off) ** 2 / (2 * self.blocks.variance))
        return spread + _shaped(distance.reshape(len(distance), -1), time)

    def joint_kl_divergence(self, time: ArrayLike, sampler: Sampler | None = None) -> Array:
        """KL(generated || data) of the whole Gaussians in nats, ``[*time]``: that of the modes and of their correlations."""
        _, covariance = self._distribution(time, sampler)
        with np.errstate(divide="ignore"):
            apart = np.log(self.blocks.along(covariance)).sum(axis=-1)
            together = np.linalg.slogdet(covariance)[1].sum(axis=-1)
        correlations = _shaped((apart - together) / 2, time)
        return np.asarray(self.kl_divergence(time, sampler).sum(axis=-1) + correlations, np.float64)

    @property
    def longest_descent(self) -> float:
        """The most steps that :meth:`emergence_time` follows discrete descent for: until the slowest has settled."""
        return float(max(2.0, self._time_range()[1]))

    def affine(self, time: Array, sigma: Array, gain: Array | None = None) -> tuple[Field, Field]:
        """Weights ``[time, sigma, block, d, d]`` and bias ``[time, sigma, block, d]`` of the denoiser.

        ``gain``, ``[sigma, mode]``, is that before training if the family's own is replaced.
        """
        return self.regression.at(time, sigma, None if gain is None else self.blocks.aligned(gain))

    def _at(self, time: ArrayLike, sigma: ArrayLike, initial_gain: ArrayLike | None = None) -> tuple[Field, Field]:
        t, s = (a.reshape(-1) for a in checked(time=time, sigma=sigma))
        gain = None if initial_gain is None else self._gain(initial_gain, sigma).reshape(len(s), -1)
        return self.affine(t, s, gain)

    def _distribution(
        self, time: ArrayLike, sampler: Sampler | None, initial_gain: ArrayLike | None = None
    ) -> list[Field]:
        """Mean ``[flat time, block, d]`` and covariance ``[flat time, block, d, d]`` of the generated samples."""
        gain = self._level_gains(initial_gain, sampler)
        return self._chunked(partial(self._moments, sampler=sampler, gain=gain), checked(time=time)[0].reshape(-1))

    def _moments(self, time: Array, sampler: Sampler | None, gain: Array | None) -> tuple[Field, Field]:
        def affine(sigma: Array) -> tuple[Field, Field]:
            return self.affine(time, sigma, gain)

        if sampler is None:
            low, start = self.objective.sigma_min, self.objective.sigma_max
            end = flow_propagator(affine, low, start, self.family.nodes)
        else:
            start, end = sampler.start, sampled_propagator(affine, sampler)
        linear = start * end[..., :-1]
        return end[..., -1], linear @ np.swapaxes(linear.conj(), -1, -2)

    def _variances(self, time: Array, sampler: Sampler | None, gain: Array | None) -> tuple[Array]:
        """Generated variance of all modes, ``[time, mode]``."""
        return (self.blocks.along(self._moments(time, sampler, gain)[1]),)

    def _log_variance(self, time: Array, mode: NDArray[np.int64], sampler: Sampler | None, gain: Array | None) -> Array:
        # A grid of times serves all modes at once; in root finding every mode has another time.
        flat = time[:, 0] if time.ndim == 2 else time
        table = self._chunked(partial(self._variances, sampler=sampler, gain=gain), flat)[0]
        with np.errstate(divide="ignore"):
            return np.log(np.maximum(table[:, mode[0]] if time.ndim == 2 else table[np.arange(len(time)), mode], 0.0))

    def _chunked(self, method: Callable[[Array], tuple[Field, ...]], time: Array) -> list[Field]:
        """Results of ``method`` over a time axis, in pieces that bound the memory."""
        data = self.blocks.covariance
        # The quadrature holds all its nodes, the integrator a panel.
        depth = self.family.nodes if data.shape[-1] == 1 else 32
        rows = max(1, _CELLS // (depth * data.size))
        parts = [method(time[first : first + rows]) for first in range(0, max(1, len(time)), rows)]
        return [np.concatenate(pieces) for pieces in zip(*parts, strict=True)]

    def _unfolded(self, flat: Field, *axes: ArrayLike) -> Field:
        """Undo the flattening of the leading axes and of the blocks behind them."""
        blocks = flat.shape[len(axes) + 1 :]
        return _shaped(flat.reshape(flat.shape[: len(axes)] + self.size + blocks), *axes)

    def _time_range(self) -> tuple[float, float]:
        """From well before the fastest weight moves to after the slowest has settled: each time costs a flow."""
        rates = self.regression.rates(np.geomspace(self.objective.sigma_min, self.objective.sigma_max, 33))
        return float(1e-6 / rates.max()), float(100 / rates[rates > 0].min())


def _shaped(flat: Field, *axes: ArrayLike) -> Field:
    """Undo the flattening of the leading axes."""
    return flat.reshape(sum((np.shape(axis) for axis in axes), ()) + flat.shape[len(axes) :])
