"""The loss against a loop over examples, and the noise levels it is taken at."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from spectral_lightning.diffusion import (
    DDPMNoise,
    GridNoise,
    LogNormalNoise,
    UniformTimeNoise,
    denoising_loss,
)
from spectral_lightning.theory import Preconditioning

CPU = torch.device("cpu")
WEIGHTS = {  # from table 1 of Karras et al. and appendix D of Salimans & Ho, written out
    "edm": lambda s: (s * s + 0.25) / (s * 0.5) ** 2,
    "none": lambda s: 1.0,
    "velocity": lambda s: (1 + s * s) / (s * s),
    "variance_preserving": lambda s: 1 / (s * s),
    "x0": lambda s: 1.0,
    "flow": lambda s: ((1 + s) / s) ** 2,
}


@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("shape", [(5,), (2, 3, 4)])
def test_loss_is_that_of_a_loop(kind, reduction, shape):
    generator = torch.Generator().manual_seed(0)
    denoised, clean = torch.randn(2, 7, *shape, generator=generator, dtype=torch.float64)
    sigma = torch.rand(7, generator=generator, dtype=torch.float64) * 3 + 0.1
    total = 0.0
    for i in range(7):
        error = sum(
            (a - b) ** 2 for a, b in zip(denoised[i].flatten().tolist(), clean[i].flatten().tolist(), strict=True)
        )
        error = error / math.prod(shape) if reduction == "mean" else error
        total += WEIGHTS[kind](sigma[i].item()) * error / 7
    given = () if reduction == "mean" else (reduction,)  # the mean is the default
    loss = denoising_loss(denoised, clean, sigma, Preconditioning(kind), *given)
    np.testing.assert_allclose(loss.item(), total, rtol=1e-12)  # float64 sums of 168 terms
    assert loss.shape == ()


def test_unknown_reduction():
    with pytest.raises(ValueError, match="`reduction`"):
        denoising_loss(torch.ones(2, 3), torch.ones(2, 3), torch.ones(2), Preconditioning(), "none")


LOG = {  # ln sigma: its distribution in SciPy, and where nearly all of it lies
    "log-normal": (LogNormalNoise(), stats.norm(-1.2, 1.2), (-12.0, 9.6)),
    "narrow": (LogNormalNoise(0.5, 0.3), stats.norm(0.5, 0.3), (-2.2, 3.2)),
    "uniform time": (UniformTimeNoise(), None, (-6.9, 6.9)),
    "cut": (UniformTimeNoise(0.2), None, (-1.38, 1.38)),
}


def cdf(name, u):
    """Of ln sigma; the time g = 1 / (1 + 1 / sigma) is uniform between its ends."""
    noise, law, _ = LOG[name]
    if law is not None:
        return law.cdf(u)
    return np.clip((1 / (1 + np.exp(-u)) - noise.min_time) / (1 - 2 * noise.min_time), 0, 1)


@pytest.mark.parametrize("name", LOG)
def test_samples_and_density_are_those_of_the_distribution(name):
    noise, _, (low, high) = LOG[name]
    torch.manual_seed(0)
    log = noise.sample(40_000, CPU).double().log().numpy()
    assert stats.kstest(log, lambda u: cdf(name, u)).pvalue > 0.001
    edges = np.linspace(low, high, 9)
    for a, b in zip(edges[:-1], edges[1:], strict=True):
        found = integrate.quad(lambda u: noise.density(math.exp(u)), a, b, epsabs=1e-12)[0]
        assert found == pytest.approx(cdf(name, b) - cdf(name, a), abs=1e-9)


@pytest.mark.parametrize("min_time", [1e-3, 0.2])
def test_uniform_time_has_no_density_outside_its_ends(min_time):
    end = math.log((1 - min_time) / min_time)
    assert UniformTimeNoise(min_time).density(np.exp(np.array([-end - 0.01, end + 0.01]))).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("noise", "levels", "shares"),
    [
        (GridNoise([80.0, 2.0, 0.1]), [0.1, 2.0, 80.0], [1 / 3] * 3),
        (GridNoise([0.1, 2.0, 80.0, 5.0], [2, 1, 0, 5]), [0.1, 2.0, 5.0], [0.25, 0.125, 0.625]),  # one of probability 0
        (DDPMNoise("cosine", 5), DDPMNoise("cosine", 5).sigmas, [0.2] * 5),
    ],
)
def test_levels_are_drawn_with_their_probabilities(noise, levels, shares):
    torch.manual_seed(0)
    values, counts = noise.sample(30_000, CPU).unique(return_counts=True)
    np.testing.assert_allclose(values, levels, rtol=1e-6)  # float32
    assert stats.chisquare(counts, 30_000 * np.array(shares)).pvalue > 0.001


def betas(schedule, steps):
    """Ho et al., section 4, and Nichol & Dhariwal, equation 17, one step at a time."""
    if schedule == "linear":
        return [1e-4 + (0.02 - 1e-4) * i / (steps - 1) for i in range(steps)]

    def f(i):
        return math.cos((i / steps + 0.008) / 1.008 * math.pi / 2) ** 2

    return [min(1 - f(i) / f(i - 1), 0.999) for i in range(1, steps + 1)]


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("steps", [10, 1000])
def test_ddpm_levels_are_the_papers(schedule, steps):
    abar, expected = 1.0, []
    for beta in betas(schedule, steps):
        abar *= 1 - beta
        expected.append(math.sqrt(1 / abar - 1))
    noise = DDPMNoise(schedule, steps)
    # 1 - abar of 1e-4 from float64
    np.testing.assert_allclose(noise.sigmas, expected, rtol=1e-10)
    assert list(noise.sigmas) == sorted(noise.sigmas)


def test_standard_log_normal_is_the_logit_normal_time():
    torch.manual_seed(2)
    sigma = LogNormalNoise(0.0, 1.0).sample(40_000, CPU).double().numpy()
    time = sigma / (1 + sigma)
    # Esser et al. 2024, equation 19
    t = np.linspace(0, 1, 1002)[1:-1]
    density = np.exp(-(np.log(t / (1 - t)) ** 2) / 2) / math.sqrt(2 * math.pi) / (t * (1 - t))
    for edge in (0.1, 0.3, 0.5, 0.9):
        expected = np.trapezoid(density[t <= edge], t[t <= edge])
        np.testing.assert_allclose((time <= edge).mean(), expected, atol=0.011)  # four standard errors


@pytest.mark.parametrize(
    "noise",
    [LogNormalNoise(), GridNoise([1 / 3, 2.0]), DDPMNoise(num_steps=4), UniformTimeNoise()],
    ids=lambda noise: type(noise).__name__,
)
@pytest.mark.parametrize(
    ("default", "expected"), [(torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64,) * 2]
)
def test_levels_are_in_single_precision_at_least(noise, default, expected):
    torch.set_default_dtype(default)
    try:
        assert noise.sample(8, CPU).dtype == expected
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: DDPMNoise("sigmoid"), "schedule"),
        (lambda: DDPMNoise(num_steps=0), "num_steps"),
        (lambda: DDPMNoise(beta_end=1.0), "beta_end"),
        (lambda: UniformTimeNoise(0.0), "min_time"),
        (lambda: UniformTimeNoise(0.5), "min_time"),
        *((lambda std=std: LogNormalNoise(0.0, std), "std") for std in (0.0, -1.0, math.nan, math.inf)),
        *((lambda given=given: GridNoise(given), "sigmas") for given in ([], [0.0], [1.0, -1.0], [1.0, math.inf])),
        *(
            (lambda given=given: GridNoise([1.0, 2.0], given), "probabilities")
            for given in ([1.0], [1.0, -1.0], [0.0, 0.0], [1.0, math.inf], [math.nan, 1.0], [])
        ),
    ],
)
def test_noise_arguments_out_of_range(make, argument):
    with pytest.raises(ValueError, match=f"`{argument}`"):
        make()


@pytest.mark.parametrize("noise", [LogNormalNoise(), GridNoise([1.0, 2.0, 3.0]), DDPMNoise(), UniformTimeNoise()])
def test_noise_comes_from_the_global_generator(noise):
    torch.manual_seed(3)
    first, second = noise.sample(20, CPU), noise.sample(20, CPU)
    torch.manual_seed(3)
    assert torch.equal(noise.sample(20, CPU), first)
    assert not torch.equal(first, second)
