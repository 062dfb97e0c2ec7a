"""The probability flow of affine denoisers whose weights do not commute between noise levels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectral_lightning.sampling import Sampler

__all__ = ["flow_propagator", "sampled_propagator"]

Array = NDArray[np.float64]
Field = NDArray[Any]
Affine = Callable[[Array], tuple[Field, Field]]
"""Weights ``[time, sigma, *block, d, d]`` and biases ``[time, sigma, *block, d]`` at given noise levels."""

_STAGES = 4


def _collocation(stages: int) -> tuple[Array, Array, Array]:
    """Nodes on [0, 1], Runge-Kutta matrix and weights of the Gauss method of order ``2 stages``."""
    x, w = np.polynomial.legendre.leggauss(stages)
    nodes = (x + 1) / 2
    powers = np.arange(1, stages + 1)
    vandermonde = nodes[:, None] ** (powers - 1)
    matrix = (nodes[:, None] ** powers / powers) @ np.linalg.inv(vandermonde)
    return nodes, matrix, w / 2


def flow_propagator(affine: Affine, sigma_min: float, sigma_max: float, nodes: int = 200) -> Field:
    """End of the exact flow ``dz/du = z - W z - b``, ``u = log sigma``, as ``z = P z_T + p``.

    Gauss collocation of order 8 with ``nodes / 4`` equal panels in u. The weights are smooth functions of u and the
    right-hand side is not stiff, so 200 nodes reach rounding error.

    Returns:
        ``[P p]``, ``[time, *block, d, d + 1]``.
    """
    point, matrix, share = _collocation(_STAGES)
    edges = np.linspace(np.log(sigma_max), np.log(sigma_min), max(1, nodes // _STAGES) + 1)
    step = edges[1] - edges[0]
    state: Field | None = None
    for edge in edges[:-1]:
        weight, bias = (np.moveaxis(a, 1, -3 + i) for i, a in enumerate(affine(np.exp(edge + step * point))))
        d = weight.shape[-1]
        slope = np.eye(d) - weight
        if state is None:
            state = np.zeros((*slope.shape[:-3], d, d + 1), slope.dtype)
            state[..., :d] = np.eye(d)
        right = slope @ state[..., None, :, :]
        right[..., -1] -= bias
        # Stage slopes k_i = A_i (P + h sum_j a_ij k_j) + c_i, one linear system for all stages.
        system = -step * matrix[:, None, :, None] * slope[..., :, :, None, :]
        system = system.reshape(*slope.shape[:-3], _STAGES * d, _STAGES * d) + np.eye(_STAGES * d)
        stages = np.linalg.solve(system, right.reshape(*right.shape[:-3], _STAGES * d, d + 1)).reshape(right.shape)
        state = state + step * np.einsum("s,...sij->...ij", share, stages)
    return np.asarray(state)


def sampled_propagator(affine: Affine, sampler: Sampler) -> Field:
    """The same through the steps of a discrete sampler."""
    weight, bias = affine(np.asarray(sampler.levels))
    d = weight.shape[-1]
    index = {level: i for i, level in enumerate(sampler.levels)}
    state = np.zeros((*weight.shape[:1], *weight.shape[2:-1], d + 1), weight.dtype)
    state[..., :d] = np.eye(d)

    def denoiser(z: Field, level: float) -> Field:
        result = weight[:, index[level]] @ z
        result[..., -1] += bias[:, index[level]]
        return result

    return np.asarray(sampler(denoiser, state))
