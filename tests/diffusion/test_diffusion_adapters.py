"""Every convention on a perfectly trained network is the Wiener filter; how networks are called; where denoisers come from."""

import math
import sys
import types
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from torch import nn

from spectral_lightning.diffusion import Adapter, BoundDenoiser, resolve_denoiser
from spectral_lightning.diffusion.adapters.levels import LevelGrid, ScheduleTime
from spectral_lightning.sampling import Sampler, karras_sigmas
from tests.support import ideal_networks as ideal
from tests.support.ideal_networks import DIM, F64, Backbone, Ideal, abar, draw, wiener

ABAR = abar()
DESCENDING = [50.0, 5.0, 0.5, 0.05]
CONTINUOUS = [0.002, 0.03, 0.5, 1.0, 4.0, 80.0]


def in_sample(out):
    return SimpleNamespace(sample=out)


def in_mean(out):
    return SimpleNamespace(mean=out)


def module(**parts):
    """A user's module; ``a_b`` becomes the attribute path ``a.b``."""
    root = nn.Module()
    for name, part in parts.items():
        owner, _, leaf = name.rpartition("__")
        if owner and not isinstance(getattr(root, owner, None), nn.Module):
            setattr(root, owner, nn.Module())
        setattr(getattr(root, owner) if owner else root, leaf, part)
    return root


def scheduler():
    return SimpleNamespace(alphas_cumprod=ABAR)


def gaussian_diffusion(target):
    owner = nn.Module()
    owner.register_buffer("alphas_cumprod", ABAR)
    owner.model = Ideal(ideal.of_index(ABAR), target)
    return nn.ModuleDict({"diffusion": owner})


def latent_diffusion(target="epsilon"):
    class Latent(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("alphas_cumprod", ABAR)
            self.inner = Ideal(ideal.of_index(ABAR), target)

        def apply_model(self, x, t, cond):
            return self.inner(x, t)

    return Latent()


def posterior_module():
    net = Ideal(ideal.trigonometric, "x0", wrap=in_mean)
    net.schedule = ideal.trigonometric
    return module(denoiser=net)


def indexed(target, wrap=in_sample):
    return module(unet=Ideal(ideal.of_index(ABAR), target, wrap=wrap), noise_scheduler=scheduler())


CASES = {
    "edm": (Adapter("edm"), lambda: module(net=Ideal(ideal.of_sigma, "x0"))),
    "edm-backbone": (Adapter("edm-backbone"), lambda: module(net=Backbone())),
    "edm-backbone-sd": (Adapter("edm-backbone", sigma_data=1.3), lambda: module(net=Backbone(1.3))),
    "diffusers-epsilon": (Adapter("diffusers-epsilon"), lambda: indexed("epsilon")),
    "diffusers-v": (Adapter("diffusers-v"), lambda: indexed("v")),
    "diffusers-sample": (Adapter("diffusers-sample"), lambda: indexed("x0")),
    "diffusers-flow-match": (
        Adapter("diffusers-flow-match"),
        lambda: module(transformer=Ideal(ideal.of_thousandth, "eps-x0", wrap=in_sample)),
    ),
    "ddpm-epsilon": (Adapter("ddpm-epsilon"), lambda: gaussian_diffusion("epsilon")),
    "ddpm-x0": (Adapter("ddpm-x0"), lambda: gaussian_diffusion("x0")),
    "ddpm-v": (Adapter("ddpm-v"), lambda: gaussian_diffusion("v")),
    "log-snr": (Adapter("log-snr"), lambda: module(model=Ideal(ideal.of_log_snr, "epsilon"))),
    "log-snr-v": (Adapter("log-snr", prediction="v"), lambda: module(model=Ideal(ideal.of_log_snr, "v"))),
    "flow-matching": (
        Adapter("flow-matching"),
        lambda: module(net=Ideal(ideal.of_data_share, "x0-eps", order="time-x")),
    ),
    "flow-matching-xt": (Adapter("flow-matching-xt"), lambda: module(net=Ideal(ideal.of_data_share, "x0-eps"))),
    "rectified flow, 0 = data": (
        Adapter("flow-matching-xt", prediction="eps-x0", time="noise-share"),
        lambda: module(net=Ideal(ideal.of_noise_share, "eps-x0")),
    ),
    "the same by flags": (
        Adapter("flow-matching-xt", reverse_time=True, output_scale=-1),
        lambda: module(net=Ideal(ideal.of_noise_share, "eps-x0")),
    ),
    "posterior": (Adapter("posterior"), posterior_module),
    "latent-diffusion": (Adapter("latent-diffusion"), latent_diffusion),
    "latent-diffusion v": (Adapter("latent-diffusion", prediction="v"), lambda: latent_diffusion("v")),
    "score of noisy data": (
        Adapter("affine", "net", prediction="score", path="variance-exploding", time="sigma"),
        lambda: module(net=Ideal(ideal.of_sigma, "score")),
    ),
    "score of a schedule": (
        Adapter("affine", "net", prediction="score", schedule=ideal.trigonometric, path="schedule", time="schedule"),
        lambda: module(net=Ideal(ideal.trigonometric, "score")),
    ),
    "velocity of a schedule": (
        Adapter("posterior", "net", schedule=ideal.trigonometric, prediction="eps-x0", output="mean"),
        lambda: module(net=Ideal(ideal.trigonometric, "eps-x0", wrap=in_mean)),
    ),
    "descending sigmas of a score network": (
        Adapter("edm", time="index", schedule=DESCENDING, schedule_values="sigmas"),
        lambda: module(net=Ideal(lambda i: (torch.ones(len(i)), torch.tensor(DESCENDING, dtype=F64)[i]), "x0")),
    ),
    "opposite sign, first of a tuple": (
        Adapter("diffusers-epsilon", output=0, output_scale=-1),
        lambda: module(
            unet=Ideal(ideal.of_index(ABAR), "epsilon", -1, wrap=lambda out: (out, None)), noise_scheduler=scheduler()
        ),
    ),
}


def levels_of(denoiser):
    grid = denoiser.sigma_grid
    if grid is None:
        return [s for s in CONTINUOUS if denoiser.sigma_min <= s <= denoiser.sigma_max]
    return [grid[i] for i in sorted({0, 1, len(grid) // 3, len(grid) // 2, len(grid) - 1})]


def noisy(sigma, count=4, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return draw(count) + sigma * torch.randn(count, DIM, generator=generator, dtype=F64)


@pytest.mark.parametrize("dtype", [F64, torch.float32])
@pytest.mark.parametrize("name", CASES)
def test_every_convention_is_the_wiener_filter(name, dtype):
    adapter, make = CASES[name]
    denoiser = BoundDenoiser(adapter, make().to(dtype))
    levels = levels_of(denoiser)
    assert len(levels) >= 4
    sigma = torch.tensor(levels, dtype=F64).repeat_interleave(2)  # a batch of different levels
    z = torch.cat([noisy(s, 2, seed=i) for i, s in enumerate(levels)])
    out = denoiser(z.to(dtype), sigma.to(dtype))
    assert out.dtype == dtype
    # At high noise the target's noise is sigma times what is left of it: rounding of F (6e-8 in float32) times sigma
    rtol, atol = (1e-12, 2e-12) if dtype == F64 else (1e-4, 2e-5)
    error = (out.double() - wiener(z, sigma)).abs()
    assert (error <= rtol * wiener(z, sigma).abs() + atol * sigma.clamp_min(1)[:, None]).all()


@pytest.mark.parametrize("name", CASES)
def test_a_call_by_somebody_else_is_recovered(name):
    """Data, level and prediction come back from what the network saw and said."""
    adapter, make = CASES[name]
    denoiser = BoundDenoiser(adapter, make())
    sigma = torch.tensor(levels_of(denoiser), dtype=F64)
    z, calls, network = torch.cat([noisy(s, 1, seed=i) for i, s in enumerate(sigma)]), [], denoiser.network

    def recorded(*args, **kwargs):
        calls.append((args, network(*args, **kwargs)))
        return calls[-1][1]

    denoiser.network = recorded
    found = denoiser.recover(*(denoiser(z, sigma), calls)[1][0])
    for part, given in zip(found, (z, sigma, denoiser(z, sigma)), strict=True):
        torch.testing.assert_close(part.double(), given, rtol=2e-6, atol=2e-6)


def test_images_keep_their_shape():
    denoiser = BoundDenoiser(Adapter("diffusers-v"), indexed("v"))
    sigma = torch.full((5,), denoiser.sigma_grid[80], dtype=F64)
    z = noisy(sigma[0].item(), 5)
    out = denoiser(z.reshape(5, 1, 2, 3), sigma)
    torch.testing.assert_close(out, wiener(z, sigma).reshape(5, 1, 2, 3), rtol=1e-12, atol=1e-12)


def test_data_range_is_a_change_of_units():
    """A network for 2 x - 1 denoises x: its level is twice that of x."""
    scaled = Adapter("edm", "net", data_scale=2.0, data_shift=-1.0)

    class OnTwice(nn.Module):
        def forward(self, y, sigma):
            return 2 * wiener((y + 1) / 2, sigma / 2) - 1

    denoiser = BoundDenoiser(scaled, module(net=OnTwice()))
    z, s = noisy(0.7), torch.full((4,), 0.7, dtype=F64)
    torch.testing.assert_close(denoiser(z, s), wiener(z, s), rtol=1e-12, atol=1e-12)
    assert denoiser.describe().endswith("; the network sees 2 x -1")


def test_data_range_halves_a_grid():
    plain, scaled = (BoundDenoiser(Adapter("diffusers-epsilon", data_scale=c), indexed("epsilon")) for c in (1.0, 2.0))
    assert scaled.sigma_grid == pytest.approx([s / 2 for s in plain.sigma_grid], rel=1e-15)
    for s in scaled.sampler(Sampler(num_steps=10)).levels:
        scaled(torch.zeros(1, DIM), torch.tensor([s]))


# Levels.


@pytest.mark.parametrize("sigma", [1.0, 500.0, 0.0, 1e-9])
def test_off_the_grid_raises(sigma):
    denoiser = BoundDenoiser(Adapter("diffusers-epsilon"), indexed("epsilon"))
    with pytest.raises(ValueError, match="`sigma`"):
        denoiser(torch.zeros(2, DIM), torch.tensor([denoiser.sigma_min, sigma]))


def test_infinite_and_zero_levels_are_left_out_and_the_index_stays():
    grid = LevelGrid(torch.tensor([1.0, 0.8, 0.5, 0.0]))
    assert grid.sigmas == pytest.approx([0.5, 1.0])
    assert grid.indices.tolist() == [1, 2]
    assert grid.size == 4


@pytest.mark.parametrize(
    ("name", "ends"),
    # 1 - abar at either end by hand: beta_1, and the published values of the schedules
    [
        ("linear", (0.010000500, 157.407)),
        ("scaled-linear", (math.sqrt(0.00085 / 0.99915), 14.61464)),
        ("cosine", (0.0064254, 20291.17)),
    ],
)
def test_named_schedules(name, ends):
    sigmas = LevelGrid.named(name).sigmas
    assert len(sigmas) == 1000
    assert (sigmas[0], sigmas[-1]) == pytest.approx(ends, rel=1e-4)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0.5, 0.4, 0.45], "alphas_cumprod"),
        ([0.9, float("nan")], "alphas_cumprod"),
        ([0.1, 0.3, 0.2], "sigmas"),
        ([0.5, 0.0], "alphas_cumprod"),  # one finite level
    ],
)
def test_a_grid_that_turns_back_or_is_too_small_is_refused(values, kind):
    with pytest.raises(ValueError, match="`schedule`"):
        LevelGrid(values, kind)
    with pytest.raises(ValueError, match="`num_steps`"):
        LevelGrid(ABAR).closest(np.geomspace(50, 0.01, 201))


@pytest.mark.parametrize("count", [2, 3, 10, 37, 199, 200])
def test_closest_levels_are_strictly_decreasing_and_on_the_grid(count):
    grid = LevelGrid(ABAR)
    wanted = karras_sigmas(max(count, 3) - 1, grid.sigmas[0], grid.sigmas[-1], final="sigma_min")
    wanted = wanted if count > 2 else (wanted[0], wanted[-1])
    chosen = grid.closest(wanted)
    assert list(chosen) == sorted(set(chosen), reverse=True)
    assert (len(chosen), chosen[0], chosen[-1]) == (count, grid.sigmas[-1], grid.sigmas[0])
    assert set(chosen) <= set(grid.sigmas)
    dense = LevelGrid(torch.logspace(-3, 2, 40_000, dtype=F64), "sigmas")
    asked = np.geomspace(90, 0.002, count)
    assert dense.closest(asked) == pytest.approx(asked, rel=3e-4)  # half a step of the grid is 1.5e-4


@pytest.mark.parametrize("final", ["zero", "sigma_min"])
@pytest.mark.parametrize("solver", ["heun", "euler", "adams"])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_sampler_stays_on_the_grid(final, solver, dtype):
    denoiser = BoundDenoiser(Adapter("diffusers-v"), indexed("v"))
    sampler = denoiser.sampler(Sampler(solver, 12, final=final))
    assert len(sampler.sigmas) == 13
    assert sampler.sigmas[-1] == (0.0 if final == "zero" or solver == "adams" else denoiser.sigma_min)

    def at(x, s):
        return denoiser(x, torch.full((len(x),), s, dtype=dtype))

    z = sampler.start * torch.eye(DIM, dtype=dtype)
    by_wiener = sampler(lambda x, s: wiener(x, torch.full((len(x),), s, dtype=F64)), z.double())
    torch.testing.assert_close(sampler(at, z).double(), by_wiener, rtol=1e-4, atol=1e-4)


def test_sampler_of_a_continuous_network_spans_its_range():
    denoiser = BoundDenoiser(Adapter("flow-matching", sigma_min=0.01, sigma_max=40.0), CASES["flow-matching"][1]())
    assert denoiser.sigma_grid is None
    assert denoiser.sampler(Sampler(num_steps=7)) == Sampler(num_steps=7, sigma_min=0.01, sigma_max=40.0)
    fine = denoiser.sampler(Sampler("adams", 30, scale=0.1))
    assert (fine.start, min(fine.levels), fine.sigmas[-1]) == (40.0, 0.01, 0.0)
    assert denoiser.sampler(Sampler("adams", 8)).evaluations == 8


def test_range_cuts_a_grid():
    denoiser = BoundDenoiser(Adapter("diffusers-v", sigma_min=0.1, sigma_max=3.0), indexed("v"))
    full = BoundDenoiser(Adapter("diffusers-v"), indexed("v")).sigma_grid
    assert denoiser.sigma_grid == tuple(s for s in full if 0.1 <= s <= 3.0)
    sigma = torch.full((4,), denoiser.sigma_max, dtype=F64)
    z = noisy(denoiser.sigma_max)
    torch.testing.assert_close(denoiser(z, sigma), wiener(z, sigma), rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize(
    ("schedule", "inverse"),
    [
        (lambda t: (1 - t, t), lambda s: s / (1 + s)),
        (lambda t: (t, 1 - t), lambda s: 1 / (1 + s)),
        (ideal.trigonometric, lambda s: math.atan(s) * 2 / math.pi),
        (lambda t: (torch.ones_like(t), 0.01 * 1e4**t), lambda s: math.log(s / 0.01) / math.log(1e4)),
    ],
)
@pytest.mark.parametrize("sigma", [0.02, 1.0, 60.0])
def test_time_of_a_schedule(schedule, inverse, sigma):
    found = ScheduleTime(schedule)(torch.tensor([sigma], dtype=F64)).item()
    assert found == pytest.approx(inverse(sigma), rel=1e-13)


# How the network is called.


class Recorder(nn.Module):
    """Keeps what it is called with and spoils it."""

    def __init__(self, dtype=torch.float32, channels=1):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, dtype=dtype))
        self.calls, self.channels = [], channels

    def forward(self, *args, **kwargs):
        self.calls.append(([a.clone() if isinstance(a, torch.Tensor) else a for a in args], kwargs))
        x = max((a for a in args if isinstance(a, torch.Tensor)), key=lambda a: a.ndim)
        out = torch.cat([0.1 * x] * self.channels, 1)
        for a in args:
            if isinstance(a, torch.Tensor):
                a.mul_(0)
        return out


def recorded(adapter, network, z, sigma, *more):
    return BoundDenoiser(adapter, module(net=network))(z, sigma, *more), network.calls


@pytest.mark.parametrize("convention", ["edm", "flow-matching-xt", "edm-backbone", "log-snr"])
def test_state_and_sigma_survive_a_network_that_writes_into_its_input(convention):
    z, sigma = torch.ones(2, 3), torch.full((2,), 0.5)
    adapter = Adapter(convention, "net")
    first, _ = recorded(adapter, Recorder(), z, sigma)
    second, _ = recorded(adapter, Recorder(), z, sigma)
    assert torch.equal(z, torch.ones(2, 3))
    assert torch.equal(sigma, torch.full((2,), 0.5))
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("network", "inner", "of_time"),
    [
        (torch.float32, torch.float32, torch.float32),
        (torch.bfloat16, torch.bfloat16, torch.float32),
        (torch.float16, torch.float16, torch.float32),
        (F64, F64, F64),
    ],
)
def test_network_runs_in_its_own_type_and_the_state_in_the_callers(network, inner, of_time):
    out, calls = recorded(Adapter("edm"), Recorder(network), torch.ones(2, 3), torch.full((2,), 0.5))
    assert [a.dtype for a in calls[0][0]] == [inner, of_time]
    assert out.dtype == torch.float32


def test_orders_keywords_and_conditions():
    z, sigma = torch.ones(2, 3), torch.full((2,), 1.0)
    label = torch.tensor([4, 5])
    (args, keywords) = recorded(Adapter("flow-matching", extra={"y": 3}), Recorder(), z, sigma)[1][0]
    assert [a.ndim for a in args] == [1, 2]
    assert keywords == {"y": 3}
    (args, _) = recorded(Adapter("edm"), Recorder(), z, sigma, label)[1][0]
    assert args[2].tolist() == [4, 5]
    (args, keywords) = recorded(Adapter("edm", condition="class_labels"), Recorder(), z, sigma, label)[1][0]
    assert len(args) == 2
    assert keywords["class_labels"].tolist() == [4, 5]
    null = Adapter("edm", condition="class_labels", default_condition=10)
    assert recorded(null, Recorder(), z, sigma)[1][0][1]["class_labels"].tolist() == [10, 10]
    assert recorded(null, Recorder(), z, sigma, label)[1][0][1]["class_labels"].tolist() == [4, 5]
    assert label.tolist() == [4, 5]  # the first network wrote into its own copy
    text = torch.ones(2, 5, 7)
    (_, keywords) = recorded(Adapter("edm", condition="text"), Recorder(F64), z, sigma, text)[1][0]
    assert keywords["text"].dtype == F64  # in the type of the network


def test_condition_of_another_length_is_refused():
    with pytest.raises(ValueError, match="`condition`"):
        recorded(Adapter("edm"), Recorder(), torch.ones(2, 3), torch.ones(2), torch.ones(3))


@pytest.mark.parametrize(
    ("how", "third"), [("off", []), ("none", [[None]]), ("zeros", [[0.0]]), ("estimate", [[None], [0.1]])]
)
def test_self_conditioning(how, third):
    out, calls = recorded(Adapter("edm", self_conditioning=how), Recorder(), torch.ones(2, 3), torch.ones(2))
    seen = [[None if a is None else round(a[0, 0].item(), 6) for a in args[2:]] for args, _ in calls]
    assert [s for s in seen if s] == third
    assert torch.equal(out, torch.full((2, 3), 0.1))


def test_learned_variance_is_left_out():
    out, _ = recorded(Adapter("edm", learned_variance=True), Recorder(channels=2), torch.ones(2, 3), torch.ones(2))
    assert out.shape == (2, 3)
    with pytest.raises(ValueError, match="`learned_variance`"):
        recorded(Adapter("edm"), Recorder(channels=2), torch.ones(2, 3), torch.ones(2))


@pytest.mark.parametrize(
    "schedule",
    ["noise_scheduler", "noise_scheduler.alphas_cumprod", "users_package:scheduler", ABAR.tolist(), ABAR],
    ids=["object", "attribute", "import", "list", "tensor"],
)
@pytest.mark.usefixtures("importable")
def test_where_a_schedule_may_come_from(schedule):
    denoiser = BoundDenoiser(Adapter("diffusers-v", schedule=schedule), indexed("v"))
    assert denoiser.sigma_grid == BoundDenoiser(Adapter("diffusers-v"), indexed("v")).sigma_grid


# Names, errors, YAML.


@pytest.mark.parametrize(
    ("fields", "argument"),
    [
        ({"convention": "edn"}, "convention"),
        ({"convention": "affine"}, "prediction"),
        ({"time": "seconds"}, "time"),
        ({"path": "straight"}, "path"),
        ({"order": "xt"}, "order"),
        ({"self_conditioning": "yes"}, "self_conditioning"),
        ({"time": "index"}, "schedule"),
        ({"path": "schedule"}, "path"),
        ({"sigma_data": 0.0}, "sigma_data"),
        ({"sigma_max": -1.0}, "sigma_max"),
        ({"data_scale": 0.0}, "data_scale"),
        ({"output_scale": 0.0}, "output_scale"),
        ({"num_train_steps": 1}, "num_train_steps"),
    ],
)
def test_bad_fields(fields, argument):
    with pytest.raises(ValueError, match=f"`{argument}`"):
        Adapter(**{"convention": "edm", **fields})


@pytest.mark.parametrize(
    ("adapter", "message"),
    [
        (Adapter("edm", "model.unet"), "`network` .* submodules: unet"),
        (Adapter("diffusers-v", schedule="scheduler"), "`schedule`"),
        (Adapter("diffusers-v", network="noise_scheduler"), "`network`"),
        (Adapter("diffusers-v", schedule="unet"), "`schedule`"),
        (Adapter("posterior", "unet", schedule="noise_scheduler"), "`schedule`"),
        (Adapter("posterior", "unet", schedule="no.such:thing"), "`schedule`"),
    ],
)
def test_what_is_not_found(adapter, message):
    with pytest.raises(ValueError, match=message):
        BoundDenoiser(adapter, indexed("v"))


def test_description():
    turned = BoundDenoiser(Adapter("flow-matching", reverse_time=True, output_scale=-1), CASES["flow-matching"][1]())
    assert turned.describe() == (
        "flow-matching: net(time, x) predicts x0-eps times -1, time data-share reversed, path linear, sigma 0.002 to 80"
    )


def test_yaml():
    parser = ArgumentParser()
    parser.add_argument("--denoiser", type=Adapter | str | None)
    text = "denoiser: {convention: diffusers-v, network: model.unet, schedule: [0.9, 0.5], extra: {return_dict: true}}"
    read = parser.instantiate(parser.parse_string(text)).denoiser
    assert read == Adapter("diffusers-v", "model.unet", [0.9, 0.5], extra={"return_dict": True})
    assert parser.parse_string("denoiser: diffusers-v:model.unet").denoiser == "diffusers-v:model.unet"


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.unet = Ideal(ideal.of_index(ABAR), "epsilon", wrap=in_sample)
        self.noise_scheduler = scheduler()

    def denoise(self, z, sigma):
        return 2 * z


@pytest.fixture
def importable(monkeypatch):
    home = types.ModuleType("users_package")
    home.of_module = lambda m, z, sigma: z + len(list(m.children()))
    home.adapter = Adapter("diffusers-epsilon")
    home.number, home.scheduler = 3, scheduler()
    monkeypatch.setitem(sys.modules, "users_package", home)


Z, SIGMA = torch.ones(2, DIM), torch.full((2,), 0.01 / math.sqrt(1 - 1e-4), dtype=F64)


@pytest.mark.parametrize(
    ("denoiser", "value", "says"),
    [
        (None, 2.0, r"Own.denoise\(z, sigma\)"),
        (lambda z, sigma: 5 * z, 5.0, r"the callable <lambda>\(z, sigma\)"),
        ("users_package:of_module", 2.0, r"users_package:of_module\(module, z, sigma\)"),
        ("users_package.of_module", 2.0, r"users_package.of_module\(module, z, sigma\)"),
        ("users_package:adapter", None, "diffusers-epsilon: unet"),
        (Adapter("diffusers-epsilon"), None, "diffusers-epsilon: unet"),
        ("diffusers-epsilon", None, "diffusers-epsilon: unet"),
        ("diffusers-epsilon:unet", None, "diffusers-epsilon: unet"),
    ],
)
@pytest.mark.usefixtures("importable")
def test_resolution(denoiser, value, says):
    found, description = resolve_denoiser(Own(), denoiser)
    expected = wiener(Z, SIGMA).float() if value is None else torch.full((2, DIM), value)
    torch.testing.assert_close(found(Z, SIGMA), expected, rtol=1e-5, atol=1e-5)
    assert description.startswith(says.replace("\\", ""))


@pytest.mark.parametrize(
    ("denoiser", "error", "message"),
    [
        (None, TypeError, "`denoise.*`denoiser="),
        (3, TypeError, "`denoiser` .* got int"),
        ("diffusers-eps", ValueError, "`denoiser` .* affine, edm"),
        ("users_package:absent", ValueError, "`denoiser`"),
        ("no_such_package.f", ValueError, "`denoiser`"),
        ("users_package:number", ValueError, "`denoiser`"),
    ],
)
@pytest.mark.usefixtures("importable")
def test_no_denoiser(denoiser, error, message):
    with pytest.raises(error, match=message):
        resolve_denoiser(nn.Identity(), denoiser)
