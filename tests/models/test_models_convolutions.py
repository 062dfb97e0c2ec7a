"""The convolutional denoisers: layout of kernel and bias, padding, and the data they are solved on."""

import numpy as np
import pytest
import torch

from spectral_lightning.models import CircularConvPerLevel, FullWidthConvDenoiser, LocalConvDenoiser, LocalConvPerLevel
from spectral_lightning.theory import GaussianData
from tests.support import solvable_training as st

SHAPES = [(7,), (2, 4), (2, 4, 3)]
ZEROS = {"padding": "zeros"}
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
every_family = pytest.mark.parametrize("family", ["full_width", "local"])


def mean_of(shape, family):
    """For local kernels the same at all pixels of a channel, as the theory of one bias per pixel requires."""
    if family == "full_width":
        return torch.randn(int(np.prod(shape)), generator=torch.Generator().manual_seed(3), dtype=st.F64)
    channels = 1 if len(shape) == 1 else shape[0]
    return torch.tensor([0.9, -0.6], dtype=st.F64)[:channels].repeat_interleave(int(np.prod(shape)) // channels)


def naive(x, kernel, bias, first, padding):
    """``y_o(p) = Sum_{i,a} w_oi(a) x_i(p + a) + b_o(p)`` by loops over offsets from ``first`` upwards."""
    y, size = np.array(bias, float), np.array(x.shape[1:])
    for o, i in np.ndindex(*kernel.shape[:2]):
        for p in np.ndindex(*x.shape[1:]):
            for tap in np.ndindex(*kernel.shape[2:]):
                where = np.array(p) + tap + first
                if padding == "circular" or ((where >= 0) & (where < size)).all():
                    y[(o, *p)] += kernel[(o, i, *tap)] * x[(i, *tuple(where % size))]
    return y


@pytest.mark.parametrize("bias", [None, "shared", "per_pixel"])
@pytest.mark.parametrize(
    ("channels", "size", "options"),
    [
        *((channels, size, None) for channels, size in ((1, (5,)), (2, (4,)), (2, (3, 2)), (1, (2, 5)))),
        (1, (6,), {}),
        (2, (5,), {"kernel_size": 5}),
        (2, (4, 3), ZEROS),
        (1, (5, 6), {"kernel_size": 5, **ZEROS}),
    ],
)
def test_the_network_is_the_convolution_of_the_formula(channels, size, options, bias):
    kind = CircularConvPerLevel if options is None else LocalConvPerLevel
    network = st.perturb(kind(channels, size, [1.0, 2.0], bias=bias, **options or {}).double(), 1.0)
    x = torch.randn(channels, *size, generator=torch.Generator().manual_seed(1), dtype=st.F64)
    kernel, added = network.weight[1].detach().numpy(), np.zeros((channels, *size))
    if bias is not None:
        added = added + network.bias[1].detach().numpy()
        assert network.bias.shape[2:] == (size if bias == "per_pixel" else tuple(1 for _ in size))
    first = 0 if options is None else -(kernel.shape[-1] // 2)
    expected = naive(x.numpy(), kernel, added, first, (options or {}).get("padding", "circular"))
    out = network(x[None], torch.tensor([2.0]).log() / 4)[0]
    np.testing.assert_allclose(out.detach().numpy(), expected, rtol=1e-12, atol=1e-12)


def kernel_and_bias(module):
    """Of the denoiser: those of the network scaled, with ``c_skip`` at offset zero."""
    p, net, dims = module.preconditioning, module.network, len(module.size)
    weights = net.weight.detach().numpy()
    kernel = np.stack([p.c_out(s) * p.c_in(s) * w for s, w in zip(st.LEVELS, weights, strict=True)])
    zero = 0 if isinstance(module, FullWidthConvDenoiser) else module.kernel_size // 2
    for c in range(module.channels):
        kernel[(slice(None), c, c, *(zero,) * dims)] += [p.c_skip(s) for s in st.LEVELS]
    out = np.array([p.c_out(s) for s in st.LEVELS]).reshape(-1, 1, *(1,) * dims)
    added = np.zeros((len(st.LEVELS), module.channels, *module.size))
    return kernel, added if net.bias is None else added + net.bias.detach().numpy() * out


@every_family
@every_shape
@pytest.mark.parametrize(
    ("bias", "preconditioning"), [(None, st.EDM), ("shared", st.EDM), ("per_pixel", st.EDM), ("shared", st.PLAIN)]
)
def test_kernel_and_bias_are_the_theorys_at_every_step(family, shape, bias, preconditioning):
    """Offsets, their sign and the order of channels: random covariance with a mean, where a mirrored kernel is another."""
    options = {"mean": mean_of(shape, family), "covariance": st.lagged_covariance(shape), "relative": 0.2, "init": 0.1}
    module = st.made(family, shape, bias=bias, preconditioning=preconditioning, **options)
    theory, steps = module.curves(), [0, 1, 20, 80]
    for step, (kernel, added) in zip(steps, st.descend(module, steps, kernel_and_bias), strict=True):
        np.testing.assert_allclose(kernel, theory.kernel(step, st.LEVELS), rtol=1e-8, atol=1e-10)
        expected = theory.bias(step, st.LEVELS)
        expected = np.broadcast_to(expected.reshape(*expected.shape, *(1,) * (added.ndim - expected.ndim)), added.shape)
        np.testing.assert_allclose(added, expected, rtol=1e-8, atol=1e-10)
    if module.channels > 1:  # sharp: neither the transposed nor the mirrored kernel would do
        assert np.abs(kernel - np.swapaxes(kernel, 1, 2)).max() > 0.02
        axes = tuple(range(3, kernel.ndim))
        mirrored = np.roll(np.flip(kernel, axes), family == "full_width", axes)
        assert np.abs(kernel - mirrored).max() > 0.02
    assert bias is None or np.abs(added).max() > 0.01


@every_shape
@pytest.mark.parametrize("bias", [None, "shared", "per_pixel"])
def test_stable_learning_rate_of_a_local_kernel_is_the_theorys_on_a_circle(shape, bias):
    module = st.made("local", shape, mean=mean_of(shape, "local"), bias=bias, preconditioning=st.EDM)
    assert module.stable_learning_rate() == pytest.approx(module.curves().stable_learning_rate(st.LEVELS), rel=1e-10)


PIXELS = 12
SPECTRUM = 0.1 + 2.0 * np.exp(-((np.abs(np.fft.fftfreq(PIXELS) * PIXELS) - 2) ** 2))  # a peak that few taps cannot hold
FIELD = np.fft.ifft(SPECTRUM).real[(np.arange(PIXELS)[:, None] - np.arange(PIXELS)) % PIXELS]


def test_zero_padding_is_declared_and_learns_another_kernel():
    assert LocalConvDenoiser([4]).departures() == []
    declared = LocalConvDenoiser([4], padding="zeros").departures()
    assert [("padded with zeros" in d.text, d.affects_clock) for d in declared] == [(True, False)]
    assert len(LocalConvDenoiser([4], padding="zeros", objective="samples").departures()) == 2
    options, ends = {"covariance": torch.tensor(FIELD), "relative": 0.5, "preconditioning": st.EDM}, []
    for padding in ("circular", "zeros"):
        module = st.made("local", (PIXELS,), padding=padding, **options)
        ends += st.descend(module, [100], lambda m: m.network.weight.detach().numpy())
    assert 0.005 < np.abs(ends[0] - ends[1]).max() < 0.3


def test_the_theory_is_solved_on_the_data_of_the_module():
    shape = (2, 3, 2)
    mean = mean_of(shape, "full_width")
    module = st.made("full_width", shape, mean=mean, bias="shared", relative=0.5)
    assert (module.channels, module.size) == (2, (3, 2))
    data = GaussianData(st.covariance_of(shape).numpy(), mean.numpy(), size=(3, 2), channels=2)
    np.testing.assert_array_equal(module.curves().kernel(7, st.LEVELS), module.dynamics().on(data).kernel(7, st.LEVELS))
    module.set_moments(torch.zeros(12), 2 * torch.eye(12))
    np.testing.assert_allclose(module.curves().variance, 2.0, rtol=1e-12)


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        *((kind, {"shape": [1, 2, 3, 4]}) for kind in (FullWidthConvDenoiser, LocalConvDenoiser)),
        *((kind, {"bias": bias}) for kind in (FullWidthConvDenoiser, LocalConvDenoiser) for bias in (True, "all")),
        *((LocalConvDenoiser, {"kernel_size": k}) for k in (2, 5, 0)),
        (LocalConvDenoiser, {"padding": "same"}),
    ],
)
def test_bad_arguments(kind, arguments):
    with pytest.raises(ValueError, match=f"`{next(iter(arguments))}` must be"):
        kind(**{"shape": [2, 4], **arguments})


@pytest.mark.parametrize(("kind", "rate"), [(FullWidthConvDenoiser, 0.1), (LocalConvDenoiser, 0.02)])
def test_the_default_rate_falls_with_the_pixels(kind, rate):
    assert kind([2, 4, 5]).initial_learning_rate() == pytest.approx(rate / 20)
