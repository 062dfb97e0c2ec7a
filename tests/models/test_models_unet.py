"""The U-Net: its size beside the published one, where it attends, and how the noise level enters."""

import functools
import math

import pytest
import torch

from spectral_lightning.models import UNet

EDM_CIFAR10 = 55_733_891  # the published network, counted by hand from its code


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
