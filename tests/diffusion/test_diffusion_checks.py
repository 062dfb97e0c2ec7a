"""Wrong signs, times and inputs are named; no correct model is refused, however little it is trained."""

import warnings
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from spectral_lightning.diffusion import Adapter, BoundDenoiser, self_check
from spectral_lightning.diffusion.adapters.checks import unexplained
from tests.support import ideal_networks as ideal
from tests.support.ideal_networks import DIM, F64, Backbone, Ideal, abar, draw, wiener

ABAR = abar()
CLEAN = draw(64)


def user(net):
    module = nn.Module()
    module.net, module.noise_scheduler = net, SimpleNamespace(alphas_cumprod=ABAR)
    return module


def by_index(target, sign=1.0):
    return user(Ideal(ideal.of_index(ABAR), target, sign))


def by_time(of_time, target, sign=1.0):
    return user(Ideal(of_time, target, sign))


def reversed_index(i):
    return ideal.of_index(ABAR)(len(ABAR) - 1 - i)


DIFFUSERS = {
    target: Adapter(f"diffusers-{name}", "net", output="")
    for target, name in {"epsilon": "epsilon", "v": "v", "x0": "sample"}.items()
}
FLOW = Adapter("flow-matching-xt")
LOG_SNR = Adapter("log-snr", "net")

RIGHT = [
    *((DIFFUSERS[name], by_index(name)) for name in DIFFUSERS),
    (FLOW, by_time(ideal.of_data_share, "x0-eps")),
    (LOG_SNR, by_time(ideal.of_log_snr, "epsilon")),
    (Adapter("edm"), by_time(ideal.of_sigma, "x0")),
    (Adapter("edm-backbone"), user(Backbone())),
]


@pytest.mark.parametrize(("adapter", "module"), RIGHT)
def test_trained_networks_pass(adapter, module):
    self_check(BoundDenoiser(adapter, module), CLEAN)


WRONG = [
    (DIFFUSERS["epsilon"], by_index("epsilon", -1), r"wrong sign \(output_scale=-1\)"),
    (DIFFUSERS["v"], by_index("v", -1), r"wrong sign \(output_scale=-1\)"),
    (DIFFUSERS["x0"], by_index("x0", -1), r"wrong sign \(output_scale=-1\)"),
    (FLOW, by_time(ideal.of_data_share, "eps-x0"), r"wrong sign \(output_scale=-1\)"),
    (FLOW, by_time(ideal.of_noise_share, "x0-eps"), r"the time is reversed \(reverse_time=True\)"),
    (FLOW, by_time(ideal.of_noise_share, "eps-x0"), r"time is reversed and .* wrong sign"),
    (LOG_SNR, by_time(lambda t: ideal.of_log_snr(-t), "epsilon"), "the time is reversed"),
    (DIFFUSERS["epsilon"], by_time(reversed_index, "epsilon"), "the time is reversed"),
    (DIFFUSERS["epsilon"], by_index("v"), "prediction='v' instead of 'epsilon'"),
    (DIFFUSERS["v"], by_index("epsilon"), "prediction='epsilon' instead of 'v'"),
    (DIFFUSERS["x0"], by_index("epsilon"), "prediction='epsilon' instead of 'x0'"),
    (DIFFUSERS["epsilon"], by_index("x0"), "prediction='x0' instead of 'epsilon'"),
    (
        replace(LOG_SNR, time="sigma"),
        by_time(ideal.of_log_snr, "epsilon"),
        "time='log-snr' times 1 instead of 'sigma'",
    ),
    (FLOW, by_time(lambda t: ideal.of_data_share(t / 1000), "x0-eps"), "time='data-share' times 1000"),
    (replace(LOG_SNR, path="variance-exploding"), by_time(ideal.of_log_snr, "epsilon"), "path='variance-preserving'"),
]


@pytest.mark.parametrize(("adapter", "module", "message"), WRONG)
def test_wrong_readings_are_named(adapter, module, message):
    with pytest.raises(ValueError, match=f"another reading of the same network does: .*{message}"):
        self_check(BoundDenoiser(adapter, module), CLEAN)


def test_an_index_in_place_of_sigma_is_named():
    linear = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=F64), 0)

    def of_time(t):
        return ideal.of_index(linear)(t.round().long().clamp(0, 999))

    adapter = Adapter("log-snr", "net", time="sigma")
    with pytest.raises(ValueError, match=r"an index instead of 'sigma' \(time='index', schedule='linear'\)"):
        self_check(BoundDenoiser(adapter, by_time(of_time, "epsilon")), CLEAN)


class Concat(nn.Module):
    """Takes the time first."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(DIM + 1, DIM)

    def forward(self, t, x):
        return self.layer(torch.cat([x, t[:, None]], 1))


class Embedded(nn.Module):
    """Takes an index."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(10, DIM)

    def forward(self, x, t):
        return x + self.table(t)


@pytest.mark.parametrize(
    ("adapter", "network", "remedy"),
    [(FLOW, Concat, "order='time-x'"), (Adapter("edm"), Embedded, "time='index'")],
)
def test_a_call_that_fails_names_the_remedy(adapter, network, remedy):
    with pytest.raises(ValueError, match=remedy):
        self_check(BoundDenoiser(adapter, user(network())), CLEAN.float())


# Callables, of which nothing is known.


def at(sigma):
    return sigma[:, None].to(F64)


def noise_of(z, sigma):
    return (z - wiener(z, sigma)) / at(sigma)


CALLABLES = [
    (noise_of, r"it returns the noise \(z - sigma output\)"),
    (lambda z, s: -noise_of(z, s), "the noise with the wrong sign"),
    (lambda z, s: 2 * z - wiener(z, s), r"the target has the wrong sign \(2 z - D\)"),
    (lambda z, s: (noise_of(z, s) - at(s) * wiener(z, s)) / (1 + at(s) ** 2) ** 0.5, "it returns v"),
    (lambda z, s: noise_of(z, s) - wiener(z, s), "the velocity eps - x0"),
    (lambda z, s: wiener(z, s) - noise_of(z, s), "the velocity x0 - eps"),
    (lambda z, s: wiener(z, 1 / s), r"the time is reversed \(D\(z, 1/sigma\)\)"),
    (lambda z, s: wiener(z * (1 + at(s) ** 2) ** 0.5, s), r"it takes z/sqrt\(1 \+ sigma\^2\), not z"),
    (lambda z, s: 2 * z / (1 + at(s) ** 2) - wiener(z, s), "v has the wrong sign"),
    (lambda z, s: 2 * z / (1 + at(s)) - wiener(z, s), "the velocity has the wrong sign"),
    (lambda z, s: -wiener(z, s), "wrong sign"),
]


@pytest.mark.parametrize(("denoiser", "message"), CALLABLES)
def test_wrong_callables_are_named(denoiser, message):
    with pytest.raises(ValueError, match=message):
        self_check(denoiser, CLEAN)


def test_untrained_reversed_time_is_named():
    """A flow's formula with its two shares exchanged, before the network has learnt anything."""

    def exchanged(z, sigma):
        return at(sigma) / (1 + at(sigma)) * z

    with pytest.raises(ValueError, match="Reverse the time"):
        self_check(exchanged, CLEAN)


# Untrained models.


class Net(nn.Module):
    """An ordinary network with a time input; ``gain`` 0 is the zero output layer of most U-Nets."""

    def __init__(self, seed, gain, residual):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.first, self.last = nn.Linear(DIM + 1, 32), nn.Linear(32, DIM)
        self.gain, self.residual = gain, residual

    def forward(self, x, t):
        hidden = torch.tanh(self.first(torch.cat([x, torch.tanh(t.to(x))[:, None]], 1)))
        return self.residual * x + self.gain * self.last(hidden)


UNTRAINED = [
    *DIFFUSERS.values(),
    FLOW,
    Adapter("flow-matching-xt", prediction="eps-x0", time="noise-share"),
    LOG_SNR,
    Adapter("edm"),
    Adapter("edm-backbone"),
    Adapter("affine", "net", prediction="score", path="variance-exploding", time="sigma"),
]


@pytest.mark.parametrize("adapter", UNTRAINED, ids=lambda a: a.convention)
@pytest.mark.parametrize(
    ("gain", "residual"),
    [
        (1.0, 0.0),
        *(pytest.param(*pair, marks=pytest.mark.slow) for pair in [(0.0, 0.0), (4.0, 0.0), (1.0, 1.0), (0.0, -1.0)]),
    ],
)
def test_no_untrained_model_is_refused(adapter, gain, residual):
    white = torch.randn(64, DIM, generator=torch.Generator().manual_seed(0))
    for clean in (white, CLEAN.float()):
        self_check(BoundDenoiser(adapter, user(Net(0, gain, residual))), clean)


@pytest.mark.parametrize("gain", [0.0, 1.0])
@pytest.mark.parametrize("residual", [0.0, 1.0])
def test_no_untrained_callable_is_refused(gain, residual):
    self_check(Net(0, gain, residual), CLEAN.float())


@pytest.mark.parametrize("share", [0.1, *(pytest.param(share, marks=pytest.mark.slow) for share in (0.02, 0.3, 0.6))])
@pytest.mark.parametrize("name", ["epsilon", "v", "x0"])
def test_no_half_trained_model_is_refused(name, share):
    """Partway from a random linear map to the ideal network."""
    ideal_net, start = Ideal(ideal.of_index(ABAR), name), Net(0, 1.0, 0.0).double()

    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.start = start

        def forward(self, x, t):
            return share * ideal_net(x, t) + (1 - share) * start(x, t)

    self_check(BoundDenoiser(DIFFUSERS[name], user(Mixed())), CLEAN)


# What holds whatever the weights.


def test_a_diverged_network():
    with pytest.raises(ValueError, match="D\\(z, sigma_min\\) must be close to z, got a deviation"):
        self_check(BoundDenoiser(DIFFUSERS["epsilon"], user(Net(0, 1e6, 0.0))), CLEAN.float())


def wrapped(out):
    return SimpleNamespace(sample=out)


@pytest.mark.parametrize(
    ("denoiser", "error", "message"),
    [
        (lambda z, s: wrapped(z), TypeError, r"got SimpleNamespace.*`\.sample`"),
        (BoundDenoiser(Adapter("edm"), user(Ideal(ideal.of_sigma, "x0", wrap=wrapped))), TypeError, "`output`"),
        (lambda z, s: (z,), TypeError, "got tuple"),
        (lambda z, s: None, TypeError, "got NoneType"),
        (lambda z, s: z[:, :2], ValueError, r"\(64, 6\), got \(64, 2\)"),
        (lambda z, s: z.sum(), ValueError, r"got \(\)"),
        (lambda z, s: z * torch.nan, ValueError, "NaN or infinity at sigma = 0.002"),
        (lambda z, s: z.index_fill(0, torch.tensor([1]), torch.inf), ValueError, "NaN or infinity"),
        (lambda z, s: z / (s[:, None] < 50), ValueError, "NaN or infinity at sigma = 80"),
    ],
)
def test_what_is_no_denoiser_is_stopped(denoiser, error, message):
    with pytest.raises(error, match=message):
        self_check(denoiser, CLEAN)


@pytest.mark.parametrize(
    "mixing",
    [
        lambda z: z - z.mean(0),
        lambda z: z / (1e-3 + z.std(0, correction=0)),
        lambda z: z + torch.randn_like(z),
    ],
)
def test_examples_that_see_each_other(mixing):
    with pytest.raises(ValueError, match="`denoiser` must treat examples independently"):
        self_check(lambda z, s: wiener(mixing(z), s), CLEAN)


def test_rounding_of_half_precision_passes():
    class Rounded(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(DIM, DIM, dtype=torch.bfloat16)

        def forward(self, x, t):
            return self.layer(x) * (1 + 0.004 * (len(x) == 1))  # as another kernel might round

    self_check(BoundDenoiser(LOG_SNR, user(Rounded())), CLEAN.float())


def test_conditions_go_with_their_examples():
    seen = []

    def denoiser(z, sigma, condition):
        seen.append((len(z), condition.tolist()))
        return wiener(z, sigma) + 0 * condition[:, None]

    self_check(denoiser, CLEAN, condition=torch.arange(64))  # the exact denoiser passes
    assert {(n, tuple(c)) for n, c in seen if n == 1} == {(1, (i,)) for i in range(4)}
    assert all(len(c) == n for n, c in seen)
    with pytest.raises(ValueError, match="`clean`"):
        self_check(wiener, CLEAN[:1])


class Owner(nn.Module):
    def __init__(self, normalize):
        super().__init__()
        self.register_buffer("alphas_cumprod", ABAR)
        self.model, self.normalize = Net(0, 0.0, 0.0), normalize


def test_data_outside_the_normalised_range_are_noticed():
    unit = torch.rand(16, DIM, generator=torch.Generator().manual_seed(0))
    signed = nn.ModuleDict({"diffusion": Owner(lambda x: 2 * x - 1)})
    denoiser = BoundDenoiser(Adapter("ddpm-v", self_conditioning="off"), signed)
    assert denoiser.describe().endswith("[-1, 1]")
    with pytest.warns(UserWarning, match="data_scale=2, data_shift=-1"):
        self_check(denoiser, unit)
    plain = nn.ModuleDict({"diffusion": Owner(lambda x: x)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        self_check(denoiser, 2 * unit - 1)
        self_check(
            BoundDenoiser(Adapter("ddpm-v", data_scale=2.0, data_shift=-1.0, self_conditioning="off"), signed), unit
        )
        self_check(BoundDenoiser(Adapter("ddpm-v", self_conditioning="off"), plain), unit)


@pytest.mark.slow
def test_unexplained_error_of_known_filters():
    clean, noise = draw(20_000, seed=5), torch.randn(20_000, DIM, generator=torch.Generator().manual_seed(6), dtype=F64)
    spread = (clean - clean.mean(0)).square().mean().item()
    levels = [0.3 * spread**0.5, spread**0.5]

    def scalar(z, s):
        return clean.mean(0) + (z - clean.mean(0)) * spread / (spread + at(s) ** 2)

    assert unexplained(scalar, clean, noise, levels) == pytest.approx(1, abs=0.01)  # 20,000 examples: 1 %
    variance = torch.linalg.eigvalsh(ideal.COVARIANCE)
    expected = [(variance * s**2 / (variance + s**2)).mean().item() / (spread * s**2 / (spread + s**2)) for s in levels]
    assert unexplained(wiener, clean[:4000], noise[:4000], levels) == pytest.approx(sum(expected) / 2, rel=0.03)
    assert unexplained(lambda z, s: z, clean, noise, levels[1:]) == pytest.approx(2, abs=0.02)
