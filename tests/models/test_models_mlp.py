"""The perceptron of the paper: its size, its embedding, and where the noise level enters."""

import math

import pytest
import torch
from torch import nn

from spectral_lightning.models import FourierEmbedding, ResidualMLP


@pytest.mark.parametrize(
    ("dim", "width", "blocks", "embedding", "input_norm"),
    [(5, 8, 1, 4, True), (5, 8, 3, 6, False), (8, 8, 2, 4, True), (128, 256, 5, 256, True)],
)
def test_number_of_parameters(dim, width, blocks, embedding, input_norm):
    total, size_in = 0, dim
    for i in range(blocks):
        total += 2 * size_in if i > 0 or input_norm else 0
        total += (size_in + 1) * width + (embedding + 1) * 2 * width + 2 * width + (width + 1) * width
        total += (size_in + 1) * width if size_in != width else 0
        size_in = width
    total += (width + 1) * dim
    net = ResidualMLP(dim, width, blocks, embedding, input_norm)
    assert sum(p.numel() for p in net.parameters()) == total


def test_any_shape_is_flattened():
    net, x = ResidualMLP([3, 2, 2], 16, 2, 8), torch.randn(5, 3, 2, 2)
    out = net(x, torch.ones(5))
    assert out.shape == x.shape
    assert torch.equal(net(x.flatten(1), torch.ones(5)), out.flatten(1))


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


def test_every_block_depends_on_the_noise_level():
    torch.manual_seed(0)
    net, x, noise = ResidualMLP(4, 16, 3, 8), torch.randn(1, 4).expand(2, 4), torch.tensor([0.1, 0.9])
    out = net(x, noise)
    assert not torch.allclose(out[0], out[1], rtol=1e-3)
    with torch.no_grad():  # with the noise level taken away from all blocks but one it still matters
        for block in net.blocks[1:]:
            nn.init.zeros_(block.modulation.weight)
    out = net(x, noise)
    assert not torch.allclose(out[0], out[1], rtol=1e-3)
    nn.init.zeros_(net.blocks[0].modulation.weight)
    out = net(x, noise)
    assert torch.equal(out[0], out[1])
