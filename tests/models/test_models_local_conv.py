"""The local convolutional denoiser: the layout of its kernel, its padding, and the spectrum it ends at."""

import numpy as np
import pytest
import torch

from spectral_lightning.models import LocalConvDenoiser, LocalConvPerLevel
from tests.support.solvable_training import (
    EDM,
    F64,
    LEVELS,
    PLAIN,
    SAMPLER,
    along,
    descend,
    fourier_modes,
    generated,
    lagged_covariance,
    made,
    perturb,
)

SHAPES = [(7,), (2, 4), (2, 4, 3)]


def mean_of(shape):
    """The same at all pixels of a channel, as the theory of one bias per pixel asks for."""
    channels = 1 if len(shape) == 1 else shape[0]
    return torch.tensor([0.9, -0.6], dtype=F64)[:channels].repeat_interleave(int(np.prod(shape)) // channels)


def naive(x, kernel, padding):
    """``y_o(p) = Sum_{i,a} w_oi(a) x_i(p + a)`` by loops over offsets from -(K - 1)/2 upwards."""
    y, size, half = np.zeros((len(kernel), *x.shape[1:])), np.array(x.shape[1:]), kernel.shape[-1] // 2
    for o, i in np.ndindex(*kernel.shape[:2]):
        for p in np.ndindex(*x.shape[1:]):
            for tap in np.ndindex(*kernel.shape[2:]):
                where = np.array(p) + tap - half
                if padding == "circular" or ((where >= 0) & (where < size)).all():
                    y[(o, *p)] += kernel[(o, i, *tap)] * x[(i, *tuple(where % size))]
    return y


@pytest.mark.parametrize(("channels", "size", "width"), [(1, (6,), 3), (2, (5,), 5), (2, (4, 3), 3), (1, (5, 6), 5)])
@pytest.mark.parametrize("padding", ["circular", "zeros"])
def test_the_network_is_the_convolution_of_the_formula(channels, size, width, padding):
    network = perturb(LocalConvPerLevel(channels, size, [1.0, 2.0], width, padding).double(), 1.0)
    x = torch.randn(channels, *size, generator=torch.Generator().manual_seed(1), dtype=F64)
    expected = naive(x.numpy(), network.weight[1].detach().numpy(), padding)
    out = network(x[None], torch.tensor([2.0]).log() / 4)[0]
    np.testing.assert_allclose(out.detach().numpy(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("bias", [None, "shared", "per_pixel"])
@pytest.mark.parametrize("preconditioning", [EDM, PLAIN], ids=["edm", "none"])
def test_kernel_and_bias_are_the_theorys_at_every_step(shape, bias, preconditioning):
    """Offsets, their sign and the order of channels: random covariance with a mean, where a mirrored kernel is another."""
    steps = [0, 1, 20, 80]
    options = {
        "mean": mean_of(shape),
        "covariance": lagged_covariance(shape),
        "relative": 0.2,
        "init": 0.1,
        "preconditioning": preconditioning,
    }
    module = made("local", shape, bias=bias, **options)
    theory = module.bound_dynamics()

    def kernel_and_bias(m):
        p, net, dims = m.preconditioning, m.network, len(m.size)
        kernel = np.stack(
            [p.c_out(s) * p.c_in(s) * w for s, w in zip(LEVELS, net.weight.detach().numpy(), strict=True)]
        )
        for c in range(m.channels):
            kernel[(slice(None), c, c, *(1,) * dims)] += [p.c_skip(s) for s in LEVELS]
        added = np.zeros((len(LEVELS), m.channels, 1))
        if bias is not None:
            out = np.array([p.c_out(s) for s in LEVELS]).reshape(-1, 1, 1)
            added = net.bias.detach().numpy().reshape(len(LEVELS), m.channels, -1) * out
        return kernel, added

    for step, (kernel, added) in zip(steps, descend(module, steps, kernel_and_bias), strict=True):
        np.testing.assert_allclose(kernel, theory.kernel(step, LEVELS), rtol=1e-8, atol=1e-10)
        expected = np.broadcast_to(theory.bias(step, LEVELS)[..., None], added.shape)
        np.testing.assert_allclose(added, expected, rtol=1e-8, atol=1e-10)
    if module.channels > 1:  # sharp: neither the transposed nor the mirrored kernel would do
        assert np.abs(kernel - np.swapaxes(kernel, 1, 2)).max() > 0.02
        assert np.abs(kernel - np.flip(kernel, tuple(range(3, kernel.ndim)))).max() > 0.02
    assert bias is None or np.abs(added).max() > 0.01


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("bias", [None, "shared", "per_pixel"])
def test_stable_learning_rate_is_the_theorys_on_a_circle(shape, bias):
    module = made("local", shape, mean=mean_of(shape), bias=bias, preconditioning=EDM)
    theory = module.bound_dynamics()
    assert module.stable_learning_rate() == pytest.approx(theory.stable_learning_rate(LEVELS), rel=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("padding", ["circular", "zeros"])
@pytest.mark.parametrize("bias", [None, "shared", "per_pixel"])
@pytest.mark.parametrize("mean", ["none", "any"])
def test_stable_learning_rate_is_the_edge(padding, bias, mean):
    moment = torch.zeros(8, dtype=F64) if mean == "none" else torch.linspace(-2, 2, 8, dtype=F64)

    def growth(factor):
        options = {"padding": padding, "bias": bias, "preconditioning": EDM}
        module = made("local", mean=moment, relative=factor, **options)
        first, last = descend(perturb(module), [0, 180], lambda m: m.expected_loss().item())
        return last / first

    assert growth(0.98) < 1.0
    assert growth(1.02) > 100


PIXELS, WIDTH = 12, 3
SPECTRUM = 0.1 + 2.0 * np.exp(-((np.abs(np.fft.fftfreq(PIXELS) * PIXELS) - 2) ** 2))  # a peak that few taps cannot hold
FIELD = np.fft.ifft(SPECTRUM).real[(np.arange(PIXELS)[:, None] - np.arange(PIXELS)) % PIXELS]


def limit_spectrum():
    """``w* = (sigma^2 I + S)^-1 S e0``, its transfer function, and Heun mode by mode, written out."""
    offsets = np.arange(WIDTH) - WIDTH // 2
    patch = np.array([[FIELD[0, abs(a - b)] for b in offsets] for a in offsets])
    gain = {}
    for s in LEVELS:
        kernel = np.linalg.solve(s**2 * np.eye(WIDTH) + patch, patch[:, WIDTH // 2])
        gain[s] = sum(
            w * np.cos(2 * np.pi * np.arange(PIXELS) * a / PIXELS) for w, a in zip(kernel, offsets, strict=True)
        )
    z = np.full(PIXELS, SAMPLER.start)
    for s, following in zip(SAMPLER.sigmas[:-1], SAMPLER.sigmas[1:], strict=True):
        slope = (1 - gain[s]) * z / s
        ahead = z + (following - s) * slope
        if following > 0:
            ahead = z + (following - s) * (slope + (1 - gain[following]) * ahead / following) / 2
        z = ahead
    return z**2


@pytest.mark.slow
def test_the_spectrum_it_ends_at_is_the_theorys_and_not_the_datas():
    covariance = torch.tensor(FIELD)
    modes, variance = fourier_modes(covariance, 1, (PIXELS,))
    np.testing.assert_allclose(variance, SPECTRUM, rtol=1e-12)
    ends = {}
    for family in ("local", "full_width"):
        module = made(family, (PIXELS,), covariance=covariance, relative=0.95, preconditioning=EDM)
        (ends[family],) = descend(module, [1500], lambda m: along(modes, generated(m)))
        theory = module.bound_dynamics().generated_variance(np.inf, sampler=SAMPLER)
        np.testing.assert_allclose(ends[family], theory, rtol=1e-4)
    np.testing.assert_allclose(ends["local"], limit_spectrum(), rtol=1e-4)
    # The wide kernel, through the same sampler, holds the spectrum; the small one misses most of it.
    assert (np.abs(ends["local"] / ends["full_width"] - 1) > 0.1).sum() >= PIXELS / 2
    assert np.abs(ends["full_width"] / SPECTRUM - 1).max() < 0.5 * np.abs(ends["local"] / SPECTRUM - 1).max()


def test_zero_padding_is_declared():
    assert LocalConvDenoiser([4]).departures() == []
    declared = LocalConvDenoiser([4], padding="zeros").departures()
    assert [("padded with zeros" in d.text, d.affects_clock) for d in declared] == [(True, False)]
    assert len(LocalConvDenoiser([4], padding="zeros", objective="samples").departures()) == 2


def test_zero_padding_learns_another_kernel():
    ends = []
    for padding in ("circular", "zeros"):
        module = made(
            "local", (PIXELS,), covariance=torch.tensor(FIELD), relative=0.5, padding=padding, preconditioning=EDM
        )
        (kernel,) = descend(module, [100], lambda m: m.network.weight.detach().numpy())
        ends.append(kernel)
    assert 0.005 < np.abs(ends[0] - ends[1]).max() < 0.3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel_size": 2}, "`kernel_size` must be odd and at most 4, the image's size, got 2. An even kernel"),
        ({"kernel_size": 5}, "`kernel_size` must be odd and at most 4, the image's size, got 5"),
        ({"kernel_size": 0}, "`kernel_size` must be a positive integer, got 0"),
        ({"padding": "same"}, "`padding` must be one of 'circular', 'zeros', got 'same'"),
        ({"bias": True}, "`bias` must be one of None, 'shared', 'per_pixel', got True"),
        ({"shape": [1, 2, 3, 4]}, r"`shape` must be \[N\], \[C, N\] or \[C, H, W\], got \[1, 2, 3, 4\]"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        LocalConvDenoiser(**{"shape": [2, 4], **arguments})


def test_the_default_rate_falls_with_the_pixels():
    module = LocalConvDenoiser([2, 4, 5])
    assert module.initial_learning_rate() == pytest.approx(0.02 / 20)
    assert (module.channels, module.size, module.pixels) == (2, (4, 5), 20)
