"""The solvable families: exact losses, descent on the theory's curves, training on samples, and what they refuse."""

import functools

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from spectral_lightning.datamodules import GaussianDataModule, ImageDataModule
from spectral_lightning.diffusion import LogNormalNoise, SupportsDenoise, SupportsDynamics
from spectral_lightning.models import (
    AffinePerLevel,
    CircularConvPerLevel,
    DeepLinearPerLevel,
    LocalConvPerLevel,
    SolvableDenoiser,
)
from spectral_lightning.sampling import Sampler
from tests.support import solvable_training as st
from tests.support.nonlinear_training import QUIET

D = int(np.prod(st.SHAPE))
MEAN = torch.randn(D, generator=torch.Generator().manual_seed(3), dtype=st.F64)
STEPS = tuple(range(0, 201, 10))
ZEROS = {"padding": "zeros"}
REDUCTIONS = ("sum", "mean")
every_family = pytest.mark.parametrize("family", st.FAMILIES)

NETWORKS = {
    "linear": functools.partial(AffinePerLevel, 12, [1.0, 4.0, 0.25]),
    "linear without bias": functools.partial(AffinePerLevel, 12, [1.0, 4.0, 0.25], bias=False),
    "deep": functools.partial(DeepLinearPerLevel, 12, [1.0, 4.0, 0.25], depth=3),
    "tied": functools.partial(DeepLinearPerLevel, 12, [1.0, 4.0, 0.25], depth=2, tied=True),
    "full width 1-d": functools.partial(CircularConvPerLevel, 2, (6,), [1.0, 4.0, 0.25], bias="per_pixel"),
    "full width 2-d": functools.partial(CircularConvPerLevel, 2, (2, 3), [1.0, 4.0, 0.25], bias="shared"),
    "local 1-d": functools.partial(LocalConvPerLevel, 2, (6,), [1.0, 4.0, 0.25], bias="per_pixel"),
    "local 2-d": functools.partial(LocalConvPerLevel, 1, (3, 4), [1.0, 4.0, 0.25], bias="shared"),
    "local zeros": functools.partial(LocalConvPerLevel, 1, (3, 4), [1.0, 4.0, 0.25], padding="zeros"),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("flat", [True, False])
def test_a_batch_goes_through_the_matrices_of_its_levels(name, flat):
    """Two routes of the same network: the FFT, the convolution or the layers, and the dense matrices of the exact loss."""
    network = st.perturb(NETWORKS[name]().double())
    size = (12,) if flat or "conv" not in str(type(network)).lower() else (network.channels, *network.size)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(7, *size, generator=generator, dtype=st.F64)
    order = [2, 0, 1, 1, 2, 0, 2]
    out = network(x, torch.tensor([1.0, 4.0, 0.25], dtype=st.F64)[order].log() / 4)
    weight, bias = network.affine()
    expected = torch.stack([weight[i] @ x[j].flatten() + bias[i] for j, i in enumerate(order)])
    assert out.shape == x.shape
    torch.testing.assert_close(out.flatten(1), expected, rtol=1e-12, atol=1e-12)
    assert network.sigmas == (1.0, 4.0, 0.25)
    assert all(parameter.is_contiguous() for parameter in network.parameters())


@pytest.mark.parametrize("name", NETWORKS)
def test_levels_share_no_parameters(name):
    network = st.perturb(NETWORKS[name]().double())
    before = [m.detach().clone() for m in network.affine()]
    axis = 1 if name in ("deep", "tied") else 0
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.select(axis, 1).add_(1.0)
    after = network.affine()
    for old, new in zip(before, after, strict=True):
        assert torch.equal(old[[0, 2]], new[[0, 2]])
    assert (before[0][1] != after[0][1]).any()


@every_family
def test_a_network_runs_under_autocast(family):
    module = st.FAMILIES[family](list(st.SHAPE), sigmas=[2.0, 0.5], init=0.3)
    x = torch.randn(4, *st.SHAPE, generator=torch.Generator().manual_seed(0))
    noise = torch.tensor([2.0, 0.5, 0.5, 2.0]).log() / 4
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = module.network(x, noise)
    torch.testing.assert_close(out, 0.3 * x, rtol=0.02, atol=1e-6)  # bfloat16 has 8 bits


@every_family
@pytest.mark.parametrize("init", [0.1, 0.8])
def test_a_denoiser_starts_with_the_gain_asked_for(family, init):
    module = st.made(family, init=init, preconditioning=st.EDM)
    matrices, shifts = st.maps(module)
    for sigma, matrix in zip(st.LEVELS, matrices, strict=True):
        gain = 0.16 / (sigma**2 + 0.16) + sigma * 0.4 / (sigma**2 + 0.16) * init
        np.testing.assert_allclose(matrix, gain * np.eye(D), rtol=1e-12, atol=1e-14)
    assert not shifts.any()


LOSSES = [
    *((family, {}) for family in st.FAMILIES),
    ("full_width", {"bias": "shared"}),
    ("full_width", {"bias": "per_pixel"}),
    ("local", {"bias": "shared"}),
    ("local", {"bias": "per_pixel"}),
    ("local", ZEROS),
]


@pytest.mark.parametrize(("family", "options"), LOSSES)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_expected_loss_is_the_expectation(family, options, reduction):
    """Monte-Carlo through the network's own forward pass, non-zero mean, random parameters."""
    module = st.perturb(st.made(family, mean=MEAN, reduction=reduction, preconditioning=st.EDM, **options))
    generator = torch.Generator().manual_seed(2)
    root, count, total, error = torch.linalg.cholesky(st.covariance_of()), 10_000, 0.0, 0.0
    for sigma in st.LEVELS:
        x0 = MEAN + torch.randn(count, D, generator=generator, dtype=st.F64) @ root.T
        z = x0 + sigma * torch.randn(count, D, generator=generator, dtype=st.F64)
        level = torch.full((count,), sigma, dtype=st.F64)
        out = module.denoise(z.reshape(-1, *st.SHAPE), level).detach().reshape(count, D)
        square = ((out - x0) ** 2).sum(1) * (sigma**2 + 0.16) / (sigma * 0.4) ** 2
        total, error = total + square.mean().item(), np.hypot(error, square.std().item() / count**0.5)
    divisor = D if reduction == "mean" else 1
    loss = module.expected_loss().item()
    assert abs(loss - total / divisor) < 4 * error / divisor
    assert 4 * error < 0.05 * total  # sharp enough to fail
    assert module.loss(torch.zeros(1, *st.SHAPE)).item() == loss  # whatever the batch


def predicted(module, steps=STEPS):
    theory = st.theory_of(module)
    return theory.weight(steps, st.LEVELS), theory.generated_variance(steps, sampler=module.sampler)


@every_family
@pytest.mark.parametrize("kind", [st.EDM, st.PLAIN], ids=["edm", "none"])
def test_descent_lies_on_the_theory_at_every_step_recorded(family, kind):
    module, (modes, _) = st.made(family, init=0.1, preconditioning=kind, relative=0.05), st.basis(family)
    seen = st.descend(module, STEPS, lambda m: (st.along(modes, st.maps(m)[0]), st.along(modes, st.generated(m))))
    gains, variances = (np.array(table) for table in zip(*seen, strict=True))
    gain, variance = predicted(module)
    # Rounding of 200 steps in double precision
    np.testing.assert_allclose(gains, gain, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(variances, variance, rtol=1e-8, atol=1e-12)
    for shift in (0.9, 1.1):  # a shift of the theory's time by ten percent is noticed
        _, shifted = predicted(module, [round(step * shift) for step in STEPS])
        assert (np.abs(variances / shifted - 1).max(axis=0) > 0.02).sum() >= D / 2


SAMPLED = {
    f"{family}, {reduction}": (family, {"reduction": reduction}) for family in st.FAMILIES for reduction in REDUCTIONS
}
SAMPLED["linear, density"] = ("linear", {"noise": LogNormalNoise(-0.5, 2.0)})


@pytest.mark.parametrize("name", SAMPLED)
def test_samples_have_the_theorys_clock(name):
    """One step on a very large batch moves the gains as the theory says: levels and mean divide the learning rate."""
    family, options = SAMPLED[name]
    module = st.made(
        family, init=0.3, objective="samples", preconditioning=st.EDM, optimizer=st.descent(1e-3), **options
    )
    torch.manual_seed(0)
    x0 = torch.randn(100_000, D, dtype=st.F64) @ torch.linalg.cholesky(st.covariance_of()).T
    modes, _ = st.basis(family)
    before = st.along(modes, st.maps(module)[0])
    optimizer = module.configure_optimizers()
    module.loss(x0.reshape(-1, *st.SHAPE)).backward()
    optimizer.step()
    moved = st.along(modes, st.maps(module)[0]) - before
    gain, _ = predicted(module, [0, 1])
    expected = gain[1] - gain[0]
    # 17,000 examples a level: about 1 % of the largest moves
    assert (moved * expected).sum() / (expected**2).sum() == pytest.approx(1.0, abs=0.03)
    assert np.abs(moved - expected).max() < 0.05 * np.abs(expected).max()
    slower = len(st.LEVELS) * (D if "mean" in name else 1)
    assert module.dynamics().objective.learning_rate == pytest.approx(1e-3 / slower)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["linear", "deep", "full_width", "local"])
def test_trained_on_samples_within_the_error_bar(family):
    """Twelve trainings on fresh mini-batches: their mean lies within its own standard error of the theory.

    The expectation of descent on fresh samples of a loss that is quadratic in the weights is descent on the exact loss;
    deep layers are close to it at a small rate or a large batch.
    """
    seeds, steps, batch = 12, 30, 384
    root, (modes, _) = torch.linalg.cholesky(st.covariance_of()), st.basis(family)
    final = []
    for seed in range(seeds):
        module = st.made(family, init=0.1, objective="samples", preconditioning=st.EDM, relative=0.12)
        optimizer = module.configure_optimizers()
        torch.manual_seed(seed)
        for _ in range(steps):
            optimizer.zero_grad()
            module.loss((torch.randn(batch, D, dtype=st.F64) @ root.T).reshape(-1, *st.SHAPE)).backward()
            optimizer.step()
        final.append((st.along(modes, st.maps(module)[0]), np.log(st.along(modes, st.generated(module)))))
    gain, variance = predicted(module, [steps])
    early, late = (predicted(module, [round(steps * shift)])[1][0] for shift in (0.85, 1.15))
    for index, expected in ((0, gain[0]), (1, np.log(variance[0]))):
        values = np.array([run[index] for run in final])
        error = values.std(axis=0, ddof=1) / seeds**0.5
        distance = np.abs(values.mean(axis=0) - expected) / error
        # Student's t of 11 degrees: 5 is passed with probability 4e-4, root mean square 1.1
        assert distance.max() < 5
        assert np.sqrt((distance**2).mean()) < 1.8
    for shifted in (early, late):  # the error bar is small enough to notice a clock that is off by 15 %
        assert (np.abs(values.mean(axis=0) - np.log(shifted)) / error > 5).sum() >= D / 2


EDGES = [
    *(("linear", {"bias": bias, "preconditioning": kind}) for bias in (True, False) for kind in (st.EDM, st.PLAIN)),
    *(("linear", {"noise": LogNormalNoise(-0.5, 0.8), "preconditioning": kind}) for kind in (st.EDM, st.PLAIN)),
    ("linear", {"reduction": "mean", "preconditioning": st.EDM}),
    *(("full_width", {"bias": bias, "preconditioning": st.EDM}) for bias in (None, "shared", "per_pixel")),
    *(
        ("local", {"bias": bias, "padding": padding, "preconditioning": st.EDM})
        for bias in (None, "shared", "per_pixel")
        for padding in ("circular", "zeros")
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("family", "options"), EDGES)
@pytest.mark.parametrize(("mean", "scale"), [(0.0, 1.0), (1.5, 0.01)])
def test_stable_learning_rate_is_the_edge(family, options, mean, scale):
    """The steepest direction shrinks by 0.96 or grows by 1.04 a step."""

    def growth(factor):
        module = st.made(family, mean=mean * MEAN, covariance=scale * st.covariance_of(), relative=factor, **options)
        first, last = st.descend(st.perturb(module), [0, 180], lambda m: m.expected_loss().item())
        return last / first

    assert growth(0.98) < 1.0
    assert growth(1.02) > 100


@every_family
def test_declarations(family):
    module = st.made(family, init=0.3, optimizer=st.descent(0.01))
    assert isinstance(module, SolvableDenoiser)
    assert isinstance(module, SupportsDenoise)
    assert isinstance(module, SupportsDynamics)
    assert isinstance(module.sampler, Sampler)
    assert module.departures() == []
    sampled = st.made(family, init=0.3, objective="samples").departures()
    assert [("mini-batches" in d.text, d.affects_clock) for d in sampled] == [(True, False)]
    theory, objective = module.dynamics(), module.dynamics().objective
    assert (theory.init, objective.learning_rate, objective.discrete) == (0.3, 0.01, True)
    assert (objective.sigma_min, objective.sigma_max) == (st.LEVELS[-1], 2.0)
    assert module.sigma_grid == st.LEVELS
    assert (module.shape, module.dim) == (st.SHAPE, D)
    assert all(name.startswith("network.") for name in module.state_dict())


@every_family
def test_the_datamodule_gives_the_moments_and_training_follows_the_theory(family):
    data = GaussianDataModule(dim=D, num_samples=16, num_val_samples=0, batch_size=8, scale=0.3)
    module = st.FAMILIES[family](list(st.SHAPE), sigmas=[1.5, 0.4], init=0.25).double()
    Trainer(max_steps=6, precision="64-true", **QUIET).fit(module, datamodule=data)
    covariance = data.population_moments()[1]
    modes, _ = st.basis(family, covariance=covariance)
    expected = st.theory_of(module, covariance=covariance).weight(6, [1.5, 0.4])
    # The initial gain of layers is rounded in single precision.
    np.testing.assert_allclose(st.along(modes, st.maps(module)[0]), expected, rtol=1e-6, atol=1e-7)


def test_training_moments_serve_where_no_population_is_known():
    data = ImageDataModule("digits", resize=2, max_samples=16, batch_size=8)
    module = st.FAMILIES["linear"](data.shape, sigmas=[1.5, 0.4], optimizer=st.descent(1e-3))
    Trainer(max_steps=1, limit_val_batches=0, **QUIET).fit(module, datamodule=data)
    assert all(torch.equal(a, b) for a, b in zip(module._moments, data.training_moments(), strict=True))


@every_family
def test_a_rate_that_diverges_is_refused_and_the_limit_named(family):
    loader = DataLoader(torch.zeros(8, *st.SHAPE), batch_size=4)
    limit = st.made(family, init=0.3).stable_learning_rate()
    with pytest.raises(ValueError, match=rf"`lr` must be at most {limit:.3g} for gradient descent to converge"):
        Trainer(max_steps=1, **QUIET).fit(st.made(family, init=0.3, relative=1.01), loader)
    with pytest.raises(ValueError, match="`objective='exact'` needs the data's moments: use a datamodule"):
        Trainer(max_steps=1, **QUIET).fit(st.FAMILIES[family](list(st.SHAPE), init=0.3), loader)


@every_family
@pytest.mark.parametrize(
    "arguments",
    [
        *({"shape": shape} for shape in (0, [2, 0], [])),
        {"objective": "guess"},
        {"reduction": "none"},
        {"sigmas": [1.0, -1.0]},
    ],
)
def test_bad_arguments(family, arguments):
    with pytest.raises(ValueError, match=f"`{next(iter(arguments))}` must"):
        st.FAMILIES[family](**{"shape": [2, 4], **arguments})
