"""Gradient descent on the affine prediction of clean coordinates from noisy features, in closed form, and its moments."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectral_lightning.theory.objective import Objective
from spectral_lightning.theory.solving.generation import wiener_gain

__all__ = ["AffineRegression", "Blocks"]

Array = NDArray[np.float64]
Field = NDArray[Any]  # float64, or complex128 in Fourier space


@dataclass(frozen=True)
class Blocks:
    """Moments of independent blocks: the whole vector, one block of channels per frequency, or a patch of pixels.

    Attributes:
        covariance: ``[*block, d, d]``, Hermitian.
        mean: ``[*block, d]``.
    """

    covariance: Field
    mean: Field

    @cached_property
    def _eigen(self) -> tuple[Array, Field]:
        variance, modes = np.linalg.eigh(self.covariance)
        return np.maximum(variance, 0.0)[..., ::-1], modes[..., ::-1]

    @property
    def variance(self) -> Array:
        """Variance of every mode, descending within a block, ``[*block, d]``."""
        return self._eigen[0]

    @property
    def modes(self) -> Field:
        """Modes of every block as columns, ``[*block, d, d]``."""
        return self._eigen[1]

    def along(self, matrix: Field) -> Array:
        """Diagonal ``u' A u`` of ``[.., block, d, d]`` along the modes, flattened to ``[.., mode]``."""
        diagonal = (self.modes.conj() * (matrix @ self.modes)).sum(axis=-2).real
        return np.asarray(diagonal.reshape(*diagonal.shape[:-2], -1), np.float64)

    def aligned(self, gain: Array) -> Field:
        """The matrices ``[.., block, d, d]`` that have gains ``[.., mode]`` along the modes."""
        shaped = gain.reshape(*gain.shape[:-1], *self.variance.shape)
        return np.asarray((self.modes * shaped[..., None, :]) @ np.swapaxes(self.modes.conj(), -1, -2))


@dataclass(frozen=True)
class AffineRegression:
    """Exact learning of ``[W b]`` when clean coordinates are predicted from noisy features, block by block.

    The noisy features ``phi`` have mean m and covariance ``S + sigma^2 I``; the target is E times the clean features, where
    E selects rows. With ``D = c_skip E phi + c_out F(c_in phi)``, F affine, the weights of D follow

    ``d[W b]/dtau = -2 eta ([W b] G - E [S + m m', m]) R``, ``G = [[S + sigma^2 I + m m', m], [m', 1]]``,

    ``R = n weight diag(v (c_out c_in)^2, .., v_b c_out^2)``, which the eigenvectors of ``R^(1/2) G R^(1/2)`` solve. A block
    is the whole data vector for :class:`NonCenteredOneLayer`, a frequency for :class:`FullWidthConvolution`, and a patch
    for :class:`LocalConvolution`. The computation runs in the eigenbasis of S, where G is diagonal for m = 0.

    Reference: WP section 4.2 and appendix D; the factors of R are beyond WP.

    Args:
        objective: learning rate, preconditioning, noise density, and flow or descent.
        data: S and m, of p features.
        select: E, ``[o, p]``.
        weight: weights of F before training, ``[*block, o, p]``.
        bias: bias of F before training, ``[*block, o]``.
        speed: v, how many of the summed coordinates share a weight.
        bias_speed: v_b, the same for the bias; 0 for no bias, where the mean then has to be 0. Scalar or ``[*block]``.
    """

    objective: Objective
    data: Blocks
    select: Array
    weight: Field
    bias: Field
    speed: float
    bias_speed: float | NDArray[np.floating[Any]]

    def at(self, time: Array, sigma: Array, start: Field | None = None) -> tuple[Field, Field]:
        """Weights ``[time, sigma, *block, o, p]`` and bias ``[time, sigma, *block, o]`` of the denoiser.

        Args:
            time: ``[time]``.
            sigma: ``[sigma]``.
            start: weights of the denoiser before training, ``[sigma, *block, o, p]``, which replace its own.
        """
        root, rate, axes = self._relaxation(sigma)
        optimum, initial = self._optimum(sigma), self._initial(sigma, start)
        share = self.objective.remaining(time.reshape(-1, *(1,) * rate.ndim), rate)
        error = np.divide(
            initial - optimum, root[..., None, :], out=np.zeros_like(optimum), where=root[..., None, :] > 0
        )
        if axes is None:
            moved = error * share[..., None, :]
        else:
            moved = ((error @ axes) * share[..., None, :]) @ np.swapaxes(axes.conj(), -1, -2)
        solution = optimum + moved * root[..., None, :]
        return solution[..., :-1] @ np.swapaxes(self.data.modes.conj(), -1, -2), solution[..., -1]

    def rates(self, sigma: Array) -> Array:
        """Relaxation rates of the weights and the bias per unit of time, ``[sigma, *block, p + 1]``."""
        return self._relaxation(sigma)[1]

    @property
    def coupled(self) -> bool:
        """Whether a mean couples the bias to the weights."""
        return bool(np.any(self.data.mean != 0))

    @cached_property
    def _mean(self) -> Field:
        """The mean in the eigenbasis, ``[*block, p]``."""
        return np.asarray((self.data.mean[..., None, :] @ self.data.modes.conj())[..., 0, :])

    def _column(self, sigma: Array, extra: int = 0) -> Array:
        """Noise levels as the first axis of ``[sigma, *block, ..]``."""
        return sigma.reshape(-1, *(1,) * (self.data.mean.ndim - 1 + extra))

    def _relaxation(self, sigma: Array) -> tuple[Array, Array, Field | None]:
        """Square root of R up to its common factor, the rates, and eigenvectors unless the problem is diagonal."""
        shape = self.data.variance.shape
        conditioning, s = self.objective.preconditioning, self._column(sigma)
        ratio = self.bias_speed / (self.speed * np.asarray(conditioning.c_in(s), np.float64) ** 2)
        ratio = np.broadcast_to(ratio, (len(sigma), *shape[:-1]))[..., None]
        root = np.concatenate([np.ones((len(sigma), *shape)), np.sqrt(ratio)], axis=-1)
        factor = (self.speed * self.objective.rate(s, np.ones(1)))[..., None]
        noisy = np.broadcast_to(self.data.variance + self._column(sigma, 1) ** 2, (len(sigma), *shape))
        diagonal = np.concatenate([noisy, np.zeros_like(ratio)], axis=-1)
        if not self.coupled:
            diagonal[..., -1:] = ratio
            return root, factor * diagonal, None
        last = np.concatenate([self._mean, np.ones((*shape[:-1], 1))], axis=-1) * root
        gram = last[..., :, None] * last[..., None, :].conj()
        gram[..., np.arange(shape[-1]), np.arange(shape[-1])] += noisy
        values, vectors = np.linalg.eigh(gram)
        # A direction without data keeps its initial weight; rounding would let it relax by time infinity.
        rounding = values.shape[-1] * np.finfo(np.float64).eps * values[..., -1:]
        return root, factor * np.where(values > rounding, values, 0.0), vectors

    def _optimum(self, sigma: Array) -> Field:
        """``[W* b*]`` with the weights' columns in the eigenbasis, ``[sigma, *block, o, p + 1]``."""
        target = self.select @ self.data.modes
        weight = target * wiener_gain(self._column(sigma, 1), self.data.variance)[..., None, :]
        bias = (target - weight) @ self._mean[..., :, None]
        return np.concatenate([weight, bias], axis=-1)

    def _initial(self, sigma: Array, start: Field | None) -> Field:
        conditioning, s = self.objective.preconditioning, self._column(sigma, 2)
        skip, out, scale = (
            np.asarray(c(s), np.float64) for c in (conditioning.c_skip, conditioning.c_out, conditioning.c_in)
        )
        weight = skip * self.select + out * scale * self.weight if start is None else start
        weight = weight @ self.data.modes
        bias = np.broadcast_to((out * self.bias[..., None]), (*weight.shape[:-1], 1))
        return np.concatenate([weight, bias], axis=-1)
