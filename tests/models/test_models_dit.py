"""The transformer: its size beside the published one, its tokens, and its block against the formula."""

import pytest
import torch
from torch import nn

from spectral_lightning.models import DiT


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
