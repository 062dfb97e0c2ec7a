"""Solvers against the exact probability flow of a Gaussian, in value and in order of convergence."""

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.integrate import quad_vec
from scipy.interpolate import KroghInterpolator

from spectral_lightning.sampling import SOLVERS, Sampler, adams, euler, heun

VARIANCES = np.array([1e-2, 1e-1, 1.0, 1e1])
ORDERS = {"euler": 1, "heun": 2, "adams": 3}


def _gaussian(variance):
    return lambda z, sigma: z * (variance / (variance + sigma**2))


def _exact_scale(variance, low, high):
    """x(low) / x(high) on the exact path: sqrt((low^2 + lambda) / (high^2 + lambda))."""
    return np.sqrt((low**2 + variance) / (high**2 + variance))


def _algorithm_1(denoiser, x, levels, second_order):
    """Karras et al. 2022, algorithm 1 without noise injection, as it is printed; without its correction, Euler's."""
    for i in range(len(levels) - 1):
        t, t_next = levels[i], levels[i + 1]
        d = (x - denoiser(x, t)) / t
        x_next = x + (t_next - t) * d
        if second_order and t_next != 0:
            d_prime = (x_next - denoiser(x_next, t_next)) / t_next
            x_next = x + (t_next - t) * (d / 2 + d_prime / 2)
        x = x_next
    return x


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_order_of_convergence(solver):
    steps, options = np.array([100, 200, 400, 800]), {"sigma_max": 10.0, "final": "sigma_min", "scale": 0.7}
    errors = []
    for count in steps:
        sampler = Sampler(solver, num_steps=int(count), **options)
        exact = _exact_scale(VARIANCES, sampler.sigmas[-1], 10.0)
        errors.append(np.abs(sampler(_gaussian(VARIANCES), np.ones(4)) / exact - 1).max())
    # The next term of the expansion moves the slope by O(1 / steps): 0.1 covers it, the neighbouring order is 1 away.
    assert -np.polyfit(np.log(steps), np.log(errors), 1)[0] == pytest.approx(ORDERS[solver], abs=0.1)
    assert errors[-1] < {"euler": 0.03, "heun": 2e-4, "adams": 1e-6}[solver]


@pytest.mark.parametrize("solver", ["euler", "heun"])
@pytest.mark.parametrize("steps", [2, 12])
@pytest.mark.parametrize("final", ["zero", "sigma_min"])
def test_solvers_are_algorithm_1(solver, steps, final):
    def denoiser(x, sigma):
        return np.tanh(x / (1 + sigma)) + 0.1 * np.cos(sigma)

    sampler = Sampler(solver, num_steps=steps, final=final)
    start = np.random.default_rng(0).standard_normal((5, 3)) * 80
    # Two orders of the same operations: rounding only, amplified by the cancellation of 80 down to 1.
    expected = _algorithm_1(denoiser, start, sampler.sigmas, solver == "heun")
    np.testing.assert_allclose(sampler(denoiser, start), expected, rtol=1e-11, atol=1e-12)
    assert final == "sigma_min" or (sampler(lambda z, _: 0 * z, start) == 0).all()  # to the bit


def test_adams_is_predictor_and_corrector_through_interpolated_slopes():
    """Every integral by quadrature of SciPy's interpolation; a nonlinear denoiser, levels of the user's own."""
    levels, scale = (80.0, 9.0, 2.5, 0.8, 0.2, 0.05), 1.3

    def denoiser(x, sigma):
        return np.tanh(x / (1 + sigma)) + 0.1 * np.cos(sigma)

    angles = np.arctan(np.array(levels) / scale)
    z = np.random.default_rng(0).standard_normal(3) * 80
    y = ahead = z / np.hypot(80.0, scale)
    slopes = []
    for i, sigma in enumerate(levels[:-1]):
        r = np.hypot(sigma, scale)
        slopes.append((ahead * scale**2 / r - denoiser(ahead * r, sigma)) * r / (sigma * scale))

        def through(count, start, stop, i=i):
            first = max(0, i + 1 - count)
            slope = KroghInterpolator(angles[first : i + 1], slopes[first:])
            return quad_vec(slope, start, stop)[0]

        y = y + (through(4, angles[i - 1], angles[i]) if i else 0)
        ahead = y + through(3, angles[i], angles[i + 1])
    np.testing.assert_allclose(adams(denoiser, z, levels, scale), ahead * np.hypot(levels[-1], scale), rtol=1e-10)


@pytest.mark.parametrize(("steps", "scale", "grading", "bias"), [(8, 1.835, 1.375, 0.016), (12, 1.526, 1.125, 0.006)])
def test_bias_of_few_adams_steps_over_two_decades(steps, scale, grading, bias):
    lam = np.geomspace(0.1, 10, 31)
    end = Sampler("adams", steps, scale=scale, grading=grading)(_gaussian(lam), np.full(31, 80.0))
    assert np.abs(np.log((end / 80 / _exact_scale(lam, 0.0, 80.0)) ** 2)).max() < bias


@pytest.mark.parametrize("solver", sorted(SOLVERS))
@pytest.mark.parametrize("final", ["zero", "sigma_min"])
def test_torch_numpy_and_floats_give_the_same_numbers(solver, final):
    import torch

    sampler = Sampler(solver, num_steps=20, final=final)
    lam = [1e-3, 1.0, 30.0]
    floats = [sampler(_gaussian(value), 80.0) for value in lam]
    arrays = sampler(_gaussian(np.array(lam)), np.full(3, 80.0))
    tensors = sampler(_gaussian(torch.tensor(lam, dtype=torch.float64)), torch.full((3,), 80.0, dtype=torch.float64))
    # Same operations in the same order: sigma**2 and fused multiply-adds may differ in the last bit of each of 20 steps.
    np.testing.assert_allclose(arrays, floats, rtol=1e-13, atol=0)
    np.testing.assert_allclose(tensors.numpy(), floats, rtol=1e-13, atol=0)


@dataclass
class _OnlyArithmetic:
    """A state that knows + - * / and nothing else."""

    value: float

    def __add__(self, other):
        return _OnlyArithmetic(self.value + other.value)

    def __sub__(self, other):
        return _OnlyArithmetic(self.value - other.value)

    def __mul__(self, number):
        return _OnlyArithmetic(self.value * number)

    def __truediv__(self, number):
        return _OnlyArithmetic(self.value / number)


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_state_needs_arithmetic_only(solver):
    sampler = Sampler(solver, num_steps=7)
    state = sampler(lambda z, s: z * (1 / (1 + s**2)), _OnlyArithmetic(80.0))
    assert state.value == sampler(lambda z, s: z * (1 / (1 + s**2)), 80.0)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_dtype_is_kept_and_the_start_is_not_edited(solver, dtype):
    import torch

    start = torch.full((2, 3), 80.0, dtype=getattr(torch, dtype))
    result = Sampler(solver, num_steps=5)(lambda z, s: z / (1 + s**2), start)
    assert result.dtype == start.dtype
    assert torch.equal(start, torch.full_like(start, 80.0))


def test_denoiser_gets_plain_floats():
    seen = []
    heun(lambda z, s: seen.append(s) or z, 1.0, Sampler().sigmas)
    euler(lambda z, s: seen.append(s) or z, 1.0, Sampler(grid=(np.float64(2), 1, 0)).sigmas)
    assert {type(sigma) for sigma in seen} == {float}


@pytest.mark.parametrize(
    ("steps", "low", "high", "smallest", "largest"),
    [(20, 1e-3, 1e2, 0.020, 0.209), (20, 1e-4, 1e-4, 0.261, 0.261), (64, 1e-4, 1e2, -0.015, 0.012)],
    ids=["20 steps", "20 steps, 1e-4", "64 steps"],
)
def test_bias_of_the_sampler_with_the_exact_denoiser(steps, low, high, smallest, largest):
    """Why thresholds use the sampler's fixed point: 2-21 % at 20 Heun steps, 26 % at 1e-4, about 1 % at 64 steps."""
    lam = np.geomspace(low, high, 31)
    bias = Sampler(num_steps=steps)(_gaussian(lam), np.full(31, 80.0)) ** 2 / lam - 1
    assert (bias.min(), bias.max()) == pytest.approx((smallest, largest), abs=0.002)
