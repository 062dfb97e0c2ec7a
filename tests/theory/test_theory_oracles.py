"""Each closed form against routes that share nothing with it: the parameters' own ODE, dense algebra, mpmath."""

from dataclasses import replace
from functools import reduce

import mpmath as mp
import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from spectral_lightning.theory import DeepLinear, FlowMatching, Objective, OneLayer, Preconditioning, SymmetricTwoLayer

pytestmark = pytest.mark.slow

ETA = 1e-3
PLAIN, EDM = Objective(ETA), Objective(ETA, Preconditioning("edm", sigma_data=0.5))
DESCENT = replace(EDM, discrete=True)
ALIKE = Objective(ETA, noise_density=lambda level: level * 0 + 1)  # the plain loss, which it does not know to be one


def edm(sigma):
    """c_skip, c_out c_in and loss weight for sigma_data = 0.5, from Karras et al. 2022, table 1."""
    root = (sigma**2 + 0.25) ** 0.5
    return 0.25 / root**2, 0.5 * sigma / root / root, root**2 / (0.5 * sigma) ** 2


def trained(layers, network, loss):
    """Integrate parameters ``[layer, level, d, d]`` along the gradient that autograd gives; ``[time, level, d, d]``."""

    def slope(_, flat):
        parts = torch.tensor(flat.reshape(layers.shape), requires_grad=True)
        return -ETA * torch.autograd.grad(loss(network(parts)), parts)[0].numpy().ravel()

    end = solve_ivp(slope, (0, TIMES[-1]), layers.ravel(), "DOP853", t_eval=TIMES, rtol=1e-11, atol=1e-13).y.T
    return np.stack([network(torch.tensor(row.reshape(layers.shape))).numpy() for row in end])


def squares(matrix, covariance):
    """``tr A C A'`` of each ``[level, d, d]``."""
    return ((matrix @ covariance) * matrix).sum((1, 2))


def chain(parts):
    return reduce(torch.matmul, list(parts)[::-1])


def power(count):
    return lambda parts: torch.linalg.matrix_power(parts[0], count)


def rotated(variance):
    """A covariance with these variances and its eigenvectors."""
    basis, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((len(variance),) * 2))
    return basis @ np.diag(variance) @ basis.T, basis


def diagonal(weights, basis):
    inside = basis.T @ weights @ basis
    off = inside - np.einsum("...kk->...k", inside)[..., None, :] * np.eye(basis.shape[0])
    assert np.abs(off).max() < 1e-9
    return np.einsum("...kk->...k", inside)


VARIANCE = np.array([0.01, 0.3, 2.0])
TIMES = np.array([1.0, 30.0, 100.0, 300.0])
EYE = torch.eye(3, dtype=torch.float64)


def layers_of(copies, count, gain, levels):
    """Balanced layers whose product has this gain, the same at every level."""
    return np.broadcast_to(gain ** (1 / count) * np.eye(3), (copies, levels, 3, 3))


@pytest.mark.parametrize("conditioned", [False, True], ids=["plain", "edm"])
@pytest.mark.parametrize(
    ("family", "copies", "network", "count"),
    [
        (lambda p: OneLayer(p, 0.4), 1, chain, 1),
        (lambda p: SymmetricTwoLayer(p, 0.4), 1, lambda parts: parts[0] @ parts[0].mT, 2),
        (lambda p: DeepLinear(p, 0.4, 2), 2, chain, 2),
        (lambda p: DeepLinear(p, 0.4, 3), 3, chain, 3),
        (lambda p: DeepLinear(p, 0.4, 3, tied=True), 1, power(3), 3),
        (lambda p: DeepLinear(p, 0.4, 4, tied=True), 1, power(4), 4),
        (lambda p: DeepLinear(p, 0.4, 5), 5, chain, 5),
    ],
    ids=["one", "two tied", "2", "3", "3 tied", "4 tied", "5"],
)
def test_weights_follow_the_gradient_of_the_parameters(family, copies, network, count, conditioned):
    sigma, (matrix, basis) = np.array([0.05, 0.7, 3.0]), rotated(VARIANCE)
    covariance, level = torch.tensor(matrix), torch.tensor(sigma)
    skip, scale, weight = edm(level) if conditioned else (0 * level, 1 + 0 * level, 1)

    def denoiser(output):
        return skip[:, None, None] * EYE + scale[:, None, None] * output

    def loss(output):
        d = denoiser(output)
        return (weight * (squares(d - EYE, covariance) + level**2 * squares(d, EYE))).sum()

    outputs = trained(layers_of(copies, count, 0.4, len(sigma)), network, loss)
    theory = family(EDM if conditioned else PLAIN).on(VARIANCE)
    # The oracle's own tolerance is 1e-11 per step.
    expected = diagonal(denoiser(torch.tensor(outputs)).numpy(), basis)
    np.testing.assert_allclose(theory.weight(TIMES, sigma), expected, rtol=1e-8)


@pytest.mark.parametrize(
    ("depth", "tied", "network"),
    [(1, False, chain), (2, True, lambda parts: parts[0] @ parts[0].mT), (3, False, chain)],
    ids=["1", "2 tied", "3"],
)
def test_velocity_follows_the_gradient_of_the_parameters(depth, tied, network):
    t, (matrix, basis) = np.array([0.1, 0.5, 0.9]), rotated(VARIANCE)
    covariance, when = torch.tensor(matrix), torch.tensor(t)[:, None, None]

    def loss(v):  # E |W x_t - (x0 - z)|^2, x_t = (1-t) z + t x0
        return squares(when * v - EYE, covariance).sum() + squares((1 - when) * v + EYE, EYE).sum()

    start = layers_of(1 if tied else depth, depth, 0.4, len(t))
    weights = diagonal(trained(start, network, loss), basis)
    theory = FlowMatching(PLAIN, 0.4, depth, tied).on(VARIANCE)
    np.testing.assert_allclose(theory.velocity_weight(TIMES, t), weights, rtol=1e-8)
    gain = t[:, None] * (1 + (1 - t[:, None]) * weights)
    np.testing.assert_allclose(theory.weight(TIMES, (1 - t) / t), gain, rtol=1e-8)


EXTREMES = [1e-12, 1e-5, 1.0, 1e4, 1e12]


@pytest.mark.parametrize("variance", EXTREMES)
@pytest.mark.parametrize("time", [1e-12, 1.0, 1e5, 1e12])
@pytest.mark.parametrize("q", [1e-9, 0.1, 1.0, 3.0])
def test_closed_flows_at_the_extremes_against_mpmath(variance, time, q):
    with mp.workdps(60):
        eta, lam, tau, gain = mp.mpf(ETA), mp.mpf(variance), mp.mpf(time), mp.mpf(q)
        low, high = mp.mpf(0.002), mp.mpf(80)
        t = 2 * eta * tau

        def ei(x):
            return -mp.e1(-x)

        one = (
            high**2 * (lam + low**2) / (lam + high**2)
            * mp.exp((1 - gain) * mp.exp(-t * lam) * (ei(-t * low**2) - ei(-t * high**2)))
            * mp.exp(-(ei(-t * (low**2 + lam)) - ei(-t * (high**2 + lam))))
        )  # fmt: skip
        decay = mp.exp(-8 * eta * tau * lam)
        norm = gain + (1 - gain) * decay

        def phi(s):
            inside = lam * decay + gain * (1 - decay) * (lam + s**2)
            return (1 - gain) * decay / norm * mp.log(s) + gain / (2 * norm) * mp.log(inside)

        two = high**2 * mp.exp(2 * (phi(low) - phi(high)))
        a = mp.sqrt(t / (1 + lam))
        flow = lam * mp.exp(
            ei(-t) - ei(-t * lam)
            + gain * mp.sqrt(mp.pi / (t * (1 + lam))) * mp.exp(-t * lam / (1 + lam)) * (mp.erf(a) + mp.erf(lam * a))
        )  # fmt: skip
    for theory, exact in (
        (OneLayer(PLAIN, q), one),
        (SymmetricTwoLayer(PLAIN, q), two),
        (FlowMatching(PLAIN, q), flow),
    ):
        # Relative; the logarithm of a variance is of the order of 30 and has an error of about 1e-15 of that.
        assert float(theory.on(variance).generated_variance(time)) == pytest.approx(float(exact), rel=1e-11, abs=1e-290)


@pytest.mark.parametrize("depth", [2, 3, 4, 9])
@pytest.mark.parametrize("variance", EXTREMES)
def test_deep_weights_at_the_extremes_solve_the_implicit_equation(depth, variance):
    # Whatever q the theory gives at tau, the time to get there is an integral that mpmath can do.
    theory, sigma, start = DeepLinear(PLAIN, 1e-3, depth=depth).on(variance), 0.5, 1e-3
    goal = variance / (variance + sigma**2)
    # Gains between start and goal, from the middle towards either; nearer the goal no time can be had from q.
    gains = np.exp(np.log(start) + np.log(goal / start) * np.array([0.1, 0.5, 0.9, 0.999]))
    with mp.workdps(30):
        p, end = 1 - mp.mpf(2) / depth, mp.mpf(variance) / (mp.mpf(variance) + mp.mpf(sigma) ** 2)
        rate = 2 * mp.mpf(ETA) * depth * (mp.mpf(variance) + mp.mpf(sigma) ** 2)
        times = [
            float(
                mp.quad(lambda y: mp.exp(-p * y) / (end - mp.exp(y)), mp.linspace(mp.log(start), mp.log(q), 5)) / rate
            )
            for q in gains
        ]
    np.testing.assert_allclose(theory.weight(times, sigma), gains, rtol=1e-8)


@pytest.mark.parametrize("family", [OneLayer, SymmetricTwoLayer, FlowMatching])
@pytest.mark.parametrize("q", [0.1, 1.0])
def test_quadrature_against_closed_forms(family, q):
    closed, quadrature = family(PLAIN, q), family(ALIKE, q)
    assert closed.closed_form
    assert not quadrature.closed_form
    variance, times = np.geomspace(1e-12, 1e12, 25), np.geomspace(1e-6, 1e12, 19)
    a, b = (theory.on(variance).generated_variance(times) for theory in (closed, quadrature))
    # Of log lambda~, which is promised to 1e-6.
    np.testing.assert_allclose(np.log(a), np.log(b), rtol=0, atol=1e-9)


def along_sigma(curves, u):
    return 1 - float(curves.weight(300.0, np.exp(u)))


def along_t(curves, t):
    return float(curves.velocity_weight(300.0, t))


NOISE, FLOW = (along_sigma, np.log(80.0), np.log(0.002), np.log(80.0)), (along_t, 0.0, 1.0, 0.0)


@pytest.mark.parametrize("variance", [0.01, 4.0])
@pytest.mark.parametrize(
    ("theory", "route"),
    [
        (OneLayer(EDM, 0.1), NOISE),
        (SymmetricTwoLayer(EDM, 0.1), NOISE),
        (DeepLinear(PLAIN, 0.1, depth=3), NOISE),
        (FlowMatching(PLAIN, 0.3, 2, tied=True), FLOW),
        (FlowMatching(PLAIN, 0.3, 2), FLOW),
        (FlowMatching(PLAIN, 0.3, 3), FLOW),
    ],
    ids=["one edm", "two edm", "deep", "flow 2 tied", "flow 2", "flow 3"],
)
def test_quadrature_against_the_probability_flow_ode(theory, variance, route):
    curves, (slope, first, last, start) = theory.on(variance), route
    end = solve_ivp(
        lambda u, _: [slope(curves, u)], (first, last), [start], "DOP853", rtol=1e-11, atol=1e-12
    ).y[0, -1]  # fmt: skip
    assert float(np.log(curves.generated_variance(300.0))) == pytest.approx(2 * end, abs=1e-9)


@pytest.mark.parametrize(
    ("theory", "layers", "network"),
    [
        (OneLayer(DESCENT, 0.4), [0.4], lambda w: w[0]),
        (SymmetricTwoLayer(DESCENT, 0.4), [0.4**0.5], lambda w: w[0] * w[0]),
        (DeepLinear(DESCENT, 0.4, 3), [0.4 ** (1 / 3)] * 3, lambda w: w[0] * w[1] * w[2]),
        (DeepLinear(DESCENT, 0.4, 3, tied=True), [0.4 ** (1 / 3)], lambda w: w[0] ** 3),
        (DeepLinear(DESCENT, (0.2, 0.9)), [0.2, 0.9], lambda w: w[0] * w[1]),
    ],
    ids=["one", "two tied", "3", "3 tied", "unbalanced"],
)  # fmt: skip
def test_descent_is_what_torch_does_step_by_step(theory, layers, network):
    sigma, variance = 0.7, 2.0
    skip, scale, weight = edm(sigma)
    w = torch.tensor(layers, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.SGD([w], lr=ETA)
    gains = []
    for _ in range(51):
        psi = skip + scale * network(w)
        gains.append(psi.item())
        optimiser.zero_grad()
        (weight * ((1 - psi) ** 2 * variance + psi**2 * sigma**2)).backward()
        optimiser.step()
    steps = np.array([0.0, 1.0, 7.0, 50.0])
    np.testing.assert_allclose(theory.on(variance).weight(steps, sigma), np.array(gains)[steps.astype(int)], rtol=1e-12)
