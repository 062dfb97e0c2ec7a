"""Exact limits, extreme arguments and clear errors, for every family at once."""

from dataclasses import replace

import numpy as np
import pytest

from spectral_lightning.sampling import Sampler
from spectral_lightning.theory import DeepLinear, FlowMatching, Objective, OneLayer, Preconditioning, SymmetricTwoLayer
from spectral_lightning.theory.solving.generation import fixed_point

DESCENT, PLAIN, EDM = (
    Objective(1e-3, discrete=True),
    Objective(1e-3),
    Objective(1e-3, Preconditioning("edm", sigma_data=0.5)),
)
FAMILIES = {
    "one": (OneLayer, PLAIN, {}),
    "one edm": (OneLayer, EDM, {}),
    "two": (SymmetricTwoLayer, PLAIN, {}),
    "two edm": (SymmetricTwoLayer, EDM, {}),
    "deep 3": (DeepLinear, PLAIN, {"depth": 3}),
    "deep 3 edm": (DeepLinear, EDM, {"depth": 3}),
    "deep 4 tied": (DeepLinear, PLAIN, {"depth": 4, "tied": True}),
    "flow": (FlowMatching, PLAIN, {}),
    "flow 2": (FlowMatching, PLAIN, {"depth": 2, "tied": True}),
}
DEEP = [name for name in FAMILIES if name not in ("one", "one edm", "flow")]
EXTREME = np.array([0.0, 1e-12, 1e-6, 1.0, 1e6, 1e12])


def made(name, init, variance=EXTREME, **changes):
    """The curves of a family on modes."""
    family, objective, settings = FAMILIES[name]
    return family(replace(objective, **changes), init, **settings).on(variance)


@pytest.fixture(autouse=True)
def _strict():
    # Underflow to zero is the right answer far from the start.
    with np.errstate(divide="raise", over="raise", invalid="raise", under="ignore"):
        yield


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("init", [0.0, 1e-12, 0.3, 1.0, 1e3])
def test_extreme_arguments_give_finite_numbers_without_warning(name, init):
    theory = made(name, init)
    time = np.append(EXTREME, np.inf)
    assert np.isfinite(theory.weight(time, EXTREME)).all()
    modest = made("one", 0.0) if init > 1 else theory  # e^(2 x 1e3) is no float64
    generated = modest.generated_variance(time)
    assert np.isfinite(generated).all()
    assert (generated >= 0).all()
    assert np.isfinite(theory.weight(time, EXTREME, initial_gain=np.full((6, 6), 1.0))).all()


@pytest.mark.parametrize("name", FAMILIES)
def test_time_zero_is_the_initialisation(name):
    theory, sigma = made(name, 0.3), np.array([0.0, 0.002, 1.0, 80.0])
    np.testing.assert_allclose(theory.weight(0.0, sigma), theory.initial_weight(sigma), rtol=1e-14, atol=1e-16)


@pytest.mark.parametrize("name", ["one", "two", "deep 3", "deep 4 tied"])
def test_a_given_initial_gain_is_that_of_time_zero(name):
    given, sigma = np.linspace(0.5, 1.0, 24).reshape(4, 6), np.array([0.0, 0.002, 1.0, 80.0])
    np.testing.assert_allclose(made(name, 0.3).weight(0.0, sigma, given), given, rtol=1e-14)


@pytest.mark.parametrize("name", ["one", "one edm", "two", "deep 3", "deep 4 tied", "flow"])
def test_time_infinity_is_the_optimum(name):
    sigma = np.array([0.002, 1.0, 80.0])
    optimum = EXTREME / (EXTREME + sigma[:, None] ** 2)
    # Rounding of the gain itself, which for flow matching is a difference of two numbers of order 1.
    np.testing.assert_allclose(made(name, 0.3).weight(np.inf, sigma), optimum, rtol=1e-13, atol=5e-16)
    np.testing.assert_allclose(made(name, 0.3, EXTREME[1:]).weight(1e30, sigma), optimum[:, 1:], rtol=1e-10, atol=5e-16)


@pytest.mark.parametrize("name", ["one", "one edm", "two", "deep 3"])
def test_variance_at_infinity_is_that_of_the_exact_flow(name):
    low, high = 0.002**2, 80.0**2
    exact = high * (EXTREME + low) / (EXTREME + high)
    np.testing.assert_allclose(made(name, 0.3).generated_variance(np.inf), exact, rtol=1e-11)


def test_flow_matching_ends_at_the_data_and_starts_at_e_to_2q():
    theory = made("flow", 0.3)
    np.testing.assert_allclose(theory.generated_variance(np.inf), EXTREME, rtol=1e-14)
    np.testing.assert_allclose(theory.generated_variance(0.0), np.exp(0.6), rtol=1e-14)
    np.testing.assert_allclose(theory.generated_variance(1e-13)[:4], np.exp(0.6), rtol=1e-12)


@pytest.mark.parametrize("name", ["one", "two"])
def test_variance_before_training(name):
    for q in (0.0, 0.3, 1.0):
        expected = 80.0**2 * (0.002 / 80) ** (2 * (1 - q))
        np.testing.assert_allclose(made(name, q).generated_variance(0.0), expected, rtol=1e-13)


@pytest.mark.parametrize("name", DEEP)
def test_a_gain_of_zero_is_never_left_by_a_deep_stack(name):
    theory, sigma = made(name, 0.0), np.array([0.002, 1.0, 80.0])
    start = theory.initial_weight(sigma)
    np.testing.assert_array_equal(theory.weight([1e3, 1e12, np.inf], sigma), np.stack([start] * 3))
    assert np.isnan(made(name, 0.0, [0.1, 1.0]).emergence_time()).all()


@pytest.mark.parametrize("name", ["two edm", "deep 3 edm"])
def test_modes_on_the_wrong_side_of_the_preconditioning_are_never_learnt(name):
    # Below sigma_data^2 the optimum of F is negative: the gain ends at c_skip instead of psi*.
    end = made(name, 0.3, [0.0, 0.1, 0.2, 0.3, 4.0]).weight(np.inf, 1.0)
    np.testing.assert_allclose(end, [0.2, 0.2, 0.2, 0.3 / 1.3, 0.8], rtol=1e-14)


def test_null_modes_of_two_layers():
    sigma, tau = np.array([0.002, 1.0, 80.0]), np.array([1.0, 1e3, 1e9])
    c = 8e-3 * tau[:, None] * 0.3
    theory = made("two", 0.3, [0.0, 1e-12])
    np.testing.assert_allclose(theory.weight(tau, sigma)[..., 0], 0.3 / (1 + c * sigma**2), rtol=1e-13)
    c = c[:, 0]
    expected = 2 * np.log(80) - 1.4 * np.log(80 / 0.002) - 0.3 * np.log((1 + c * 6400) / (1 + c * 4e-6))
    null, small = theory.generated_variance(tau).T
    np.testing.assert_allclose(np.log(null), expected, rtol=1e-13)
    # 2 eta tau lambda is at most 2e-6 here, and lambda / sigma_0^2 2.5e-7
    np.testing.assert_allclose(small, null, rtol=1e-5)


@pytest.mark.parametrize("name", ["one", "one edm", "two", "deep 3", "flow"])
def test_a_sampler_ends_at_its_own_fixed_point(name):
    sampler = Sampler(num_steps=20)
    generated = made(name, 0.3, [0.01, 1.0, 50.0]).generated_variance(np.inf, sampler)
    np.testing.assert_allclose(generated, fixed_point([0.01, 1.0, 50.0], sampler), rtol=1e-12)


def test_euler_steps_of_the_velocity_are_those_of_the_denoiser():
    theory = made("flow", 0.3, 2.0)
    t = np.linspace(0.05, 1, 20)
    x = t[0] * (1 - t[0]) / t[0]  # amplitude of x_t where z = x_t / t has that of sigma
    for now, then in zip(t[:-1], t[1:], strict=True):
        x = x + (then - now) * theory.velocity_weight(200.0, now) * x
    grid = tuple(float(level) for level in (1 - t) / t)
    sampled = theory.generated_variance(200.0, Sampler("euler", grid=grid))
    np.testing.assert_allclose(sampled, x**2, rtol=1e-12)


@pytest.mark.parametrize("name", FAMILIES)
def test_loss_and_divergence(name):
    variance, sigma = np.array([0.01, 1.0, 50.0]), np.array([0.1, 1.0])
    theory = made(name, 0.3, variance)
    psi = theory.weight(50.0, sigma)
    expected = [sum((1 - p) ** 2 * v + p * p * s * s for p, v in zip(row, variance)) for row, s in zip(psi, sigma)]  # noqa: B905
    np.testing.assert_allclose(theory.loss(50.0, sigma), expected, rtol=1e-13)
    r = theory.generated_variance([1.0, 50.0]) / variance
    np.testing.assert_allclose(theory.kl_divergence([1.0, 50.0]), (r - 1 - np.log(r)) / 2, rtol=1e-9)
    assert np.isinf(made(name, 0.3, 0.0).kl_divergence(1.0))


def test_divergence_near_equality_does_not_cancel():
    low, high, variance = 0.002**2, 80.0**2, 1e-2
    x = (variance + low) * high / (variance + high) / variance - 1  # about 4e-4
    expected = (x**2 / 2 - x**3 / 3 + x**4 / 4) / 2
    assert float(made("one", 0.0, variance).kl_divergence(np.inf)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", FAMILIES)
def test_unstable_descent_says_so(name):
    variance = np.array([1.0, 100.0])
    theory = made(name, 0.3, variance, learning_rate=10.0 if "edm" in name else 1.0, discrete=True)
    with pytest.raises(ValueError, match="`learning_rate` must be"):
        theory.weight(50.0, np.array([0.01, 1.0, 80.0]))
    assert np.isfinite(theory.family.gradient_flow().on(variance).weight(50.0, 80.0)).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: OneLayer(PLAIN, float("nan")), "`init`"),
        (lambda: OneLayer(PLAIN).on(-1.0), "`variance`"),
        (lambda: OneLayer(PLAIN).on(1.0).weight(-1.0, 1.0), "`time`"),
        (lambda: OneLayer(PLAIN).on(1.0).generated_variance(1.0, initial_gain=0.3), "`initial_gain`"),
        (lambda: SymmetricTwoLayer(PLAIN, -0.1), "`init`"),
        (lambda: DeepLinear(PLAIN, depth=0), "`depth`"),
        (lambda: DeepLinear(PLAIN, (0.1, 0.2), depth=3), "`init`"),
        (lambda: DeepLinear(PLAIN, (0.1, 0.2), depth=2, tied=True), "`init`"),
        (lambda: DeepLinear(PLAIN, float("nan")), "`init`"),
        (lambda: DeepLinear(PLAIN, (0.1, 0.2)).on(1.0).weight(1.0, 1.0), "`init`.*discrete=True"),
        (lambda: DeepLinear(DESCENT, (0.1, 0.2)).on(1.0).weight(1.0, 1.0, 0.3), "`initial_gain`"),
        (lambda: DeepLinear(PLAIN, -0.2, tied=True).on(1.0).weight(1.0, 1.0), "`init`"),
        (lambda: SymmetricTwoLayer(PLAIN).on(1.0).weight(1.0, 1.0, -0.3), "`init`"),
        (lambda: SymmetricTwoLayer(DESCENT).on(1.0).weight(1.5, 1.0), "`time`"),
        (lambda: SymmetricTwoLayer(DESCENT).on(1.0).weight(1e6, 1.0), "`time`"),
        (lambda: FlowMatching(EDM), "`preconditioning`"),
        (lambda: FlowMatching(PLAIN).on(1.0).velocity_weight(1.0, 1.5), "`flow_time`"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
