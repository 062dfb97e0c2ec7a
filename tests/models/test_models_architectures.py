"""The networks one by one: sizes beside the published ones, and their parts against formulas."""

import math

import pytest
import torch
from torch import nn

from spectral_lightning.models import DiT, FourierEmbedding, ResidualMLP, UNet


@pytest.mark.parametrize(
    ("dim", "width", "blocks", "embedding", "input_norm"),
    [(5, 8, 1, 4, True), (5, 8, 3, 6, False), (8, 8, 2, 4, True), (128, 256, 5, 256, True)],
)
def test_number_of_parameters_of_the_mlp(dim, width, blocks, embedding, input_norm):
    total, size_in = 0, dim
    for i in range(blocks):
        total += 2 * size_in if i > 0 or input_norm else 0
        total += (size_in + 1) * width + (embedding + 1) * 2 * width + 2 * width + (width + 1) * width
        total += (size_in + 1) * width if size_in != width else 0
        size_in = width
    total += (width + 1) * dim
    net = ResidualMLP(dim, width, blocks, embedding, input_norm)
    assert sum(p.numel() for p in net.parameters()) == total


def test_embedding_is_its_formula():
    torch.manual_seed(0)
    embedding = FourierEmbedding(6, scale=3.0).double()
    t = torch.tensor([0.0, -0.7, 1.3], dtype=torch.float64)
    f = embedding.frequencies.tolist()
    expected = [
        [math.sin(2 * math.pi * g * s) for g in f] + [math.cos(2 * math.pi * g * s) for g in f] for s in t.tolist()
    ]
    assert torch.allclose(embedding(t), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)
    assert list(embedding.parameters()) == []
    assert FourierEmbedding(20_000, scale=3.0).frequencies.std().item() == pytest.approx(3.0, rel=0.03)


@pytest.mark.parametrize(("size", "millions"), [("S", 33.0), ("B", 130.5), ("L", 458.1), ("XL", 675.1)])
def test_number_of_parameters_of_the_dit_is_the_papers(size, millions):
    with torch.device("meta"):
        net = DiT([4, 32, 32], size, 2, num_classes=1000)
    doubled = (net.out.in_features + 1) * net.out.out_features  # the paper's learnt variance
    positions = net.positions.numel()  # a frozen parameter there, a buffer here
    total = sum(p.numel() for p in net.parameters()) + doubled + positions
    assert total / 1e6 == pytest.approx(millions, abs=0.06)  # as rounded there


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


def test_block_is_its_formula():
    torch.manual_seed(0)
    net = DiT([1, 8, 8], depth=1, width=32)
    block = net.blocks[0].double()
    tokens = torch.randn(3, 16, 32, dtype=torch.float64)
    assert torch.equal(block(tokens, torch.randn(3, 32).double()), tokens)  # before training it is the identity
    nn.init.normal_(block.modulation.weight, std=0.3)
    nn.init.normal_(block.modulation.bias, std=0.3)
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


EDM_CIFAR10 = 55_733_891  # the published network, counted by hand from its code


def test_size_of_the_unet_beside_edm():
    with torch.device("meta"):
        net, adaptive = (UNet([3, 32, 32], 128, (2, 2, 2), 4, (16,), adaptive_scale=a) for a in (False, True))
    more_attention = 4 * (2 * 256 + 4 * (256**2 + 256))
    # The first block and the last but one meet 256 channels of the first convolution where EDM has 128.
    wide_start = 3 * 9 * 128 + 128 + 2 * (2 * 128 + 9 * 128 * 256) + 128 * 256 - (128 * 256 + 256)
    sines, augmentation, resampled_skips = 128 * 512, 9 * 128, 4 * (256**2 + 256)
    parameters = sum(p.numel() for p in net.parameters())
    blocks = 14 + 2 + 15 + 2  # down and between its levels, middle, up and between its levels
    assert sum(p.numel() for p in adaptive.parameters()) == parameters + blocks * (512 + 1) * 256
    assert parameters == 57_183_491
    assert parameters == EDM_CIFAR10 + more_attention + wide_start + sines - augmentation - resampled_skips


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
