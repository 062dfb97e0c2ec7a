"""The solvable denoiser: its exact loss, its descent against the theory, and what it refuses."""

import functools

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from spectral_lightning.datamodules import GaussianDataModule
from spectral_lightning.diffusion import (
    GridNoise,
    LogNormalNoise,
    SupportsDenoise,
    SupportsDynamics,
    UniformTimeNoise,
)
from spectral_lightning.models import AffinePerLevel, LinearDenoiser
from spectral_lightning.sampling import Sampler
from spectral_lightning.theory import Preconditioning

F64 = torch.float64
KINDS = ("edm", "none", "velocity", "variance_preserving")
LEVELS = [8.0, 1.0, 0.2]


def moments(d=3, mean=0.0, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=F64))[0]
    variance = scale * torch.logspace(0.5, -1.5, d, dtype=F64)
    covariance = (rotation * variance) @ rotation.T
    return mean * torch.randn(d, generator=generator, dtype=F64), (covariance + covariance.T) / 2, rotation, variance


def descent(lr):
    return functools.partial(torch.optim.SGD, lr=lr)


def linear(kind="edm", lr=0.1, mean=0.0, d=3, scale=1.0, **arguments):
    settings = {"sigmas": LEVELS, "preconditioning": Preconditioning(kind, sigma_data=0.7), "optimizer": descent(lr)}
    torch.set_default_dtype(F64)  # an initial gain of 0.1 is another number in float32
    try:
        module = LinearDenoiser(d, **{**settings, **arguments})
    finally:
        torch.set_default_dtype(torch.float32)
    module.set_moments(*moments(d, mean, scale)[:2])
    return module


def perturb(module, size=0.3, seed=5):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=F64), alpha=size)


def descend(module, steps, optimizer=None):
    optimizer = optimizer or module.configure_optimizers()
    for _ in range(steps):
        optimizer.zero_grad()
        module.expected_loss().backward()
        optimizer.step()
    return optimizer


def gain(module, sigma, rotation):
    """Jacobian of the denoiser along the modes: ``[d, d]``."""
    s = torch.tensor([sigma], dtype=F64)
    jacobian = torch.autograd.functional.jacobian(
        lambda z: module.denoise(z[None], s)[0], torch.zeros(len(rotation), dtype=F64)
    )
    return rotation.T @ jacobian @ rotation


@pytest.mark.parametrize("bias", [True, False])
def test_each_level_has_its_own_affine_map(bias):
    net = AffinePerLevel(2, [1.0, 4.0, 0.25], bias=bias).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=F64))
    x = torch.randn(7, 2, generator=generator, dtype=F64)
    order = [2, 0, 1, 1, 2, 0, 2]
    sigma = torch.tensor([1.0, 4.0, 0.25], dtype=F64)[order]
    out = net(x, sigma.log() / 4)
    expected = torch.stack([net.weight[i] @ x[j] + (net.bias[i] if bias else 0) for j, i in enumerate(order)])
    assert torch.allclose(out, expected, rtol=1e-14, atol=1e-14)
    out[1:2].sum().backward()  # an example at level 0 gives a gradient at level 0 only
    assert net.weight.grad[0].any()
    assert not net.weight.grad[1:].any()


@pytest.mark.parametrize("shape", [(4,), (1, 2, 2)])
@pytest.mark.parametrize("init", [0.0, -0.5, 1.0])
def test_weights_start_as_a_multiple_of_the_identity(shape, init):
    net = AffinePerLevel(4, LEVELS, init)
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(net(x, torch.tensor(LEVELS).log() / 4), init * x)
    assert net.weight.is_contiguous()
    with torch.no_grad():
        net.weight[0] += 1
    assert torch.equal(net.weight[1], init * torch.eye(4))  # levels share no memory


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_levels_of_the_sampler_are_found_in_either_precision(dtype):
    sampler = Sampler(num_steps=40)
    net = AffinePerLevel(1, sampler.levels)
    levels = torch.tensor(sampler.levels, dtype=dtype)
    assert net.level(levels.log() / 4).tolist() == list(range(40))
    assert net.float().level(levels.log() / 4).tolist() == list(range(40))


@pytest.mark.parametrize("sigma", [2.0, 8.004, 1.001, 1e-9])
def test_another_level_is_refused_naming_the_grid(sigma):
    message = rf"`sigma` must be one of the levels .*, got {sigma:.6g}\. They are 8, 1, 0\.2\. Sample with"
    with pytest.raises(ValueError, match=message):
        linear().denoise(torch.zeros(2, 3, dtype=F64), torch.tensor([1.0, sigma], dtype=F64))


@pytest.mark.parametrize("sigmas", [[], [1.0, 0.0], [-1.0], [[1.0]]])
def test_levels_must_be_positive(sigmas):
    with pytest.raises(ValueError, match="`sigmas` must"):
        AffinePerLevel(2, sigmas)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("bias", [True, False])
def test_expected_loss_is_the_expectation(kind, reduction, bias):
    module = linear(kind, mean=1.0, reduction=reduction, bias=bias, init=0.4)
    perturb(module)
    mean, covariance, _, _ = moments(3, 1.0)
    generator = torch.Generator().manual_seed(2)
    p, total, error = module.preconditioning, 0.0, 0.0
    for i, s in enumerate(LEVELS):
        x0 = mean + torch.randn(40_000, 3, generator=generator, dtype=F64) @ torch.linalg.cholesky(covariance).T
        z = x0 + s * torch.randn(40_000, 3, generator=generator, dtype=F64)
        w = module.network.weight[i].detach()
        b = module.network.bias[i].detach() if bias else 0
        square = ((p.c_skip(s) * z + p.c_out(s) * (p.c_in(s) * z @ w.T + b) - x0) ** 2).sum(1) * p.loss_weight(s)
        total, error = total + square.mean().item(), np.hypot(error, square.std().item() / 200)
    divisor = 3 if reduction == "mean" else 1
    loss = module.expected_loss().item()
    assert abs(loss - total / divisor) < 4 * error / divisor
    assert 4 * error < 0.03 * total  # sharp enough to fail
    assert module.loss(torch.zeros(1, 3)).item() == loss  # whatever the batch


@pytest.mark.parametrize("kind", KINDS)
def test_wiener_filter_is_the_minimum(kind):
    module = linear(kind, mean=1.0)
    mean, covariance, _, _ = moments(3, 1.0)
    p, eye = module.preconditioning, torch.eye(3, dtype=F64)
    with torch.no_grad():
        for i, s in enumerate(LEVELS):
            optimum = covariance @ torch.linalg.inv(covariance + s**2 * eye)
            module.network.weight[i] = (optimum - p.c_skip(s) * eye) / (p.c_out(s) * p.c_in(s))
            module.network.bias[i] = (eye - optimum) @ mean / p.c_out(s)
    module.expected_loss().backward()
    scale = sum(p.loss_weight(s) for s in LEVELS)
    for parameter in module.parameters():
        np.testing.assert_allclose(parameter.grad, 0, atol=1e-11 * scale)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("init", [0.0, 0.1, 1.0])
def test_descent_is_the_one_layer_recursion(kind, reduction, init):
    limit = linear(kind, reduction=reduction).stable_learning_rate()
    module = linear(kind, lr=0.4 * limit, reduction=reduction, init=init)
    _, _, rotation, variance = moments()
    theory, optimizer, done = module.dynamics().on(variance.numpy()), module.configure_optimizers(), 0
    for steps in (0, 1, 7, 60):
        descend(module, steps - done, optimizer)
        done = steps
        expected = theory.weight(steps, LEVELS)
        for i, s in enumerate(LEVELS):
            along = gain(module, s, rotation).numpy()
            # 60 steps of rounding in float64
            np.testing.assert_allclose(np.diag(along), expected[i], rtol=1e-9, atol=1e-11)
            np.testing.assert_allclose(along - np.diag(np.diag(along)), 0, atol=1e-11)
    moved = np.abs(theory.weight(60, LEVELS, variance.numpy()) - theory.weight(0, LEVELS, variance.numpy()))
    assert moved.max() > 0.1
    assert not module.network.bias.any()


def excess(factor, kind, **settings):
    """Loss after 180 steps over that before, at a learning rate so many times the largest that is stable."""
    module = linear(kind, lr=factor * linear(kind, **settings).stable_learning_rate(), **settings)
    perturb(module)
    start = module.expected_loss().item()
    descend(module, 180)
    return module.expected_loss().item() / start


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["edm", "none"])
@pytest.mark.parametrize(
    ("mean", "scale", "levels"),
    [(0.0, 1.0, LEVELS), (2.0, 1.0, LEVELS), (0.0, 0.01, [0.2, 0.1]), (3.0, 0.01, [0.2, 0.1])],
)
@pytest.mark.parametrize(("bias", "reduction"), [(True, "sum"), (False, "sum"), (True, "mean")])
def test_stable_learning_rate_is_the_edge(kind, mean, scale, levels, bias, reduction):
    settings = {"mean": mean, "scale": scale, "sigmas": levels, "bias": bias, "reduction": reduction}
    # The steepest direction shrinks by 0.96 or grows by 1.04 a step
    assert excess(0.98, kind, **settings) < 1.0
    assert excess(1.02, kind, **settings) > 1e3


def test_stable_learning_rate_without_preconditioning():
    module = LinearDenoiser(3, sigmas=[80.0, 1.0], preconditioning=Preconditioning("none"))
    assert module.stable_learning_rate() == pytest.approx(1 / 6400, rel=1e-12)
    module.set_moments(torch.zeros(3), 100 * torch.eye(3))
    assert module.stable_learning_rate() == pytest.approx(1 / 6500, rel=1e-12)


@pytest.mark.parametrize("objective", ["exact", "samples"])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("kind", ["edm", "none"])
def test_dynamics_has_the_rate_of_the_averaged_gradient(objective, reduction, kind):
    levels = [1.5, 0.8, 0.4]
    module = linear(kind, lr=0.05, reduction=reduction, objective=objective, init=0.1, sigmas=levels)
    mean, covariance, rotation, variance = moments()
    torch.manual_seed(0)
    data = mean + torch.randn(200_000, 3, dtype=F64) @ torch.linalg.cholesky(covariance).T
    before = [gain(module, s, rotation).diag() for s in levels]
    optimizer = module.configure_optimizers()
    module.loss(data).backward()
    optimizer.step()
    moved = np.array([(gain(module, s, rotation).diag() - b).numpy() for s, b in zip(levels, before, strict=True)])
    theory = module.dynamics()
    curves = theory.on(variance.numpy())
    expected = curves.weight(1, levels) - curves.weight(0, levels)
    # Exact but for rounding, or 67,000 samples a level: about 1 % of the largest move of a level
    relative = np.abs(moved - expected).max(1) / np.abs(expected).max(1)
    assert (relative < (1e-10 if objective == "exact" else 0.04)).all()
    assert theory.objective.learning_rate == pytest.approx(
        0.05 / (3 if objective == "samples" else 1) / (3 if reduction == "mean" else 1)
    )


def often(levels, mean=-0.5, std=0.8):
    """The log-normal density of ln sigma, 1 on average over the levels, written out."""
    density = np.exp(-((np.log(levels) - mean) ** 2) / (2 * std**2))
    return density / density.mean()


@pytest.mark.parametrize("kind", ["edm", "none"])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_a_density_of_noise_levels_weighs_the_exact_loss(kind, reduction):
    """Against the losses of one level each, by the module without a density."""
    noise = LogNormalNoise(-0.5, 0.8)
    module = linear(kind, mean=1.0, reduction=reduction, init=0.4, noise=noise)
    perturb(module)
    total = 0.0
    for i, (sigma, weight) in enumerate(zip(LEVELS, often(LEVELS), strict=True)):
        single = linear(kind, mean=1.0, reduction=reduction, sigmas=[sigma])
        with torch.no_grad():
            single.network.weight.copy_(module.network.weight[i : i + 1])
            single.network.bias.copy_(module.network.bias[i : i + 1])
        total += weight * single.expected_loss().item()
    assert module.expected_loss().item() == pytest.approx(total, rel=1e-12)
    assert linear(kind, noise=UniformTimeNoise(0.2)).noise.probabilities[0] == 0  # 8 lies above 0.8 / 0.2


@pytest.mark.parametrize("kind", ["edm", "none"])
@pytest.mark.parametrize("init", [0.0, 0.4])
def test_descent_under_a_density_is_the_recursion_with_its_rates(kind, init):
    """``psi_t = psi* + (psi_0 - psi*) (1 - 2 eta p f (lambda + sigma^2))^t``, written out, and the module's theory."""
    noise = LogNormalNoise(-0.5, 0.8)
    rate = 0.4 * linear(kind, noise=noise).stable_learning_rate()
    module = linear(kind, lr=rate, init=init, noise=noise)
    _, _, rotation, variance = moments()
    descend(module, 25)
    p, lam = module.preconditioning, variance.numpy()
    theory = module.dynamics().on(lam).weight(25, LEVELS)
    for i, (s, weight) in enumerate(zip(LEVELS, often(LEVELS), strict=True)):
        factor = 1 - 2 * rate * weight * p.loss_weight(s) * (p.c_out(s) * p.c_in(s)) ** 2 * (lam + s**2)
        optimum = lam / (lam + s**2)
        naive = optimum + (p.c_skip(s) + p.c_out(s) * p.c_in(s) * init - optimum) * factor**25
        along = gain(module, s, rotation).diag().numpy()
        np.testing.assert_allclose(along, naive, rtol=1e-9, atol=1e-11)  # 25 steps of rounding in float64
        np.testing.assert_allclose(theory[i], naive, rtol=1e-9, atol=1e-11)
    plain = linear(kind, lr=rate, init=init).dynamics().gradient_flow().on(lam).weight(25, LEVELS)
    assert np.abs(theory / plain - 1).max() > 0.05


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["edm", "none"])
def test_stable_learning_rate_under_a_density_is_the_edge(kind):
    noise = LogNormalNoise(-0.5, 0.8)
    assert excess(0.98, kind, mean=2.0, noise=noise) < 1.0
    assert excess(1.02, kind, mean=2.0, noise=noise) > 1e3
    assert linear(kind, noise=noise).stable_learning_rate() != linear(kind).stable_learning_rate()


def test_samples_under_a_density_have_the_theorys_clock():
    """One step on a very large batch: levels are drawn as often as the theory's rates say."""
    levels, noise = [1.5, 0.8, 0.4], LogNormalNoise(-0.5, 0.8)
    module = linear("edm", lr=0.05, objective="samples", init=0.1, sigmas=levels, noise=noise)
    _, covariance, rotation, variance = moments()
    torch.manual_seed(0)
    data = torch.randn(300_000, 3, dtype=F64) @ torch.linalg.cholesky(covariance).T
    before = [gain(module, s, rotation).diag() for s in levels]
    optimizer = module.configure_optimizers()
    module.loss(data).backward()
    optimizer.step()
    moved = np.array([(gain(module, s, rotation).diag() - b).numpy() for s, b in zip(levels, before, strict=True)])
    theory = module.dynamics()
    curves = theory.on(variance.numpy())
    expected = curves.weight(1, levels) - curves.weight(0, levels)
    # 45,000 samples at least a level: about 1 % of the largest move of a level
    assert (np.abs(moved - expected).max(1) / np.abs(expected).max(1) < 0.04).all()
    assert often(levels).min() < 0.7
    assert "RelativeDensity(LogNormalNoise(mean=-0.5, std=0.8), 3 levels)" in repr(theory)


def test_declarations():
    module = linear()
    assert module.dynamics().objective.noise_density is None
    assert isinstance(module, SupportsDenoise)
    assert isinstance(module, SupportsDynamics)
    assert isinstance(module.sampler, Sampler)
    assert module.departures() == []
    sampled = linear(objective="samples").departures()
    assert ["mini-batches" in d.text for d in sampled] == [True]
    assert not sampled[0].affects_clock
    theory = linear(init=0.3, lr=0.02).dynamics()
    objective = theory.objective
    assert (theory.init, objective.sigma_min, objective.sigma_max, objective.discrete) == (0.3, 0.2, 8.0, True)
    assert objective.preconditioning == Preconditioning("edm", sigma_data=0.7)
    assert linear(lr=0.02).initial_learning_rate() == 0.02


def test_levels_are_the_samplers_unless_given():
    module = LinearDenoiser(2, Sampler(num_steps=5))
    assert module.sigma_grid == Sampler(num_steps=5).levels
    assert isinstance(module.noise, GridNoise)
    assert module.noise.sigmas == module.sigma_grid
    state = module.state_dict()
    assert set(state) == {"network.weight", "network.bias"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": 0}, "`shape` must be a positive integer, got 0"),
        ({"shape": [3, 0]}, "`shape` must be a positive integer, got 0"),
        ({"shape": []}, r"`shape` must hold at least one size, got \[\]"),
        ({"objective": "guess"}, "`objective` must be one of 'exact', 'samples', got 'guess'"),
        ({"reduction": "none"}, "`reduction` must be one of"),
        ({"sigmas": [1.0, -1.0]}, "`sigmas` must"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        LinearDenoiser(**{"shape": 3, **arguments})


def test_moments_must_fit_and_must_be_there():
    module = LinearDenoiser(3)
    with pytest.raises(ValueError, match=r"must have shapes \(3,\) and \(3, 3\), got \(2,\) and \(2, 2\)"):
        module.set_moments(torch.zeros(2), torch.eye(2))
    with pytest.raises(ValueError, match="`set_moments` must be called before `expected_loss`"):
        module.expected_loss()


def trainer(**options):
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(accelerator="cpu", devices=1, **{"max_steps": 2, **quiet, **options})


LOADER = DataLoader(torch.zeros(8, 3), batch_size=4)


def test_training_without_moments_is_refused():
    with pytest.raises(ValueError, match="`objective='exact'` needs the data's moments: use a datamodule"):
        trainer().fit(LinearDenoiser(3), LOADER)


@pytest.mark.parametrize(("mean", "kind"), [(0.0, "none"), (0.0, "edm"), (3.0, "edm")])
def test_a_rate_that_diverges_is_refused_and_the_limit_named(mean, kind):
    def at(lr):
        module = LinearDenoiser(3, sigmas=LEVELS, preconditioning=Preconditioning(kind), optimizer=descent(lr))
        module.set_moments(*moments(3, mean)[:2])
        return module

    limit = at(0.1).stable_learning_rate()
    with pytest.raises(ValueError, match=rf"`lr` must be at most {limit:.3g} for gradient descent to converge"):
        trainer().fit(at(1.01 * limit), LOADER)
    trainer().fit(at(0.99 * limit), LOADER)


def test_another_optimizer_or_samples_are_not_held_to_the_limit_of_descent():
    adam = LinearDenoiser(3, optimizer=functools.partial(torch.optim.Adam, lr=10.0))
    adam.set_moments(*moments()[:2])
    trainer().fit(adam, LOADER)
    trainer().fit(LinearDenoiser(3, objective="samples", optimizer=descent(1e-3)), LOADER)


def test_the_datamodule_gives_the_moments_and_training_follows_the_theory():
    data = GaussianDataModule(dim=4, num_samples=16, num_val_samples=8, batch_size=8)
    module = LinearDenoiser(4, sigmas=LEVELS, init=0.25, optimizer=descent(0.05)).double()
    trainer(max_steps=6, precision="64-true").fit(module, datamodule=data)
    _, covariance = data.population_moments()
    variance, rotation = torch.linalg.eigh(covariance.double())
    expected = module.dynamics().on(variance.numpy()).weight(6, LEVELS)
    for i, s in enumerate(LEVELS):
        np.testing.assert_allclose(gain(module, s, rotation).diag().numpy(), expected[i], rtol=1e-9, atol=1e-11)
