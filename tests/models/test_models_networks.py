"""What every network promises: shapes, start, conditioning and learning, in every precision and compiled."""

import functools
import sys

import pytest
import torch
from torch import nn

from spectral_lightning.diffusion import LogNormalNoise, undisturbed
from spectral_lightning.models import DiffusionModule, DiT, ResidualMLP, UNet
from tests.support.nonlinear_training import falls, fit, fresh_compiler, reloaded, trained_by_hand

SHAPE = (1, 8, 8)
SMALL = {
    "mlp": functools.partial(ResidualMLP, width=16, num_blocks=2, embedding=8),
    "unet": functools.partial(UNet, width=8),
    "dit": functools.partial(DiT, depth=2, width=32),
}
every_network = pytest.mark.parametrize("name", SMALL)
images = pytest.mark.parametrize("name", ["unet", "dit"])


def tiny(name, num_classes=None, **options):
    """A module over a small network; the options are the network's."""
    torch.manual_seed(0)
    noise, optimizer = LogNormalNoise(), functools.partial(torch.optim.Adam, lr=3e-3)
    network = functools.partial(SMALL[name], **options)
    return DiffusionModule(network, noise=noise, optimizer=optimizer, shape=list(SHAPE), num_classes=num_classes)


def awake(name, **options):
    """A module whose output is not zero, in evaluation mode."""
    module = tiny(name, **({"zero_init": False} if name == "unet" else {}), **options)
    torch.manual_seed(1)
    for key, p in module.network.named_parameters():
        if name == "dit" and ("modulation" in key or key.startswith("out")):
            nn.init.normal_(p, std=0.3)
        if key.startswith("classes"):
            nn.init.normal_(p)
    return module.eval()


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        *((SMALL["mlp"], shape) for shape in ((6,), (3, 4, 4))),
        *((SMALL["unet"], shape) for shape in ((1, 8, 8), (3, 8, 4), (2, 4, 6))),
        (functools.partial(DiT, patch_size=4, depth=1, width=8, heads=2), (3, 4, 8)),
        (functools.partial(DiT, patch_size=3, depth=1, width=8, heads=2), (2, 6, 3)),
        (functools.partial(DiT, patch_size=1, depth=1, width=8, heads=2), (1, 2, 2)),
    ],
)
@pytest.mark.parametrize("batch", [1, 5])
def test_shapes_come_back(network, shape, batch):
    module = DiffusionModule(network(list(shape)))
    z = torch.randn(batch, *shape)
    assert module.denoise(z, torch.rand(batch) + 0.1).shape == (batch, *shape)
    assert module.loss(z).shape == ()


@pytest.mark.parametrize(("name", "options"), [("mlp", {"zero_init": True}), ("unet", {}), ("dit", {})])
def test_starts_at_its_skip_an_mlp_only_if_asked(name, options):
    module, z, sigma = tiny(name, **options), torch.randn(3, *SHAPE), torch.tensor([0.1, 1.0, 10.0])
    skip = (0.25 / (0.25 + sigma**2))[:, None, None, None] * z
    torch.testing.assert_close(module.denoise(z, sigma), skip, rtol=1e-5, atol=1e-6)
    assert (awake(name).denoise(z, sigma) - skip).abs().max() > 1e-3


@every_network
def test_noise_level_and_label_matter(name):
    x = torch.randn(1, *SHAPE).expand(4, -1, -1, -1)
    out = awake(name, num_classes=3).network(x, torch.tensor([0.1, 0.5, 0.1, 0.1]), torch.tensor([0, 0, 1, 3]))
    for other in (1, 2, 3):
        assert (out[0] - out[other]).abs().max() > 1e-3 * out.abs().max()


@every_network
def test_every_parameter_is_trained(name):
    module = tiny(name, num_classes=2)
    trained_by_hand(module, SHAPE, steps=3)  # a DiT opens its output first, then its gates, then what is behind them
    assert [key for key, p in module.named_parameters() if p.grad is None or not p.grad.any()] == []


@every_network
def test_examples_do_not_mix(name):
    module = awake(name, **({"attention_resolutions": (4,)} if name == "unet" else {}))
    z, sigma = torch.randn(6, *SHAPE), torch.rand(6) + 0.1
    with torch.no_grad():
        together = module.denoise(z, sigma)
        alone = torch.cat([module.denoise(z[i : i + 1], sigma[i : i + 1]) for i in range(6)])
    assert torch.allclose(together, alone, rtol=1e-4, atol=1e-5)  # float32, another order of sums


@pytest.mark.parametrize(("name", "options"), [("mlp", {}), ("dit", {}), ("unet", {"dropout": 0.5})])
def test_only_dropout_depends_on_the_mode(name, options):
    module, z, sigma = awake(name, **options), torch.randn(2, *SHAPE), torch.ones(2)
    steady = module.denoise(z, sigma)
    assert torch.equal(module.train().denoise(z, sigma), steady) == (not options)
    assert torch.equal(module.eval().denoise(z, sigma), steady)


PRECISIONS = {"32-true": "float32", "bf16-mixed": "float32", "bf16-true": "bfloat16", "64-true": "float64"}
PRECISE = [
    pytest.param(name, precision, dtype, marks=[pytest.mark.slow] if name != "mlp" and precision != "32-true" else [])
    for name in SMALL
    for precision, dtype in PRECISIONS.items()
]


@pytest.mark.parametrize(("name", "precision", "dtype"), PRECISE)
def test_it_learns(name, precision, dtype, tmp_path):
    module = tiny(name, num_classes=2)
    falls(module, SHAPE, precision, tmp_path)
    assert {p.dtype for p in module.parameters()} == {getattr(torch, dtype)}
    with undisturbed(module):
        out = module.denoise(torch.randn(3, *SHAPE), torch.ones(3))
    assert out.dtype == torch.float32
    assert torch.isfinite(out).all()


@pytest.mark.slow
@images
def test_compiled_it_is_one_graph_with_the_same_gradients(name):
    """The graph alone; test_models_precision takes the perceptron through the rest of the compiler."""
    small = {"multipliers": (1,), "middle_attention": False} if name == "unet" else {"depth": 1}
    compiled, plain = awake(name, **small), awake(name, **small)
    batch = torch.randn(2, *SHAPE)
    with fresh_compiler():
        compiled.network.compile(backend="eager", fullgraph=True)
        for module in (compiled, plain):
            torch.manual_seed(3)
            module.loss(batch).backward()
    for one, other in zip(compiled.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-5)  # float32, another order of sums


@every_network
def test_checkpoint_comes_back(name, tmp_path):
    module = tiny(name, num_classes=2)
    fit(module, SHAPE, "32-true", tmp_path, steps=3)
    other = tiny(name, num_classes=2)
    if name != "unet":  # the frequencies of the noise embedding are drawn, and have to come from the file
        other.network.embedding.frequencies.zero_()
    again = reloaded(other, tmp_path)
    z, sigma, label = torch.randn(3, *SHAPE), torch.rand(3) + 0.1, torch.tensor([0, 1, 2])
    assert torch.equal(again.eval().denoise(z, sigma, label), module.eval().denoise(z, sigma, label))


@every_network
@pytest.mark.parametrize("num_classes", [None, 2])
def test_a_label_exactly_if_there_are_classes(name, num_classes):
    net = SMALL[name](list(SHAPE), num_classes=num_classes)
    label = None if num_classes else torch.zeros(1, dtype=torch.int64)
    with pytest.raises(ValueError, match="`label` must be given exactly if"):
        net(torch.randn(1, *SHAPE), torch.zeros(1), label)


@pytest.mark.parametrize(("network", "missing"), [(UNet, "diffusers"), (DiT, "timm.layers")])
def test_missing_library_is_named(monkeypatch, network, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=r"pip install 'spectral-lightning\[networks\]'"):
        network([1, 8, 8])


@pytest.mark.parametrize(
    ("network", "arguments", "argument"),
    [
        *((ResidualMLP, {"embedding": n}, "embedding") for n in (7, 0)),
        (ResidualMLP, {"width": 0}, "width"),
        (ResidualMLP, {"num_blocks": 0}, "num_blocks"),
        (ResidualMLP, {"shape": [3, 0, 2]}, "shape"),
        *(
            (network, {"shape": shape}, "shape")
            for network in (UNet, DiT)
            for shape in ([8, 8], 64, [0, 8, 8], [1, 8, 9])
        ),
        (UNet, {"shape": [1, 8, 10], "multipliers": (1, 2, 2)}, "shape"),
        (UNet, {"attention_resolutions": (16,)}, "attention_resolutions"),
        *((UNet, {"multipliers": m}, "multipliers") for m in ((), (1, 0))),
        (UNet, {"width": 5}, "width"),
        (UNet, {"num_blocks": 0}, "num_blocks"),
        (UNet, {"dropout": 1.0}, "dropout"),
        (DiT, {"patch_size": 0}, "patch_size"),
        (DiT, {"size": "M"}, "size"),
        *((DiT, {"width": width, "heads": 3}, "width") for width in (30, 32)),
        (DiT, {"depth": 0}, "depth"),
        (DiT, {"heads": 0}, "heads"),
        *((network, {"num_classes": 0}, "num_classes") for network in (ResidualMLP, UNet, DiT)),
    ],
)
def test_bad_arguments(network, arguments, argument):
    with pytest.raises(ValueError, match=f"`{argument}` must"):
        network(**{"shape": [1, 8, 8], **arguments})
