"""The training of any denoiser: its formula, its loss, its optimizer; every parametrisation is its own paper's."""

import functools

import pytest
import torch
from torch import nn

from spectral_lightning.diffusion import GridNoise, LogNormalNoise, SupportsDenoise, SupportsDynamics, default_noise
from spectral_lightning.models import DiffusionModule, DiT, ResidualMLP, UNet
from spectral_lightning.theory import Objective, OneLayer, Preconditioning

F64 = torch.float64

COEFFICIENTS = {  # c_skip, c_out, c_in, weight: Karras et al. table 1, sigma_data = 0.7; the others are in PAPERS
    "edm": lambda s: (
        0.49 / (s * s + 0.49),
        s * 0.7 / (s * s + 0.49) ** 0.5,
        1 / (s * s + 0.49) ** 0.5,
        (s * s + 0.49) / (s * 0.7) ** 2,
    ),
    "none": lambda s: (0.0, 1.0, 1.0, 1.0),
}


class Net(nn.Module):
    """Couples the coordinates and sees the noise level."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.8, dtype=F64))

    def forward(self, x, noise):
        return torch.tanh(self.scale * x.flip(-1)) + noise.reshape(-1, *(1,) * (x.ndim - 1))


def naive_denoise(z, sigma, kind, scale=0.8):
    out = torch.empty_like(z)
    for i, s in enumerate(sigma.tolist()):
        skip, c_out, c_in, _ = COEFFICIENTS[kind](s)
        inner = torch.tanh(scale * (c_in * z[i]).flip(-1)) + torch.tensor(s, dtype=F64).log() / 4
        out[i] = skip * z[i] + c_out * inner
    return out


@pytest.mark.parametrize("kind", COEFFICIENTS)
@pytest.mark.parametrize("shape", [(5,), (2, 3, 3)])
def test_denoise_is_its_formula(kind, shape):
    module = DiffusionModule(Net(), Preconditioning(kind, sigma_data=0.7))
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(6, *shape, generator=generator, dtype=F64)
    sigma = torch.logspace(-2, 2, 6, dtype=F64)
    kept = sigma.clone()
    out = module.denoise(z, sigma)
    assert torch.allclose(out, naive_denoise(z, sigma, kind), rtol=1e-13, atol=1e-13)  # rounding in float64
    assert torch.equal(module(z, sigma), out)
    assert torch.equal(sigma, kept)  # the caller's sigma is not edited
    assert isinstance(module, SupportsDenoise)


@pytest.mark.parametrize("kind", COEFFICIENTS)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: (x, None), lambda x: [x]], ids=["plain", "tuple", "list"])
def test_training_step_is_the_naive_loss(kind, reduction, wrap, monkeypatch):
    module = DiffusionModule(Net(), Preconditioning(kind, sigma_data=0.7), LogNormalNoise(-0.5, 0.9), reduction)
    logged = {}
    monkeypatch.setattr(module, "log", lambda name, value, **_: logged.update({name: value}))
    clean = torch.randn(9, 1, 2, 2, generator=torch.Generator().manual_seed(1), dtype=F64)
    torch.manual_seed(4)
    loss = module.training_step(wrap(clean), 0)
    torch.manual_seed(4)
    sigma = (torch.randn(9) * 0.9 - 0.5).exp()
    noisy = clean + sigma.reshape(-1, 1, 1, 1) * torch.randn_like(clean)
    error = (naive_denoise(noisy, sigma.double(), kind) - clean).square().flatten(1).sum(1).tolist()
    weights = [COEFFICIENTS[kind](s)[3] for s in sigma.tolist()]
    expected = sum(w * e for w, e in zip(weights, error, strict=True)) / 9 / (4 if reduction == "mean" else 1)
    assert loss.item() == pytest.approx(expected, rel=1e-5)  # the noise levels are drawn in float32
    assert logged["train/loss"] is loss
    assert loss.requires_grad
    torch.manual_seed(4)
    module.validation_step(wrap(clean), 0)
    assert logged["val/loss"].item() == loss.item()


SIGMAS = [0.02, 0.3, 1.0, 2.5, 30.0]

# Input x_t and target, from data, noise and noise-to-data ratio, as each paper writes them
PAPERS = {
    "variance_preserving": lambda x0, eps, abar, g: (abar.sqrt() * x0 + (1 - abar).sqrt() * eps, eps),
    "velocity": lambda x0, eps, abar, g: (
        abar.sqrt() * x0 + (1 - abar).sqrt() * eps,
        abar.sqrt() * eps - (1 - abar).sqrt() * x0,
    ),
    "x0": lambda x0, eps, abar, g: (abar.sqrt() * x0 + (1 - abar).sqrt() * eps, x0),
    "flow": lambda x0, eps, abar, g: ((1 - g) * x0 + g * eps, eps - x0),
}


class Levels:
    """The noise levels of the test, in order."""

    def sample(self, count, device):
        return torch.tensor(SIGMAS, dtype=F64).repeat(count // len(SIGMAS))


def paper(kind, x0, eps, sigma):
    s = sigma.reshape(-1, *(1,) * (x0.ndim - 1))
    return PAPERS[kind](x0, eps, 1 / (1 + s**2), s / (1 + s))


@pytest.mark.parametrize("kind", PAPERS)
@pytest.mark.parametrize("shape", [(3,), (2, 3, 3)])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_loss_is_the_plain_squared_error_of_the_target(kind, shape, reduction):
    module = DiffusionModule(Net(), Preconditioning(kind), Levels(), reduction)
    clean = torch.randn(10, *shape, generator=torch.Generator().manual_seed(0), dtype=F64)
    torch.manual_seed(1)
    loss = module.loss(clean)
    torch.manual_seed(1)
    eps, sigma = torch.randn_like(clean), torch.tensor(SIGMAS * 2, dtype=F64)
    x, target = paper(kind, clean, eps, sigma)
    square = (module.network(x, sigma.log() / 4) - target).square().flatten(1)
    expected = (square.sum(1) if reduction == "sum" else square.mean(1)).mean()
    # float64; at the smallest level the difference from the data loses two digits
    torch.testing.assert_close(loss, expected, rtol=1e-11, atol=0.0)


@pytest.mark.parametrize("kind", ["none", "velocity", "flow"])
def test_noise_is_that_of_the_paper_unless_given(kind):
    preconditioning, given = Preconditioning(kind), LogNormalNoise(0.0, 1.0)
    assert type(DiffusionModule(Net(), preconditioning).noise) is type(default_noise(preconditioning))
    assert DiffusionModule(Net(), preconditioning, given).noise is given


def test_defaults_are_edms():
    module = DiffusionModule(Net())
    assert module.preconditioning == Preconditioning("edm", sigma_data=0.5)
    assert (module.noise.mean, module.noise.std) == (-1.2, 1.2)
    assert module.reduction == "mean"
    optimizer = module.configure_optimizers()
    assert type(optimizer) is torch.optim.Adam
    assert module.initial_learning_rate() == 1e-4


def test_optimizer_and_scheduler_are_those_given():
    module = DiffusionModule(
        Net(),
        optimizer=functools.partial(torch.optim.SGD, lr=0.25, momentum=0.5),
        lr_scheduler=functools.partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.5),
    )
    configured = module.configure_optimizers()
    optimizer, schedule = configured["optimizer"], configured["lr_scheduler"]
    assert type(optimizer) is torch.optim.SGD
    assert optimizer.param_groups[0]["params"] == list(module.parameters())
    assert schedule["scheduler"].optimizer is optimizer
    assert schedule["interval"] == "step"
    assert module.initial_learning_rate() == 0.25


@pytest.mark.parametrize("num_classes", [None, 3])
def test_a_network_class_is_built_as_one_is_by_hand(num_classes):
    torch.manual_seed(0)
    built = DiffusionModule(functools.partial(ResidualMLP, width=8), shape=[1, 2, 2], num_classes=num_classes)
    torch.manual_seed(0)
    given = DiffusionModule(ResidualMLP([1, 2, 2], 8, num_classes=num_classes), num_classes=num_classes)
    assert list(built.state_dict()) == list(given.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(built.parameters(), given.parameters(), strict=True))


@pytest.mark.parametrize(("network", "shared"), [(ResidualMLP, False), (UNet, True), (DiT, True), (Net(), False)])
def test_the_theory_and_where_the_training_departs_from_it(network, shared):
    adam, preconditioning = functools.partial(torch.optim.Adam, lr=2e-3), Preconditioning("edm", sigma_data=0.3)
    module = DiffusionModule(network, preconditioning, optimizer=adam, shape=[1, 8, 8])
    assert isinstance(module, SupportsDynamics)
    assert repr(module.dynamics()) == repr(OneLayer(Objective(2e-3, preconditioning)))
    texts = [departure.text for departure in module.departures()]
    noise = f"{type(module.noise).__name__} drawn"
    for words in (f"{type(module.network).__name__} trained", "all levels", "mini-batches", noise):
        assert sum(words in text for text in texts) == 1
    assert any("positions" in text for text in texts) == shared
    assert [departure.affects_clock for departure in module.departures()][:3] == [True, True, False]
    module.noise = GridNoise([2.0, 1.0])
    assert not any("drawn" in departure.text for departure in module.departures())


@pytest.mark.parametrize(
    ("arguments", "error", "argument"),
    [
        ({"network": UNet}, ValueError, "shape"),
        ({"network": "UNet", "shape": [1, 8, 8]}, TypeError, "network"),
        ({"network": Net(), "reduction": "none"}, ValueError, "reduction"),
    ],
)
def test_bad_arguments(arguments, error, argument):
    with pytest.raises(error, match=f"`{argument}` must be"):
        DiffusionModule(**arguments)
