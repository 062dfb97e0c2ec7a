"""The theory of one linear layer whose weights are shared across noise levels (beyond Wang & Pehlevan)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spectral_lightning.diffusion import GridNoise, LogNormalNoise
from spectral_lightning.theory import LearningDynamics, Preconditioning, wiener_gain
from spectral_lightning.theory.solving.stack import remaining_error

__all__ = ["SharedLayer", "features", "levels_of"]

Array = NDArray[np.float64]

_ENDS = (np.log(0.002), np.log(80.0))
_SHARPNESS = 0.6
_NODES = 100  # of Gauss and Hermite: the second moments of 8 bumps are good to 1e-6


def features(log_sigma: Array, count: int, share: float) -> Array:
    """What one layer sees of the noise level: a constant, and ``count`` bumps; ``[*log_sigma, 1 + count]``.

    ``phi_0 = sqrt(share)`` and ``phi_j = sqrt((1 - share) softmax_j(-((ln sigma - c_j) / spacing)^2 / 0.6))`` with centres
    c_j evenly spaced from ln 0.002 to ln 80. So ``phi(s) . phi(t)``, how much a step at one level moves another, is 1 for
    equal levels and falls to ``share`` for distant ones, over about one spacing.
    """
    centres = np.linspace(*_ENDS, count)
    spacing = (_ENDS[1] - _ENDS[0]) / (count - 1)
    exponent = -(((np.asarray(log_sigma)[..., None] - centres) / spacing) ** 2) / _SHARPNESS
    raw = np.exp(exponent - exponent.max(axis=-1, keepdims=True))
    local = np.sqrt((1 - share) * raw / raw.sum(axis=-1, keepdims=True))
    return np.concatenate([np.full((*local.shape[:-1], 1), np.sqrt(share)), local], axis=-1)


def levels_of(noise: GridNoise | LogNormalNoise) -> tuple[Array, Array]:
    """Noise levels and probabilities that stand for a distribution in an expectation, ``[M]`` and ``[M]``."""
    if isinstance(noise, GridNoise):
        return np.array(noise.sigmas), np.array(noise.probabilities)
    x, weight = np.polynomial.hermite_e.hermegauss(_NODES)
    return np.exp(noise.mean + noise.std * x), weight / weight.sum()


class SharedLayer(LearningDynamics):
    """``F(x; sigma) = sum_j phi_j(ln sigma) W_j x``: one linear layer for all noise levels, learnt from zero by descent.

    Along a mode of variance lambda the gains ``q_j`` of the ``W_j`` have the quadratic loss

    ``L = E_sigma[w a^2 (lambda + sigma^2) (sum_j phi_j q_j - q*)^2] + const``, ``a = c_out c_in``,
    ``q* = (lambda / (lambda + sigma^2) - c_skip) / a``,

    so that ``dq/dtau = -2 eta (M q - v)`` with ``M_jk = E[w a^2 (lambda + sigma^2) phi_j phi_k]`` and
    ``v_j = E[w a^2 (lambda + sigma^2) phi_j q*]``. What the phi_j cannot tell apart is learnt as a compromise; directions
    that M does not see stay at zero. A level learns through ``phi(s) . phi(t)`` from the others; were that 0 between
    different levels, it would be :class:`OneLayer`.

    Args:
        learning_rate: eta, of a loss summed over the coordinates.
        noise: distribution of the noise levels.
        count: number of bumps among the phi_j, which are :func:`features`.
        share: what distant noise levels share.
        preconditioning: how F becomes the denoiser and how its loss is weighted; EDM if not given. A measured initial gain
            is not used: the layer starts at F = 0.
        discrete: gradient descent with ``time`` counting steps, instead of gradient flow.
    """

    def __init__(
        self,
        learning_rate: float,
        noise: GridNoise | LogNormalNoise,
        count: int = 8,
        share: float = 0.65,
        preconditioning: Preconditioning | None = None,
        discrete: bool = True,
    ) -> None:
        super().__init__(learning_rate)
        self.count, self.share, self.discrete = count, share, discrete
        self.preconditioning = preconditioning or Preconditioning("edm")
        self._levels, self._probability = levels_of(noise)

    def quadratic(self, variance: Array) -> tuple[Array, Array]:
        """M and v of modes of the given variances, ``[K, J, J]`` and ``[K, J]`` with ``J = 1 + count``."""
        p, sigma, lam = self.preconditioning, self._levels, variance[:, None]
        weight = self._probability * p.rate_factor(sigma) * (lam + sigma**2)
        optimum = (wiener_gain(sigma, lam) - p.c_skip(sigma)) / (p.c_out(sigma) * p.c_in(sigma))
        phi = features(np.log(sigma), self.count, self.share)
        second = np.einsum("km,mi,mj->kij", weight, phi, phi, optimize=True)
        return second, np.asarray((weight * optimum) @ phi)

    def stable_learning_rate(self, variance: Array) -> float:
        """Largest learning rate at which descent converges along modes of these variances."""
        return float(1 / np.linalg.eigvalsh(self.quadratic(variance)[0]).max())

    def gains(self, time: Array, variance: Array) -> Array:
        """The q_j at ``time``, arguments broadcast; ``[*cells, 1 + count]``."""
        unique, index = np.unique(variance, return_inverse=True)
        index = index.reshape(variance.shape)
        second, first = self.quadratic(unique)
        values, vectors = np.linalg.eigh(second)
        values = np.maximum(values, 0.0)  # rounding of directions that no noise level sees
        along = np.einsum("kji,kj->ki", vectors, first)
        end = np.divide(along, values, out=np.zeros(along.shape), where=values > 1e-14 * values.max())
        left = remaining_error(np.asarray(time)[..., None], 2 * self.learning_rate * values[index], self.discrete)
        return np.asarray(np.einsum("...ji,...i->...j", vectors[index], end[index] * (1 - left), optimize=True))

    def _weight(self, time: Array, sigma: Array, variance: Array, initial: Array) -> Array:
        phi = features(np.log(sigma), self.count, self.share)
        network = (phi * self.gains(time, variance)).sum(axis=-1)
        return np.asarray(self.preconditioning.gain(sigma, network), np.float64)

    def _initial(self, sigma: Array, variance: Array) -> Array:
        return np.asarray(self.preconditioning.c_skip(sigma), np.float64)
