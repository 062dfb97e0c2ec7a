"""The linear denoiser: its levels, its minimum, its descent under a density of noise levels, and what it refuses."""

import functools

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from spectral_lightning.diffusion import GridNoise, LogNormalNoise, UniformTimeNoise
from spectral_lightning.models import AffinePerLevel, LinearDenoiser
from spectral_lightning.sampling import Sampler
from spectral_lightning.theory import Preconditioning
from tests.support import solvable_training as st
from tests.support.nonlinear_training import QUIET

MEAN = torch.linspace(-1, 1, 8, dtype=st.F64)
NOISE = LogNormalNoise(-0.5, 0.8)
OFTEN = np.exp(-((np.log(st.LEVELS) + 0.5) ** 2) / (2 * 0.8**2))  # the density of ln sigma written out, 1 on average
OFTEN = OFTEN / OFTEN.mean()
KINDS = ("edm", "none", "velocity", "variance_preserving")
every_kind = pytest.mark.parametrize("kind", KINDS)
PRECONDITIONING = pytest.mark.parametrize("preconditioning", [st.EDM, st.PLAIN], ids=["edm", "none"])


@pytest.mark.parametrize("dtype", [torch.float32, st.F64])
def test_levels_of_the_sampler_are_found_in_either_precision(dtype):
    sampler = Sampler(num_steps=40)
    net = AffinePerLevel(1, sampler.levels)
    levels = torch.tensor(sampler.levels, dtype=dtype)
    assert net.level(levels.log() / 4).tolist() == list(range(40))
    assert net.bfloat16().level(levels.log() / 4).tolist() == list(range(40))


@pytest.mark.parametrize("sigma", [2.0, 8.004, 1.001, 1e-9])
def test_another_level_is_refused_naming_the_grid(sigma):
    with pytest.raises(ValueError, match=rf"`sigma` must be one of the levels .* 8, 1, 0\.2, got {sigma:.6g}\."):
        LinearDenoiser(3, sigmas=[8.0, 1.0, 0.2]).denoise(torch.zeros(2, 3), torch.tensor([1.0, sigma], dtype=st.F64))


def test_levels_are_the_samplers_unless_given():
    module = LinearDenoiser(2, Sampler(num_steps=5))
    assert module.sigma_grid == module.noise.sigmas == Sampler(num_steps=5).levels
    assert isinstance(module.noise, GridNoise)
    assert set(module.state_dict()) == {"network.weight", "network.bias"}


def test_stable_learning_rate_without_preconditioning():
    module = LinearDenoiser(3, sigmas=[80.0, 1.0], preconditioning=Preconditioning("none"))
    assert module.stable_learning_rate() == pytest.approx(1 / 6400, rel=1e-12)
    module.set_moments(torch.zeros(3), 100 * torch.eye(3))
    assert module.stable_learning_rate() == pytest.approx(1 / 6500, rel=1e-12)


@PRECONDITIONING
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_a_density_of_noise_levels_weighs_the_exact_loss(preconditioning, reduction):
    """Against the losses of one level each, by the module without a density."""
    options = {"mean": MEAN, "preconditioning": preconditioning, "reduction": reduction}
    module = st.perturb(st.made("linear", init=0.4, noise=NOISE, **options))
    total = 0.0
    for i, (sigma, weight) in enumerate(zip(st.LEVELS, OFTEN, strict=True)):
        single = st.made("linear", sigmas=[sigma], **options)
        with torch.no_grad():
            single.network.weight.copy_(module.network.weight[i : i + 1])
            single.network.bias.copy_(module.network.bias[i : i + 1])
        total += weight * single.expected_loss().item()
    assert module.expected_loss().item() == pytest.approx(total, rel=1e-12)
    assert "RelativeDensity(LogNormalNoise(mean=-0.5, std=0.8), 6 levels)" in repr(module.dynamics())
    assert st.made("linear", noise=UniformTimeNoise(0.4)).noise.probabilities[0] == 0  # 2 lies above 0.6 / 0.4


@every_kind
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("init", [0.0, 1.0])
@pytest.mark.parametrize("noise", [None, NOISE], ids=["equal", "density"])
def test_descent_is_the_recursion_of_the_formula_and_of_the_theory(kind, reduction, init, noise):
    """``psi_t = psi* + (psi_0 - psi*) (1 - 2 eta p f (lambda + sigma^2))^t``, written out, and the module's theory."""
    p, steps, (modes, lam) = Preconditioning(kind, sigma_data=0.7), [0, 1, 60], st.basis("linear")
    module = st.made("linear", relative=0.4, preconditioning=p, reduction=reduction, init=init, noise=noise)
    rate = module.initial_learning_rate() / (8 if reduction == "mean" else 1)
    gains = np.array(st.descend(module, steps, lambda m: modes.T @ st.maps(m)[0] @ modes))
    theory = st.theory_of(module).weight(steps, st.LEVELS)
    for i, (s, weight) in enumerate(zip(st.LEVELS, OFTEN if noise else np.ones(len(st.LEVELS)), strict=True)):
        factor = 1 - 2 * rate * weight * p.loss_weight(s) * (p.c_out(s) * p.c_in(s)) ** 2 * (lam + s**2)
        optimum = lam / (lam + s**2)
        start = p.c_skip(s) + p.c_out(s) * p.c_in(s) * init
        naive = optimum + (start - optimum) * factor ** np.array(steps)[:, None]
        # 60 steps of rounding in float64
        np.testing.assert_allclose(gains[:, i], naive[..., None] * np.eye(8), rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(theory[:, i], naive, rtol=1e-9, atol=1e-11)
    assert np.abs(gains[-1] - gains[0]).max() > 0.1
    assert not module.network.bias.any()


def test_moments_must_fit_and_must_be_there():
    module = LinearDenoiser(3)
    with pytest.raises(ValueError, match="`mean` and `covariance` must have shapes"):
        module.set_moments(torch.zeros(2), torch.eye(2))
    with pytest.raises(ValueError, match="`set_moments` must be called"):
        module.expected_loss()


def test_only_descent_on_the_exact_loss_is_held_to_its_limit():
    loader = DataLoader(torch.zeros(8, *st.SHAPE), batch_size=4)
    for options in (
        {"optimizer": functools.partial(torch.optim.Adam, lr=10.0)},
        {"objective": "samples", "optimizer": st.descent(1e-3)},
        {"relative": 0.99},
    ):
        Trainer(max_steps=2, precision="64-true", **QUIET).fit(st.made("linear", **options), loader)
