"""One layer from any matrix: against descent on the matrix itself, level by level, and the sampler's steps on it."""

import numpy as np
import pytest

from spectral_lightning import Sampler
from spectral_lightning.theory import FlowMatching, Objective, OneLayer, Preconditioning
from spectral_lightning.theory.solving.generation import sampled_map

VARIANCE = np.geomspace(4.0, 0.02, 6)
RATE, STEPS = 0.02, 9


def edm(sigma):
    """Half the gradient of the weighted loss with respect to F's matrix."""
    skip, scale = 0.25 / (sigma**2 + 0.25), 0.5 * sigma / (sigma**2 + 0.25)
    weight = (sigma**2 + 0.25) / (0.5 * sigma) ** 2
    return lambda w, cov, eye: weight * scale * ((skip * eye + scale * w) @ (cov + sigma**2 * eye) - cov)


CASES = {
    "edm": (
        OneLayer(Objective(RATE, Preconditioning("edm"), discrete=True)),
        edm,
        lambda s, w, eye: 0.25 / (s**2 + 0.25) * eye + 0.5 * s / (s**2 + 0.25) * w,
    ),
    "flow matching": (
        FlowMatching(Objective(RATE, discrete=True)),
        lambda s: lambda v, cov, eye: (v @ (cov + s**2 * eye) / (1 + s) - (cov - s * eye)) / (1 + s),
        lambda s, v, eye: (eye + s / (1 + s) * v) / (1 + s),
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("solver", ["heun", "adams"])
def test_variance_from_any_matrix_against_descent(case, solver):
    theory, gradient, denoiser = CASES[case]
    rng, sampler = np.random.default_rng(0), Sampler(solver, 6, 0.02, 20.0)
    rotation, eye = np.linalg.qr(rng.standard_normal((6, 6)))[0], np.eye(6)
    covariance = (rotation * VARIANCE) @ rotation.T
    start, end = [], {}
    for sigma in sampler.levels:
        weight, slope = 0.5 * rng.standard_normal((6, 6)), gradient(sigma)
        start.append(rotation.T @ denoiser(sigma, weight, eye) @ rotation)
        for _ in range(STEPS):
            weight = weight - 2 * RATE * slope(weight, covariance, eye)
        end[sigma] = denoiser(sigma, weight, eye)
    samples = sampler(lambda z, sigma: end[sigma] @ z, sampler.start * eye)
    gain = np.einsum("lkk->lk", np.array(start))
    curves = theory.on(VARIANCE)
    found = curves.sampled_map(STEPS, sampler, start, gain)
    np.testing.assert_allclose(found @ found.T, rotation.T @ samples @ samples.T @ rotation, rtol=1e-9, atol=1e-9)
    diagonal = curves.generated_variance(STEPS, sampler, gain)
    assert np.abs(np.log(diagonal / np.square(found).sum(1))).max() > 0.05


def test_rows_without_a_response_are_their_gains():
    rng, sampler = np.random.default_rng(0), Sampler("adams", 5)
    full, gain = 0.5 * rng.standard_normal((5, 6, 6)), rng.standard_normal((5, 6))
    full[:, 4:] = np.einsum("lk,kj->lkj", gain, np.eye(6))[:, 4:]
    index = {level: i for i, level in enumerate(sampler.levels)}
    expected = sampler(lambda z, sigma: full[index[sigma]] @ z, sampler.start * np.eye(6))
    np.testing.assert_allclose(sampled_map(full[:, :4], gain, sampler), expected, rtol=1e-12, atol=1e-12)


def test_deeper_families_refuse_a_response():
    with pytest.raises(ValueError, match="initial_response"):
        FlowMatching(Objective(RATE), 0.1, 2).on(VARIANCE).sampled_map(1.0, Sampler(), np.zeros((18, 6, 6)), 0.0)
