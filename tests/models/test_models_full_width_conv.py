"""The full-width convolutional denoiser: the layout of its kernel, its bias, and its N-fold speed-up."""

import numpy as np
import pytest
import torch

from spectral_lightning.models import CircularConvPerLevel, FullWidthConvDenoiser
from spectral_lightning.theory import GaussianData
from tests.support.solvable_training import (
    EDM,
    F64,
    LEVELS,
    PLAIN,
    along,
    covariance_of,
    descend,
    descent,
    fourier_modes,
    generated,
    lagged_covariance,
    made,
    perturb,
)

SHAPES = [(5,), (2, 4), (2, 3, 2)]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def mean_of(shape):
    return torch.randn(int(np.prod(shape)), generator=torch.Generator().manual_seed(3), dtype=F64)


def naive(x, kernel, bias):
    """``y_o(p) = Sum_{i,a} w_oi(a) x_i(p + a) + b_o(p)`` by loops."""
    y = np.array(bias, float)
    for o, i in np.ndindex(*kernel.shape[:2]):
        for p in np.ndindex(*x.shape[1:]):
            for a in np.ndindex(*x.shape[1:]):
                where = tuple((np.array(p) + a) % x.shape[1:])
                y[(o, *p)] += kernel[(o, i, *a)] * x[(i, *where)]
    return y


@pytest.mark.parametrize(("channels", "size"), [(1, (5,)), (2, (4,)), (2, (3, 2)), (1, (2, 5))])
@pytest.mark.parametrize("bias", [None, "shared", "per_pixel"])
def test_the_network_is_the_convolution_of_the_formula(channels, size, bias):
    network = perturb(CircularConvPerLevel(channels, size, [1.0, 2.0], bias=bias).double(), 1.0)
    x = torch.randn(channels, *size, generator=torch.Generator().manual_seed(1), dtype=F64)
    added = np.zeros((channels, *size))
    if bias is not None:
        added = added + network.bias[1].detach().numpy()
        assert network.bias.shape[2:] == (size if bias == "per_pixel" else tuple(1 for _ in size))
    expected = naive(x.numpy(), network.weight[1].detach().numpy(), added)
    out = network(x[None], torch.tensor([2.0]).log() / 4)[0]
    np.testing.assert_allclose(out.detach().numpy(), expected, rtol=1e-12, atol=1e-12)


@every_shape
@pytest.mark.parametrize("bias", [None, "shared", "per_pixel"])
@pytest.mark.parametrize("preconditioning", [EDM, PLAIN], ids=["edm", "none"])
def test_kernel_and_bias_are_the_theorys_at_every_step(shape, bias, preconditioning):
    """Offsets, their sign and the order of channels: random covariance with a mean, where a mirrored kernel is another."""
    mean, steps = mean_of(shape), [0, 1, 20, 80]
    covariance = lagged_covariance(shape)
    module = made(
        "full_width",
        shape,
        mean=mean,
        covariance=covariance,
        relative=0.2,
        bias=bias,
        init=0.1,
        preconditioning=preconditioning,
    )
    theory = module.bound_dynamics()

    def kernel_and_bias(m):
        p, net = m.preconditioning, m.network
        kernel = np.stack(
            [p.c_out(s) * p.c_in(s) * w for s, w in zip(LEVELS, net.weight.detach().numpy(), strict=True)]
        )
        for c in range(m.channels):
            kernel[(slice(None), c, c, *(0,) * len(m.size))] += [p.c_skip(s) for s in LEVELS]
        added = np.zeros((len(LEVELS), m.channels, *m.size))
        if bias is not None:
            added = added + net.bias.detach().numpy() * np.array([p.c_out(s) for s in LEVELS]).reshape(
                -1, 1, *(1,) * len(m.size)
            )
        return kernel, added

    for step, (kernel, added) in zip(steps, descend(module, steps, kernel_and_bias), strict=True):
        np.testing.assert_allclose(kernel, theory.kernel(step, LEVELS), rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(added, theory.bias(step, LEVELS), rtol=1e-8, atol=1e-10)
    if module.channels > 1:  # sharp: neither the transposed nor the mirrored kernel would do
        assert np.abs(kernel - np.swapaxes(kernel, 1, 2)).max() > 0.03
    assert bias is None or np.abs(added).max() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("bias", [None, "shared", "per_pixel"])
@pytest.mark.parametrize("mean", [0.0, 1.5])
def test_stable_learning_rate_is_the_edge(bias, mean):
    def growth(factor):
        module = made("full_width", mean=mean * mean_of((2, 4)), relative=factor, bias=bias, preconditioning=EDM)
        first, last = descend(perturb(module), [0, 180], lambda m: m.expected_loss().item())
        return last / first

    assert growth(0.98) < 1.0
    assert growth(1.02) > 100


def crossings(steps, variance, level):
    """Time at which each mode's log variance passes its level, linear between the steps."""
    time = []
    for curve, mark in zip(np.log(variance).T, np.log(level), strict=True):
        gap = (curve - mark) * np.sign(mark - curve[0])
        at = np.flatnonzero(gap >= 0)[0]
        time.append(steps[at - 1] + gap[at - 1] / (gap[at - 1] - gap[at]) * (steps[at] - steps[at - 1]))
    return np.array(time)


@pytest.mark.slow
def test_weight_sharing_speeds_learning_up_by_the_number_of_pixels():
    """Same stationary data, rate and start: every mode emerges N times sooner than in the one-layer denoiser."""
    pixels = 6
    spectrum = 1.5 / np.maximum(np.abs(np.fft.fftfreq(pixels) * pixels), 0.7)
    waves = np.exp(2j * np.pi * np.outer(np.arange(pixels), np.arange(pixels)) / pixels) / pixels**0.5
    covariance = torch.tensor((waves * spectrum @ waves.conj().T).real)
    modes, variance = fourier_modes(covariance, 1, (pixels,))
    np.testing.assert_allclose(variance, spectrum, rtol=1e-12)
    options = {"covariance": covariance, "init": 0.05, "preconditioning": PLAIN, "optimizer": descent(3e-4)}
    times = {}
    for family, longest, extra in (("full_width", 450, {"bias": None}), ("linear", 450 * pixels, {"bias": False})):
        module = made(family, (pixels,), **options, **extra)
        steps = np.unique(np.linspace(0, longest, 91).round().astype(int))
        table = np.array(descend(module, steps, lambda m: along(modes, generated(m))))
        level = np.sqrt(table[0] * variance)
        times[family] = crossings(steps, table, level)
    ratio = times["linear"] / times["full_width"]
    np.testing.assert_allclose(ratio, pixels, rtol=0.02)
    assert times["full_width"].max() > 1.5 * times["full_width"].min() > 15


def test_the_theory_is_bound_to_the_data_of_the_module_or_to_others():
    module = made("full_width", (2, 3, 2), mean=mean_of((2, 3, 2)), bias="shared", relative=0.5)
    assert (module.channels, module.size, module.pixels) == (2, (3, 2), 6)
    own = module.bound_dynamics()
    data = GaussianData(covariance_of((2, 3, 2)).numpy(), mean_of((2, 3, 2)).numpy(), size=(3, 2), channels=2)
    np.testing.assert_array_equal(own.kernel(7, LEVELS), module.dynamics().on(data).kernel(7, LEVELS))
    other = module.bound_dynamics(covariance=2 * torch.eye(12))
    np.testing.assert_allclose(other.variance, 2.0, rtol=1e-12)
    assert not other.regression.coupled
    with pytest.raises(ValueError, match="`covariance` must be given before `set_moments` is called"):
        FullWidthConvDenoiser([2, 4]).bound_dynamics()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": [1, 2, 3, 4]}, r"`shape` must be \[N\], \[C, N\] or \[C, H, W\], got \[1, 2, 3, 4\]"),
        ({"shape": [0, 4]}, "`shape` must be a positive integer, got 0"),
        ({"bias": "all"}, "`bias` must be one of None, 'shared', 'per_pixel', got 'all'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        FullWidthConvDenoiser(**{"shape": [2, 4], **arguments})


def test_the_default_rate_falls_with_the_pixels():
    assert FullWidthConvDenoiser([2, 4, 5]).initial_learning_rate() == pytest.approx(0.1 / 20)
