"""The transformer: its size, its tokens, what it hears, what it refuses, and that it learns under every precision."""

import functools
import sys

import pytest
import torch
from torch import nn

from spectral_lightning.diffusion import SupportsDynamics
from spectral_lightning.models import DiT, DiTDenoiser
from spectral_lightning.theory import OneLayer, Preconditioning
from tests.support.nonlinear_training import falls, fit, fresh_compiler, reloaded, trained_by_hand


def tiny(**options):
    optimizer = functools.partial(torch.optim.Adam, lr=3e-3)
    torch.manual_seed(0)
    return DiTDenoiser([1, 8, 8], **{"size": "nano", "depth": 2, "width": 32, "optimizer": optimizer, **options})


def awake(module):
    """The module with its zero layers drawn at random, so that there is an output to look at."""
    torch.manual_seed(1)
    for name, p in module.network.named_parameters():
        if "modulation" in name or name.startswith("out"):
            nn.init.normal_(p, std=0.3)
    return module.eval()


@pytest.mark.parametrize(("size", "millions"), [("S", 33.0), ("B", 130.5), ("L", 458.1), ("XL", 675.1)])
def test_number_of_parameters_is_the_papers(size, millions):
    with torch.device("meta"):
        net = DiT([4, 32, 32], size, 2, num_classes=1000)
    doubled = (net.out.in_features + 1) * net.out.out_features  # the paper's learnt variance
    positions = net.positions.numel()  # a frozen parameter there, a buffer here
    total = sum(p.numel() for p in net.parameters()) + doubled + positions
    assert total / 1e6 == pytest.approx(millions, abs=0.06)  # as rounded there


@pytest.mark.parametrize(
    ("size", "depth", "width", "channels", "patch", "classes"),
    [("nano", 3, 64, 1, 2, None), ("tiny", 4, 128, 3, 4, 10), ("S", 12, 384, 1, 2, None)],
)
def test_number_of_parameters(size, depth, width, channels, patch, classes):
    with torch.device("meta"):
        net = DiT([channels, 16, 16], size, patch, num_classes=classes)
    pixels = channels * patch**2
    block = 4 * (width**2 + width) + (8 * width**2 + 5 * width) + 6 * (width**2 + width)
    total = depth * block + (pixels + 1) * width + (256 + 1) * width + (width + 1) * width
    total += 2 * (width**2 + width) + (width + 1) * pixels + (width * (classes + 1) if classes else 0)
    assert sum(p.numel() for p in net.parameters()) == total


@pytest.mark.parametrize(("shape", "patch"), [((1, 8, 8), 2), ((3, 4, 8), 4), ((2, 6, 3), 3), ((1, 2, 2), 1)])
@pytest.mark.parametrize("batch", [1, 5])
def test_shapes_come_back(shape, patch, batch):
    module = DiTDenoiser(list(shape), "nano", patch, depth=1, width=8, heads=2)
    z = torch.randn(batch, *shape)
    assert module.denoise(z, torch.rand(batch) + 0.1).shape == (batch, *shape)
    assert module.loss(z).shape == ()


def test_every_token_goes_back_to_its_patch():
    net = DiT([2, 4, 6], "nano", 2, width=8, heads=1)
    image = torch.randn(3, 2, 4, 6)
    rows = []
    for i in range(2):
        for j in range(3):
            patch = image[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
            rows.append(patch.permute(0, 2, 3, 1).flatten(1))
    assert torch.equal(net._image(torch.stack(rows, dim=1)), image)
    # The patch embedding counts patches in the same order.
    marked = torch.zeros(1, 2, 4, 6)
    marked[0, :, 2, 1] = 1.0
    embedded = net.patches(marked) - net.patches(torch.zeros(1, 2, 4, 6))
    assert embedded.abs().sum(2)[0].nonzero().flatten().tolist() == [3]


def test_positions_are_sines_and_cosines_of_row_and_column():
    net = DiT([1, 6, 4], "nano", 2, width=16, heads=1)
    frequency = 10_000.0 ** (-torch.arange(4, dtype=torch.float64) / 4)
    where = torch.tensor([[i, j] for i in range(3) for j in range(2)], dtype=torch.float64)
    angle = torch.cat([where[:, :1] * frequency, where[:, 1:] * frequency], dim=1)
    expected = torch.cat([angle.sin(), angle.cos()], dim=1)
    assert torch.allclose(net.positions.double(), expected, rtol=0, atol=1e-6)  # single precision
    assert "positions" not in net.state_dict()


def test_starts_at_its_skip():
    module, z, sigma = tiny(), torch.randn(3, 1, 8, 8), torch.tensor([0.1, 1.0, 10.0])
    skip = (0.25 / (0.25 + sigma**2))[:, None, None, None] * z
    assert torch.allclose(module.denoise(z, sigma), skip, rtol=1e-6, atol=0)
    tokens = torch.randn(3, 16, 32)
    for block in module.network.blocks:
        assert torch.equal(block(tokens, torch.randn(3, 32)), tokens)


def test_block_is_its_formula():
    block = awake(tiny()).network.blocks[0].double()
    x, condition = torch.randn(2, 5, 32, dtype=torch.float64), torch.randn(2, 32, dtype=torch.float64)
    out = block(x, condition)
    m = (condition @ block.modulation.weight.T + block.modulation.bias).reshape(2, 6, 1, 32)

    def normal(t):
        return (t - t.mean(2, keepdim=True)) / (t.var(2, keepdim=True, unbiased=False) + 1e-6).sqrt()

    y = normal(x) * (1 + m[:, 1]) + m[:, 0]
    q, k, v = (y @ block.attention.qkv.weight.T + block.attention.qkv.bias).reshape(2, 5, 3, 4, 8).unbind(2)
    heads = torch.einsum("bhij,bjhe->bihe", (torch.einsum("bihe,bjhe->bhij", q, k) / 8**0.5).softmax(3), v)
    x = x + m[:, 2] * (heads.reshape(2, 5, 32) @ block.attention.proj.weight.T + block.attention.proj.bias)
    hidden = (normal(x) * (1 + m[:, 4]) + m[:, 3]) @ block.mlp.fc1.weight.T + block.mlp.fc1.bias
    hidden = 0.5 * hidden * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (hidden + 0.044715 * hidden**3)))
    x = x + m[:, 5] * (hidden @ block.mlp.fc2.weight.T + block.mlp.fc2.bias)
    assert torch.allclose(out, x, rtol=1e-10, atol=1e-10)  # float64


def test_noise_level_and_label_matter():
    module = awake(tiny(num_classes=3))
    nn.init.normal_(module.network.classes.weight)
    x = torch.randn(1, 1, 8, 8).expand(4, -1, -1, -1)
    out = module.network(x, torch.tensor([0.1, 0.5, 0.1, 0.1]), torch.tensor([0, 0, 1, 3]))
    for other in (1, 2, 3):
        assert (out[0] - out[other]).abs().max() > 1e-3 * out.abs().max()


def test_every_parameter_is_trained():
    module = tiny(num_classes=2)
    trained_by_hand(module, (1, 8, 8), steps=3)  # the output opens first, then the gates, then what is behind them
    assert [name for name, p in module.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_examples_do_not_mix():
    module = awake(tiny())
    z, sigma = torch.randn(6, 1, 8, 8), torch.rand(6) + 0.1
    with torch.no_grad():
        together = module.denoise(z, sigma)
        alone = torch.cat([module.denoise(z[i : i + 1], sigma[i : i + 1]) for i in range(6)])
    assert torch.allclose(together, alone, rtol=1e-5, atol=1e-5)  # float32, another order of sums


def test_training_mode_changes_nothing():
    module, z = awake(tiny()), torch.randn(2, 1, 8, 8)
    assert torch.equal(module.train().denoise(z, torch.ones(2)), module.eval().denoise(z, torch.ones(2)))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_it_learns(precision, tmp_path):
    falls(tiny(), (1, 8, 8), precision, tmp_path)


@pytest.mark.slow
def test_it_learns_through_the_compiler(tmp_path):
    # All of the compiler but its C++
    with fresh_compiler() as counters, torch.compiler.set_stance("default", force_backend="aot_eager"):
        falls(tiny(compile=True), (1, 8, 8), "32-true", tmp_path)
        assert counters["stats"]["unique_graphs"] >= 1
        assert not counters["graph_break"]


@pytest.mark.slow
def test_compiled_to_machine_code_it_is_the_same_function():
    options = {"depth": 1, "width": 8}
    module, plain = awake(tiny(**options, compile=True)), awake(tiny(**options))
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
    torch.manual_seed(5)  # the frequencies of the noise embedding are drawn, and have to come from the file
    again = reloaded(DiTDenoiser([1, 8, 8], "nano", depth=2, width=32, num_classes=2), tmp_path)
    z, sigma, label = torch.randn(3, 1, 8, 8), torch.rand(3) + 0.1, torch.tensor([0, 1, 2])
    assert torch.equal(again.denoise(z, sigma, label), module.denoise(z, sigma, label))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": [8, 8]}, r"`shape` must be \[channels, height, width\], got \[8, 8\]"),
        ({"shape": 64}, r"`shape` must be \[channels, height, width\], got 64"),
        ({"shape": [1, 8, 9]}, r"divisible by the patch size 2, got \[8, 9\]. Give another `patch_size`"),
        ({"patch_size": 0}, "`patch_size` must be a positive integer, got 0"),
        ({"size": "M"}, "`size` must be one of 'nano', 'tiny', 'S', 'B', 'L', 'XL', got 'M'"),
        ({"width": 30, "heads": 3}, "`width` must be divisible by 4 and by the 3 heads, got 30"),
        ({"width": 32, "heads": 3}, "`width` must be divisible by 4 and by the 3 heads, got 32"),
        ({"depth": 0}, "`depth` must be a positive integer, got 0"),
        ({"heads": 0}, "`heads` must be a positive integer, got 0"),
        ({"num_classes": 0}, "`num_classes` must be a positive integer, got 0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        DiTDenoiser(**{"shape": [1, 8, 8], "size": "nano", **arguments})


@pytest.mark.parametrize("num_classes", [None, 2])
def test_label_where_there_are_classes_only(num_classes):
    net = DiT([1, 8, 8], "nano", num_classes=num_classes)
    label = None if num_classes else torch.zeros(1, dtype=torch.int64)
    with pytest.raises(ValueError, match="`label` must be given where the network has `num_classes`, and only there"):
        net(torch.randn(1, 1, 8, 8), torch.zeros(1), label)


def test_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm.layers", None)
    with pytest.raises(ImportError, match=r"timm, .* pip install 'spectral-lightning\[networks\]'"):
        DiTDenoiser([1, 8, 8])


def test_what_it_is_compared_with():
    module = tiny(preconditioning=Preconditioning("edm", sigma_data=0.3))
    theory = module.dynamics()
    assert isinstance(module, SupportsDynamics)
    assert type(theory) is OneLayer
    assert (theory.learning_rate, theory.init, theory.preconditioning) == (3e-3, 0.0, module.preconditioning)
    texts = [departure.text for departure in module.departures()]
    for word in ("deep transformer", "shared by all levels", "mini-batches", "over patches"):
        assert sum(word in text for text in texts) == 1
