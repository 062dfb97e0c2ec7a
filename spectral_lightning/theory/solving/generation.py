"""What linear and affine denoisers generate: by the exact flow, or through the steps of a given sampler."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectral_lightning.sampling import Sampler

__all__ = [
    "fixed_point",
    "flow_propagator",
    "gauss_legendre",
    "sampled_amplitude",
    "sampled_map",
    "sampled_propagator",
    "sampler_bias",
    "tuned_sampler",
    "wiener_gain",
]

Array = NDArray[np.float64]
Field = NDArray[Any]
Affine = Callable[[Array], tuple[Field, Field]]
"""Weights ``[time, sigma, *block, d, d]`` and biases ``[time, sigma, *block, d]`` at given noise levels."""

_STAGES = 4
_STEPS, _QUANTILES = (8, 10, 12, 16, 20, 24), 64


def wiener_gain(sigma: ArrayLike, variance: ArrayLike) -> Array:
    """Gain of the exact denoiser, ``psi* = lambda / (lambda + sigma^2)`` (WP equation 6), arguments broadcast.

    1 at sigma = 0 for every mode with variance; 0 for a null mode at any sigma.
    """
    s2, lam = np.broadcast_arrays(np.square(np.asarray(sigma, np.float64)), np.asarray(variance, np.float64))
    total = lam + s2
    gain: Array = np.divide(lam, total, out=np.zeros_like(total), where=total > 0)
    return gain


@lru_cache(maxsize=8)
def gauss_legendre(low: float, high: float, nodes: int) -> tuple[Array, Array]:
    """Noise levels and weights of ``Integral f(sigma) d log sigma`` from ``low`` to ``high``."""
    x, weight = np.polynomial.legendre.leggauss(nodes)
    bottom, top = np.log(low), np.log(high)
    return np.exp((top - bottom) / 2 * x + (top + bottom) / 2), (top - bottom) / 2 * weight


def sampled_amplitude(gain: Field, sampler: Sampler) -> Field:
    """Standard deviation that the sampler generates from ``z ~ N(0, start^2)`` with ``D = psi z``, with its sign.

    Args:
        gain: psi at each of ``sampler.levels``, real or complex, ``[levels, ...]``.
        sampler: the discrete sampler.

    Returns:
        ``[...]``.
    """
    psi = dict(zip(sampler.levels, gain, strict=True))
    start = np.full(gain.shape[1:], sampler.start, gain.dtype)
    amplitude: Field = sampler(lambda z, sigma: psi[sigma] * z, start)
    return amplitude


def sampled_map(rows: Array, gain: Array, sampler: Sampler) -> Array:
    """The map from white latents to samples that the sampler makes of linear denoisers ``D = W z``, ``[d, d]``.

    Cost: ``2 m^2 d`` operations and about 25 passes over m d numbers per level.

    Args:
        rows: the first m rows of W at each of ``sampler.levels``, ``[levels, m, d]``.
        gain: diagonal of W, ``[levels, d]``; its other rows hold nothing else.
        sampler: the discrete sampler.
    """
    index, (m, d) = {level: i for i, level in enumerate(sampler.levels)}, rows.shape[1:]

    def denoiser(z: Array, level: float) -> Array:
        weight = rows[index[level]]
        result: Array = gain[index[level]] * z
        result[:m] = weight[:, :m] @ z[:m]
        result[:m, m:] += weight[:, m:] * z[m, m:]
        return result

    # The first m rows of the map; below them the diagonal of all others.
    state = np.vstack([np.eye(m, d), np.ones(d)]) * sampler.start
    state = sampler(denoiser, state)
    end = np.diag(state[m])
    end[:m] = state[:m]
    return end


def fixed_point(variance: ArrayLike, sampler: Sampler) -> Array:
    """Variance that the sampler generates with the exact denoiser of a Gaussian, ``[modes]``: the measured end of learning.

    It differs from the data's variance by 2-21 % at 20 Heun steps.

    Example:
        >>> fixed_point([1.0], Sampler(num_steps=18)).round(3)
        array([1.091])
    """
    lam = np.asarray(variance, np.float64)
    gain = wiener_gain(np.asarray(sampler.levels)[:, None], lam)
    return np.asarray(sampled_amplitude(gain, sampler) ** 2, np.float64)


def sampler_bias(variance: ArrayLike, sampler: Sampler) -> Array:
    """Log of the variance that the sampler makes of the exact denoiser over that of the exact flow, ``[modes]``.

    Both start at ``z ~ N(0, start^2)``; the flow ends at ``lambda start^2 / (lambda + start^2)``. For modes with variance.
    """
    lam = np.asarray(variance, np.float64)
    return np.asarray(np.log(fixed_point(lam, sampler) * (lam + sampler.start**2) / (lam * sampler.start**2)))


def tuned_sampler(
    variance: ArrayLike, num_steps: int = 8, tolerance: float = 0.03, sigma_max: float = 80.0, most: int = 24
) -> Sampler:
    """The Adams sampler whose bias on a spectrum is small, with as few evaluations as that takes, at least ``num_steps``.

    Scans 45 pairs of scale and grading, and takes the fewest steps at which the best pair has :func:`sampler_bias` of at most
    ``tolerance`` over two decades about the mean variance, and of at most twice that in root mean square over the modes.

    Args:
        variance: of the data along the modes, ``[modes]``; null modes are left out.
        num_steps: the fewest evaluations.
        tolerance: bias of the log variance.
        sigma_max: noise level at which sampling starts.
        most: the most evaluations; returned whatever their bias.

    Example:
        >>> sampler = tuned_sampler(np.arange(1, 65.0) ** -1.5)
        >>> sampler.evaluations, bool(np.abs(sampler_bias(np.geomspace(0.1, 10, 9) * 0.04, sampler)).max() < 0.03)
        (8, True)
    """
    lam = np.asarray(variance, np.float64)
    lam = lam[lam > 0]
    if not len(lam):
        raise ValueError("`variance` must hold a mode with variance, got none.")
    return _tuned(tuple(lam.tolist()), num_steps, tolerance, sigma_max, most)


@lru_cache(maxsize=32)  # trackers of one training, and a resumed one, ask for the same
def _tuned(variance: tuple[float, ...], num_steps: int, tolerance: float, sigma_max: float, most: int) -> Sampler:
    lam = np.array(variance)
    mean, spread = lam.mean(), np.quantile(lam, np.linspace(0, 1, min(len(lam), _QUANTILES)))
    modes, centre = np.append(spread, mean * np.geomspace(0.1, 10, 13)), slice(len(spread), None)
    least, best = math.inf, Sampler("adams", num_steps, sigma_max=sigma_max)
    for steps in [num_steps, *(n for n in _STEPS if num_steps < n <= most)]:
        for scale, grading in product(float(mean) ** 0.5 * np.geomspace(0.6, 4, 9), (1.0, 1.25, 1.375, 1.5, 1.75)):
            one = Sampler("adams", steps, sigma_max=sigma_max, scale=float(scale), grading=grading)
            bias = np.abs(sampler_bias(modes, one))
            largest = max(bias[centre].max(), np.sqrt(np.mean(bias[: len(spread)] ** 2)) / 2)
            if largest < least:
                least, best = float(largest), one
        if least <= tolerance:
            break
    return best


def flow_propagator(affine: Affine, sigma_min: float, sigma_max: float, nodes: int = 200) -> Field:
    """End of the exact flow ``dz/du = z - W z - b``, ``u = log sigma``, as ``z = P z_T + p``.

    Gauss collocation of order 8 with ``nodes / 4`` equal panels in u. The weights are smooth functions of u and the
    right-hand side is not stiff, so 200 nodes reach rounding error.

    Returns:
        ``[P p]``, ``[time, *block, d, d + 1]``.
    """
    # Nodes on [0, 1], Runge-Kutta matrix and weights of the Gauss method.
    x, w = np.polynomial.legendre.leggauss(_STAGES)
    point, share, powers = (x[:, None] + 1) / 2, w / 2, np.arange(1, _STAGES + 1)
    matrix = (point**powers / powers) @ np.linalg.inv(point ** (powers - 1))
    edges = np.linspace(np.log(sigma_max), np.log(sigma_min), max(1, nodes // _STAGES) + 1)
    step = edges[1] - edges[0]
    state: Field | None = None
    for edge in edges[:-1]:
        weight, bias = (np.moveaxis(a, 1, -3 + i) for i, a in enumerate(affine(np.exp(edge + step * point[:, 0]))))
        d = weight.shape[-1]
        slope = np.eye(d) - weight
        if state is None:
            state = np.eye(d, d + 1)
        right = slope @ state[..., None, :, :]
        right[..., -1] -= bias
        # Stage slopes k_i = A_i (P + h sum_j a_ij k_j) + c_i, one linear system for all stages.
        system = -step * matrix[:, None, :, None] * slope[..., :, :, None, :]
        system = system.reshape(*slope.shape[:-3], _STAGES * d, _STAGES * d) + np.eye(_STAGES * d)
        stages = np.linalg.solve(system, right.reshape(*right.shape[:-3], _STAGES * d, d + 1)).reshape(right.shape)
        state = state + step * np.einsum("s,...sij->...ij", share, stages)
    return np.asarray(state)


def sampled_propagator(affine: Affine, sampler: Sampler) -> Field:
    """The same as :func:`flow_propagator`, through the steps of a discrete sampler."""
    weight, bias = (np.moveaxis(a, 1, 0) for a in affine(np.asarray(sampler.levels)))
    index, d = {level: i for i, level in enumerate(sampler.levels)}, weight.shape[-1]

    def denoiser(z: Field, level: float) -> Field:
        result: Field = weight[index[level]] @ z
        result[..., -1] += bias[index[level]]
        return result

    end: Field = sampler(denoiser, np.eye(d, d + 1))
    return end
