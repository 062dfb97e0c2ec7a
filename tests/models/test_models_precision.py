"""Trainings in every precision, compiled, and with averaged weights: finite, falling, and measured without a trace."""

import functools
import math

import pytest
import torch
from lightning.pytorch import Trainer, callbacks
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.utils.data import DataLoader, TensorDataset

from spectral_lightning.diffusion import GridNoise, undisturbed
from spectral_lightning.models import DiffusionModule, FourierEmbedding, ResidualMLP
from spectral_lightning.sampling import Sampler
from spectral_lightning.theory import Preconditioning
from tests.support.flat import flat_tracker
from tests.support.nonlinear_training import QUIET, Losses, fresh_compiler

PRECISIONS = {
    "32-true": torch.float32,
    "bf16-mixed": torch.float32,
    "bf16-true": torch.bfloat16,
    "64-true": torch.float64,
}
needs_averaging = pytest.mark.skipif(
    "EMAWeightAveraging" not in callbacks.__all__, reason="EMAWeightAveraging is in lightning 2.6 and later"
)


class Weights(callbacks.Callback):
    """Keeps the weights after every step."""

    def __init__(self):
        self.values = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.values.append([p.detach().clone() for p in pl_module.parameters()])


def module(seed=0, num_classes=None, **options):
    torch.manual_seed(seed)
    network, optimizer = ResidualMLP(4, 16, 1, 8, num_classes=num_classes), functools.partial(torch.optim.Adam, lr=1e-2)
    return DiffusionModule(network, optimizer=optimizer, num_classes=num_classes, **options)


def loader(classes=None, count=64):
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(count, 4, generator=generator) * torch.tensor([3.0, 1.0, 0.3, 0.1])
    label = torch.arange(count) % (classes or 1)
    return DataLoader(TensorDataset(data, label), batch_size=16)


def fit(model, steps=30, seed=1, data=None, **options):
    losses = Losses()
    torch.manual_seed(seed)
    given = {**QUIET, "max_steps": steps, **options}
    trainer = Trainer(**{**given, "callbacks": [*options.get("callbacks", []), losses]})
    trainer.fit(model, loader() if data is None else data)
    return losses.values


def falls(losses):
    third = len(losses) // 3
    return all(math.isfinite(x) for x in losses) and sum(losses[-third:]) < 0.8 * sum(losses[:third])


def weights(model):
    return [p.detach().clone() for p in model.parameters()]


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("num_classes", [None, 2])
def test_it_trains_in_every_precision(precision, num_classes):
    model = module(num_classes=num_classes, class_dropout=0.1 if num_classes else 0.0)
    losses = fit(model, steps=60, precision=precision, data=loader(num_classes))
    assert falls(losses)
    assert {p.dtype for p in model.parameters()} == {PRECISIONS[precision]}
    z, sigma = torch.randn(3, 4), torch.ones(3)
    with undisturbed(model):
        out = model.denoise(z, sigma)
    assert out.dtype == torch.float32
    assert torch.isfinite(out).all()


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


def test_losses_of_half_precision_are_close_to_those_of_single():
    # One step from the same weights and the same random numbers; bfloat16 is good to 0.4 %
    single, mixed, half = (fit(module(), steps=1, precision=p)[0] for p in ("32-true", "bf16-mixed", "bf16-true"))
    assert mixed == pytest.approx(single, rel=0.02)
    assert half == pytest.approx(single, rel=0.02)
    assert mixed != single


@pytest.fixture
def compiler():
    with fresh_compiler() as counters:
        yield counters


@pytest.mark.slow
def test_it_trains_compiled_as_it_does_eagerly(compiler):
    compiled, plain = module(compile=True, num_classes=2), module(num_classes=2)
    with torch.compiler.set_stance("default", force_backend="aot_eager"):  # all of the compiler but its C++
        losses = fit(compiled, data=loader(2))
    assert compiler["stats"]["unique_graphs"] == 1
    assert falls(losses)
    # another order of sums in float32, over 30 steps of Adam
    torch.testing.assert_close(torch.tensor(losses), torch.tensor(fit(plain, data=loader(2))), rtol=2e-2, atol=1e-3)
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


@pytest.mark.usefixtures("compiler")
def test_a_measurement_adds_no_graph_and_training_goes_on_compiled():
    model, counter = module(), CompileCounter()
    model.network.compile(backend=counter)
    batch = torch.randn(16, 4)

    def steps():
        for _ in range(2):
            model.loss(batch).backward()

    steps()
    assert counter.frame_count == 1
    with undisturbed(model):
        for size in (16, 7, 33):
            model.denoise(torch.randn(size, 4), torch.ones(size))
    assert counter.frame_count == 1
    steps()
    assert counter.frame_count == 1
    model.eval()  # without the context it does compile again: the test can fail
    with torch.no_grad():
        model.denoise(torch.randn(7, 4), torch.ones(7))
    assert counter.frame_count == 2


def averaged(tracker_at, path, steps=10):
    """Trainings with averaged weights: raw weights after every step, final weights, and the tracker."""
    tracker = flat_tracker(num_samples=8, sampler=Sampler(num_steps=2), per_decade=3)
    average = callbacks.EMAWeightAveraging(decay=0.5)
    kept = Weights()
    order = {None: [average], "first": [tracker, average], "last": [average, tracker]}[tracker_at]
    model = module()
    fit(model, steps, callbacks=[*order, kept], default_root_dir=str(path))
    return kept.values, weights(model), tracker


@needs_averaging
@pytest.mark.parametrize("tracker_at", ["first", "last"])
def test_a_tracker_beside_averaged_weights_changes_nothing_and_measures_raw_ones(tracker_at, tmp_path):
    alone_raw, alone_final, _ = averaged(None, tmp_path / "alone")
    raw, final, tracker = averaged(tracker_at, tmp_path / "both")
    assert all(equal(a, b) for a, b in zip(raw, alone_raw, strict=True))
    assert equal(final, alone_final)
    plain = flat_tracker(num_samples=8, sampler=Sampler(num_steps=2), per_decade=3)
    fit(module(), 10, callbacks=[plain], default_root_dir=str(tmp_path / "plain"))
    assert tracker.history.steps.tolist() == plain.history.steps.tolist()
    assert tracker.history.steps[-1] == 10
    assert (tracker.history.variance == plain.history.variance).all()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_levels_of_a_grid_survive_every_precision(precision):
    model = module(noise=GridNoise([0.5, 2.0]), preconditioning=Preconditioning("flow"))
    assert all(math.isfinite(x) for x in fit(model, steps=2, precision=precision))
