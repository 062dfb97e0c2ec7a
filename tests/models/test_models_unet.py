"""The U-Net: its size, where it attends, what it hears, what it refuses, and that it learns under every precision."""

import functools
import math
import sys

import pytest
import torch

from spectral_lightning.diffusion import LogNormalNoise, SupportsDynamics
from spectral_lightning.models import UNet, UNetDenoiser
from spectral_lightning.theory import OneLayer, Preconditioning
from tests.support.nonlinear_training import falls, fit, fresh_compiler, reloaded, trained_by_hand

EDM_CIFAR10 = 55_733_891  # the published network, counted by hand from its code


def tiny(**options):
    torch.manual_seed(0)
    return UNetDenoiser([1, 8, 8], **{"width": 8, "optimizer": functools.partial(torch.optim.Adam, lr=3e-3), **options})


def convolution(size_in, size_out, kernel=3):
    return size_in * size_out * kernel**2 + size_out


def residual(size_in, size_out, embedding, adaptive):
    modulation = (embedding + 1) * size_out * (2 if adaptive else 1)
    skip = convolution(size_in, size_out, 1) if size_in != size_out else 0
    norms = 2 * size_in + 2 * size_out
    return norms + convolution(size_in, size_out) + modulation + convolution(size_out, size_out) + skip


def expected_parameters(channels, height, width, multipliers, num_blocks, attended, adaptive):
    """Down, middle and up, block by block."""
    emb, widths = 4 * width, [width * m for m in multipliers]
    attention = {w: 2 * w + 4 * (w * w + w) for w in widths}
    block = functools.partial(residual, embedding=emb, adaptive=adaptive)
    total = (widths[0] + 1) * emb + (emb + 1) * emb + convolution(channels, widths[0])
    skips, now = [widths[0]], widths[0]
    for level, w in enumerate(widths):
        for _ in range(num_blocks):
            total += block(now, w) + (attention[w] if height >> level in attended else 0)
            now = w
            skips.append(now)
        if level < len(widths) - 1:
            total += block(now, now)
            skips.append(now)
    total += 2 * block(now, now) + attention[now]
    for level, w in reversed(list(enumerate(widths))):
        for _ in range(num_blocks + 1):
            total += block(now + skips.pop(), w) + (attention[w] if height >> level in attended else 0)
            now = w
        total += block(now, now) if level else 0
    return total + 2 * now + convolution(now, channels)


@pytest.mark.parametrize(
    ("shape", "width", "multipliers", "num_blocks", "attended", "adaptive"),
    [
        ([1, 16, 16], 16, (1, 2), 1, (), True),
        ([3, 8, 12], 8, (1, 2, 3), 2, (4, 2), True),
        ([3, 32, 32], 128, (2, 2, 2), 4, (16,), True),
        ([3, 32, 32], 128, (2, 2, 2), 4, (16,), False),
    ],
)
def test_number_of_parameters(shape, width, multipliers, num_blocks, attended, adaptive):
    with torch.device("meta"):
        net = UNet(shape, width, multipliers, num_blocks, attended, adaptive_scale=adaptive)
    expected = expected_parameters(shape[0], shape[1], width, multipliers, num_blocks, attended, adaptive)
    assert sum(p.numel() for p in net.parameters()) == expected


def test_size_beside_edm():
    with torch.device("meta"):
        net = UNet([3, 32, 32], 128, (2, 2, 2), 4, (16,), adaptive_scale=False)
    more_attention = 4 * (2 * 256 + 4 * (256**2 + 256))
    # The first block and the last but one meet 256 channels of the first convolution where EDM has 128.
    wide_start = 3 * 9 * 128 + 128 + 2 * (2 * 128 + 9 * 128 * 256) + 128 * 256 - (128 * 256 + 256)
    sines, augmentation, resampled_skips = 128 * 512, 9 * 128, 4 * (256**2 + 256)
    parameters = sum(p.numel() for p in net.parameters())
    assert parameters == 57_183_491
    assert parameters == EDM_CIFAR10 + more_attention + wide_start + sines - augmentation - resampled_skips


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 4), (2, 4, 6)])
@pytest.mark.parametrize("batch", [1, 5])
def test_shapes_come_back(shape, batch):
    module = UNetDenoiser(list(shape), width=4)
    z = torch.randn(batch, *shape)
    assert module.denoise(z, torch.rand(batch) + 0.1).shape == (batch, *shape)
    assert module.loss(z).shape == ()


@pytest.mark.parametrize(
    ("attended", "middle", "expected"),
    [((), False, []), ((), True, [2]), ((4,), False, [4] * 3), ((8, 2), True, [2] * 4 + [8] * 3)],
)
def test_attention_only_where_asked(attended, middle, expected):
    net = UNet([1, 8, 8], 4, (1, 2, 2), 1, attended, middle)
    heights = []
    for name, module in net.named_modules():
        if name.rpartition(".")[0].endswith("attentions"):
            module.register_forward_hook(lambda _, inputs, __: heights.append(inputs[0].shape[2]))
    net(torch.randn(2, 1, 8, 8), torch.zeros(2))
    assert sorted(heights) == expected


@pytest.mark.parametrize(
    ("width", "multipliers", "groups"), [(128, (2, 2), 32), (32, (1, 2), 8), (6, (1, 2), 1), (12, (1, 3), 3)]
)
def test_groups_divide_the_channels(width, multipliers, groups):
    with torch.device("meta"):
        net = UNet([1, 8, 8], width, multipliers)
    norms = [module for module in net.modules() if isinstance(module, torch.nn.GroupNorm)]
    assert {norm.num_groups for norm in norms} == {groups}
    assert math.gcd(*(norm.num_channels for norm in norms)) % groups == 0


def test_noise_level_enters_as_stated():
    net = UNet([1, 8, 8], 8)
    seen = []
    net.unet.time_embedding.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    noise = torch.tensor([-1.5, 0.3], dtype=torch.float64)
    net(torch.randn(2, 1, 8, 8), noise.float())
    angle = 100 * noise[:, None] * 10_000.0 ** (-torch.arange(4) / 4)
    expected = torch.cat([angle.cos(), angle.sin()], dim=1)
    assert torch.allclose(seen[0].double(), expected, rtol=0, atol=2e-5)  # angles of 150 in single precision


@pytest.mark.parametrize("adaptive_scale", [True, False])
def test_noise_level_and_label_matter(adaptive_scale):
    module = tiny(num_classes=3, adaptive_scale=adaptive_scale, zero_init=False).eval()
    x = torch.randn(1, 1, 8, 8).expand(4, -1, -1, -1)
    out = module.network(x, torch.tensor([0.1, 0.5, 0.1, 0.1]), torch.tensor([0, 0, 1, 3]))
    for other in (1, 2, 3):
        assert (out[0] - out[other]).abs().max() > 1e-3 * out.abs().max()


@pytest.mark.parametrize("zero_init", [True, False])
def test_start(zero_init):
    module, z, sigma = tiny(zero_init=zero_init), torch.randn(3, 1, 8, 8), torch.tensor([0.1, 1.0, 10.0])
    skip = (0.25 / (0.25 + sigma**2))[:, None, None, None] * z
    assert torch.allclose(module.denoise(z, sigma), skip, rtol=1e-5, atol=1e-6) == zero_init


def test_every_parameter_is_trained():
    module = tiny(num_classes=2)
    trained_by_hand(module, (1, 8, 8), steps=2)
    assert [name for name, p in module.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_examples_do_not_mix():
    module = tiny(zero_init=False, attention_resolutions=(4,)).eval()
    z, sigma = torch.randn(6, 1, 8, 8), torch.rand(6) + 0.1
    with torch.no_grad():
        together = module.denoise(z, sigma)
        alone = torch.cat([module.denoise(z[i : i + 1], sigma[i : i + 1]) for i in range(6)])
    assert torch.allclose(together, alone, rtol=1e-5, atol=1e-5)  # float32, another order of sums


def test_dropout_in_training_only():
    module = tiny(zero_init=False, dropout=0.5)
    z, sigma = torch.randn(2, 1, 8, 8), torch.ones(2)
    assert not torch.allclose(module.denoise(z, sigma), module.denoise(z, sigma))
    module.eval()
    assert torch.equal(module.denoise(z, sigma), module.denoise(z, sigma))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_it_learns(precision, tmp_path):
    falls(tiny(noise=LogNormalNoise()), (1, 8, 8), precision, tmp_path)


@pytest.mark.slow
def test_it_learns_through_the_compiler(tmp_path):
    # All of the compiler but its C++
    with fresh_compiler() as counters, torch.compiler.set_stance("default", force_backend="aot_eager"):
        falls(tiny(compile=True), (1, 8, 8), "32-true", tmp_path)
        assert counters["stats"]["unique_graphs"] >= 1
        assert not counters["graph_break"]


@pytest.mark.slow
def test_compiled_to_machine_code_it_is_the_same_function():
    options = {"width": 4, "multipliers": (1,), "middle_attention": False, "zero_init": False}
    module, plain = tiny(**options, compile=True), tiny(**options)
    module.setup("fit")
    z, sigma = torch.randn(3, 1, 8, 8), torch.tensor([0.1, 1.0, 10.0])
    with fresh_compiler() as counters, torch.no_grad():
        compiled = module.denoise(z, sigma)
        assert counters["inductor"]["fxgraph_cache_miss"] + counters["inductor"]["fxgraph_cache_hit"] > 0
        # float32, another order of sums
        torch.testing.assert_close(compiled, plain.denoise(z, sigma), rtol=1e-4, atol=1e-5)


def test_checkpoint_comes_back(tmp_path):
    module = tiny(num_classes=2)
    fit(module, (1, 8, 8), "32-true", tmp_path, steps=3)
    again = reloaded(tiny(num_classes=2), tmp_path)
    z, sigma, label = torch.randn(3, 1, 8, 8), torch.rand(3) + 0.1, torch.tensor([0, 1, 2])
    assert torch.equal(again.eval().denoise(z, sigma, label), module.eval().denoise(z, sigma, label))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": [8, 8]}, r"`shape` must be \[channels, height, width\], got \[8, 8\]. Grey images have one channel"),
        ({"shape": 64}, r"`shape` must be \[channels, height, width\], got 64"),
        ({"shape": [0, 8, 8]}, "`shape` must be a positive integer, got 0"),
        ({"shape": [1, 8, 10], "multipliers": (1, 2, 2)}, r"divisible by 4 for 3 levels, got \[8, 10\]"),
        ({"attention_resolutions": (16,)}, r"among the heights of the levels, \[8, 4\], got \[16\]"),
        ({"multipliers": ()}, "`multipliers` must be one or more positive integers"),
        ({"multipliers": (1, 0)}, "`multipliers` must be a positive integer, got 0"),
        ({"width": 5}, "`width` must be even, got 5"),
        ({"num_blocks": 0}, "`num_blocks` must be a positive integer, got 0"),
        ({"dropout": 1.0}, "`dropout` must be at least 0 and below 1, got 1.0"),
        ({"num_classes": 0}, "`num_classes` must be a positive integer, got 0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        UNetDenoiser(**{"shape": [1, 8, 8], "width": 4, **arguments})


@pytest.mark.parametrize("num_classes", [None, 2])
def test_label_where_there_are_classes_only(num_classes):
    net = UNet([1, 8, 8], 4, num_classes=num_classes)
    label = None if num_classes else torch.zeros(1, dtype=torch.int64)
    with pytest.raises(ValueError, match="`label` must be given where the network has `num_classes`, and only there"):
        net(torch.randn(1, 1, 8, 8), torch.zeros(1), label)


def test_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ImportError, match=r"diffusers, .* pip install 'spectral-lightning\[networks\]'"):
        UNetDenoiser([1, 8, 8])


def test_what_it_is_compared_with():
    module = tiny(preconditioning=Preconditioning("edm", sigma_data=0.3))
    theory = module.dynamics()
    assert isinstance(module, SupportsDynamics)
    assert type(theory) is OneLayer
    assert (theory.learning_rate, theory.init, theory.preconditioning) == (3e-3, 0.0, module.preconditioning)
    texts = [departure.text for departure in module.departures()]
    for word in ("deep convolutional network", "shared by all levels", "mini-batches", "over positions"):
        assert sum(word in text for text in texts) == 1
