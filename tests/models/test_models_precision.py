"""Types inside a module in every precision, and compiled trainings."""

import functools
import math

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from spectral_lightning.diffusion import GridNoise
from spectral_lightning.models import DiffusionModule, FourierEmbedding, ResidualMLP
from spectral_lightning.theory import Preconditioning
from tests.support.nonlinear_training import QUIET, Losses, fresh_compiler


def module(seed=0, num_classes=None, **options):
    torch.manual_seed(seed)
    network, optimizer = ResidualMLP(4, 16, 1, 8, num_classes=num_classes), functools.partial(torch.optim.Adam, lr=1e-2)
    return DiffusionModule(network, optimizer=optimizer, num_classes=num_classes, **options)


def fit(model, classes=1, steps=30, precision="32-true"):
    """Losses of steps on batches of one size."""
    data = torch.randn(64, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([3.0, 1.0, 0.3, 0.1])
    losses = Losses()
    torch.manual_seed(1)
    loader = DataLoader(TensorDataset(data, torch.arange(64) % classes), batch_size=16)
    Trainer(max_steps=steps, precision=precision, callbacks=[losses], **QUIET).fit(model, loader)
    return losses.values


class Probe(nn.Module):
    """Keeps the types it is called with."""

    def __init__(self, dtype):
        super().__init__()
        self.weight = nn.Parameter(torch.ones((), dtype=dtype))
        self.seen = []

    def forward(self, x, noise):
        self.seen.append((x.dtype, noise.dtype))
        return x * self.weight


@pytest.mark.parametrize("network", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("state", [torch.bfloat16, torch.float32, torch.float64])
def test_input_is_in_the_type_of_the_network_and_output_in_that_of_the_state(network, state):
    net = Probe(network)
    z, sigma = torch.randn(3, 2, dtype=torch.float64).to(state), torch.tensor([0.1, 1.0, 7.0]).to(state)
    assert DiffusionModule(net).denoise(z, sigma).dtype == state
    assert net.seen == [(network, torch.promote_types(state, torch.float32))]


def test_half_precision_keeps_the_input_where_the_network_adds_little():
    # c_skip z of D would be good to three digits only, were it in the type of the network
    net, z, sigma = Probe(torch.bfloat16), torch.randn(50, 4), torch.full((50,), 1e-3)
    out = DiffusionModule(net).denoise(z, sigma)
    double = DiffusionModule(Probe(torch.float64)).denoise(z.double(), sigma.double())
    # 1e-3 times bfloat16's 2^-9 from the network
    torch.testing.assert_close(out.double(), double, rtol=1e-5, atol=2e-5)


def test_noise_level_is_embedded_in_single_precision():
    torch.manual_seed(0)
    embedding = FourierEmbedding(64, scale=16.0).bfloat16()
    t = torch.linspace(-1.5, 1.1, 50)
    angle = 2 * math.pi * t.double()[:, None] * embedding.frequencies.double()
    # angles of up to 300 in float32
    torch.testing.assert_close(embedding(t).double(), torch.cat([angle.sin(), angle.cos()], 1), rtol=0, atol=1e-4)


@pytest.fixture
def compiler():
    with fresh_compiler() as counters:
        yield counters


@pytest.mark.slow
def test_it_trains_compiled_as_it_does_eagerly(compiler):
    compiled, plain = module(compile=True, num_classes=2), module(num_classes=2)
    with torch.compiler.set_stance("default", force_backend="aot_eager"):  # all of the compiler but its C++
        losses = fit(compiled, 2)
    assert compiler["stats"]["unique_graphs"] == 1
    # another order of sums in float32, over 30 steps of Adam
    torch.testing.assert_close(torch.tensor(losses), torch.tensor(fit(plain, 2)), rtol=2e-2, atol=1e-3)
    assert list(compiled.state_dict()) == list(plain.state_dict())


@pytest.mark.slow
def test_compiled_to_machine_code_it_is_the_same_function(compiler):
    compiled, plain = module(compile=True), module()
    compiled.setup("fit")
    z, sigma = torch.randn(3, 4), torch.tensor([0.1, 1.0, 10.0])
    with torch.no_grad():
        torch.testing.assert_close(compiled.denoise(z, sigma), plain.denoise(z, sigma), rtol=1e-4, atol=1e-5)
    assert compiler["inductor"]["fxgraph_cache_miss"] + compiler["inductor"]["fxgraph_cache_hit"] > 0
    compiled.network.compile = None  # a second setup does not compile again
    compiled.setup("fit")


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true", "64-true"])
def test_levels_of_a_grid_survive_every_precision(precision):
    model = module(noise=GridNoise([0.5, 2.0]), preconditioning=Preconditioning("flow"))
    assert all(math.isfinite(x) for x in fit(model, steps=2, precision=precision))
