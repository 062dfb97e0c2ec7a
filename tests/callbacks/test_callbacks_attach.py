"""A tracker on modules that know nothing of this package: their denoisers, conditions, samplers and data."""

import json
import logging
import sys
import warnings

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.cli import LightningCLI
from lightning_utilities.core import rank_zero
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from spectral_lightning.callbacks import AnalyticOverlay, EmergenceFitter, SpectralTracker
from spectral_lightning.diffusion import Adapter
from spectral_lightning.sampling import Sampler
from spectral_lightning.spectra import GeneratedSamples, PCABasis, SpectralProbe
from spectral_lightning.theory.solving.sampled import fixed_point
from spectral_lightning.tracking.first_look import check_again
from spectral_lightning.tracking.reference.classes import find_classes
from tests.support.tiny_training import THEORY, examples, loader, tracker, trainer

DIM = 8
VARIANCE = torch.logspace(1, -3, DIM, dtype=torch.float64)
GRID = torch.cumprod(1 - torch.linspace(1e-4, 0.06, 200, dtype=torch.float64), 0)


def gaussian(count=64):
    """Rows whose second moments are exactly ``diag(VARIANCE)``."""
    q = torch.linalg.qr(torch.randn(count // 2, DIM, generator=torch.Generator().manual_seed(0)).double())[0]
    half = q * (count // 2) ** 0.5 * VARIANCE.sqrt()
    return torch.cat([half, -half]).float()


class Epsilon(nn.Module):
    """E[eps | x] of diagonal Gaussian data for ``x = a x0 + s eps``, times one weight: trained at 1, with a sign at -1."""

    def __init__(self, weight=1.0, by_index=False):
        super().__init__()
        self.weight, self.by_index = nn.Parameter(torch.tensor(weight)), by_index
        self.times = []

    def forward(self, x, t):
        self.times.append(t)
        abar = GRID[t] if self.by_index else 1 / (1 + t.double() ** 2)
        a2 = abar[:, None]
        return self.weight * ((1 - a2).sqrt() * x / (a2 * VARIANCE + 1 - a2)).to(x.dtype)


class Scheduler:
    alphas_cumprod = GRID


class Labelled(nn.Module):
    """The exact denoiser of a class whose standard deviation is that of the data times (label + 1)."""

    def forward(self, z, sigma, label):
        variance = VARIANCE * (label[:, None].double() + 1) ** 2
        return (variance / (variance + sigma[:, None].double() ** 2) * z).to(z.dtype)


class Foreign(pl.LightningModule):
    """Somebody's own module: no `denoise`, a network, a loss of their own."""

    def __init__(self, weight=1.0, by_index=False, lr=0.0):
        super().__init__()
        self.unet = Epsilon(weight, by_index)
        self.noise_scheduler = Scheduler()
        self.labelled = Labelled()
        self.lr = lr

    def clean(self, z, sigma):
        return z - sigma[:, None] * self.unet(z / (1 + sigma[:, None] ** 2).sqrt(), sigma)

    def training_step(self, batch, batch_idx):
        x = batch["image"] if isinstance(batch, dict) else batch[0] if isinstance(batch, list) else batch
        t = torch.randint(0, 200, (len(x),)) if self.unet.by_index else torch.rand(len(x)) + 0.1
        return (self.unet(x, t) - x).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.lr)


def by_name(module, z, sigma):
    """What an import path leads to."""
    return module.clean(z, sigma)


BY_SIGMA = Adapter("affine", "unet", prediction="epsilon", time="sigma")
WAYS = {
    "adapter": (lambda m: BY_SIGMA, "affine: unet(x, time) predicts epsilon, time sigma, path variance-preserving"),
    "callable": (lambda m: m.clean, "the callable clean(z, sigma)"),
    "import path": (lambda m: f"{__name__}:by_name", ":by_name(module, z, sigma)"),
    "convention": (lambda m: "diffusers-epsilon", "diffusers-epsilon: unet(x, time) predicts epsilon, time index"),
    "convention and path": (lambda m: "diffusers-epsilon:unet", "time index, path variance-preserving, sigma 0.01"),
    "own method": (lambda m: None, "Own.denoise(z, sigma)"),
}


class Own(Foreign):
    def denoise(self, z, sigma):
        return self.clean(z, sigma)


def build(way, **options):
    convention = "convention" in way
    module = (Own if way == "own method" else Foreign)(by_index=convention, **options)
    if convention:
        plain = module.unet.forward
        module.unet.forward = lambda x, t: type("Output", (), {"sample": plain(x, t)})()
        module.training_step = lambda batch, batch_idx: (
            module.unet(batch, torch.full((len(batch),), 3)).sample - batch
        ).mean()
    return module


def fit(path, own, module, data=None, **options):
    own = own if isinstance(own, list) else [own]
    run = trainer(path, own, **{"max_steps": 2, **options})
    run.fit(module, loader(gaussian()) if data is None else data)
    return run


# Denoisers.


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_the_denoiser_measures_the_same_and_says_which(tmp_path, caplog, way):
    module = build(way)
    given, line = WAYS[way]
    own = tracker(denoiser=given(module), sampler=None)
    with caplog.at_level(logging.INFO, logger=rank_zero.log.name):
        fit(tmp_path, own, module)
    (said,) = [r.message for r in caplog.records if r.message.startswith("SpectralTracker: ")]
    assert line in said
    assert own.history.metadata["denoiser"] in said
    # The exact denoiser under each sampler: what it makes of the data's variances is known. Float32 networks.
    np.testing.assert_allclose(own.history.variance[-1], own.history.fixed_point, rtol=1e-4)
    np.testing.assert_allclose(own.history.target, VARIANCE, rtol=1e-5)


def test_a_discrete_grid_is_stepped_on_its_own_levels(tmp_path):
    module = build("convention")
    own = tracker(denoiser="diffusers-epsilon:unet", sampler=None)
    fit(tmp_path, own, module)
    grid = ((1 - GRID) / GRID).sqrt().numpy()
    levels = own.history["levels"]
    assert len(levels) > 10
    assert all(np.abs(grid - level).min() <= 1e-12 * level for level in levels)
    assert all(not t.is_floating_point() for t in module.unet.times)


MISTAKES = {
    "the sign": ({"weight": -1.0}, BY_SIGMA, r"sign|output_scale"),
    "the time": ({}, Adapter("affine", "unet", prediction="epsilon", time="sigma", reverse_time=True), r"time|reverse"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_trained_model_read_in_the_wrong_way_is_refused_before_it_trains(tmp_path, mistake):
    options, adapter, message = MISTAKES[mistake]
    module = Foreign(**options)
    run = trainer(tmp_path, [tracker(denoiser=adapter, sampler=None, num_samples=32)])
    with pytest.raises(ValueError, match=message):
        run.fit(module, loader(gaussian()))
    assert run.global_step == 0


class LearnsTheSign(pl.Callback):
    """An untrained network, which learns at once; with the opposite sign if it is -1."""

    def __init__(self, weight):
        self.weight = weight

    def on_train_batch_start(self, trainer, module, *_args):
        if trainer.global_step == 50:
            module.unet.weight.data.fill_(self.weight)


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_wrong_reading_found_in_a_training_is_said_loudly_and_ends_nothing(tmp_path, on_error):
    module, own = Foreign(weight=0.0), tracker(denoiser=BY_SIGMA, sampler=None, num_samples=32, on_error=on_error)
    with pytest.warns(UserWarning, match=r"measured at step 100 is probably not the model.*Correct `denoiser`"):
        run = fit(tmp_path, [LearnsTheSign(-1.0), own], module, max_steps=120)
    assert run.global_step == own.history.last_step == 120
    assert own.session.errors.failures == []


def test_a_right_reading_is_never_doubted(tmp_path):
    module, own = Foreign(weight=0.0), tracker(denoiser=BY_SIGMA, sampler=None, num_samples=32)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*probably not the model")
        fit(tmp_path, [LearnsTheSign(1.0), own], module, max_steps=120)


@pytest.mark.parametrize(
    ("last", "step", "looks"),
    [(50, 63, 0), (79, 100, 1), (100, 126, 0), (98, 102, 1), (0, 251, 1), (794, 1000, 1), (631, 1259, 1)],
)
def test_when_it_is_looked_at_again(last, step, looks):
    """Where a power of ten was crossed since the last measurement, whatever steps the measurements fall on."""
    calls = []
    basis = PCABasis.from_moments(torch.zeros(DIM), torch.diag(VARIANCE))
    probe = SpectralProbe(basis, Sampler(num_steps=3), num_samples=16)

    def exact(z, sigma):
        calls.append(sigma)
        return VARIANCE / (VARIANCE + sigma[:, None] ** 2) * z

    check_again(probe, exact, torch.device("cpu"), torch.float64, None, last, step)
    assert bool(calls) is bool(looks)


class CliModule(Foreign):
    """As a user's package would define it."""

    def train_dataloader(self):
        return loader(gaussian())


@pytest.mark.parametrize("package", ["lightning.pytorch", "pytorch_lightning"])
@pytest.mark.parametrize("kind", ["class_path", "string"])
def test_a_denoiser_in_yaml_through_either_cli(tmp_path, package, kind, monkeypatch):
    if package == "pytorch_lightning":
        cli_module = pytest.importorskip("pytorch_lightning.cli")
        other = pytest.importorskip("pytorch_lightning")
        # The same module on the other package's base.
        base = type(
            "CliModule",
            (other.LightningModule,),
            {
                k: v
                for c in (Foreign, CliModule)
                for k, v in vars(c).items()
                if k in ("clean", "training_step", "configure_optimizers", "train_dataloader")
            },
        )
        base.__init__ = _foreign_init(base)
        cli, module = cli_module.LightningCLI, base
    else:
        cli, module = LightningCLI, CliModule
    denoiser = {
        "class_path": {
            "class_path": "spectral_lightning.diffusion.Adapter",
            "init_args": {"convention": "affine", "network": "unet", "prediction": "epsilon", "time": "sigma"},
        },
        "string": f"{__name__}:by_name",
    }[kind]
    init = {
        "sampling": {"num_samples": 16},
        "schedule": {"per_decade": 3, "max_overhead": 100.0},
        "denoiser": denoiser,
        "on_error": "raise",
    }
    config = {
        "trainer": {
            "accelerator": "cpu", "devices": 1, "max_steps": 2, "logger": False, "enable_checkpointing": False,
            "enable_progress_bar": False, "enable_model_summary": False, "default_root_dir": str(tmp_path),
            "callbacks": [{"class_path": "spectral_lightning.callbacks.SpectralTracker", "init_args": init}],
        }
    }  # fmt: skip
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps(config))  # JSON is YAML
    monkeypatch.setattr(sys, "argv", ["train"])
    done = cli(module, args=["fit", f"--config={file}"], save_config_callback=None)
    (own,) = [c for c in done.trainer.callbacks if isinstance(c, SpectralTracker)]
    assert own.history.steps.tolist() == [0, 1, 2] or own.history.last_step == 2
    np.testing.assert_allclose(own.history.variance[-1], own.history.fixed_point, rtol=1e-4)


def _foreign_init(base):
    def __init__(self):
        super(base, self).__init__()
        self.unet, self.noise_scheduler, self.labelled, self.lr = Epsilon(), Scheduler(), Labelled(), 0.0

    return __init__


# Conditions.


class Share:
    def __init__(self, rank, size):
        self.rank, self.size = rank, size

    def sum(self, tensor):
        return tensor

    def copy_from_first(self, tensor):
        return tensor


def rows_seen(size, batch, condition):
    """The condition that every latent was sampled under, by the latent's bytes."""
    seen = {}
    basis = PCABasis.from_moments(torch.zeros(DIM), torch.diag(VARIANCE))

    def sample(latents, rows):
        for latent, row in zip(latents, rows, strict=True):
            seen.setdefault(latent.numpy().tobytes(), set()).add(row.item())
        return latents

    for rank in range(size):
        probe = SpectralProbe(basis, "given", num_samples=30, sample_batch_size=batch, ranks=Share(rank, size))
        probe.generate(sample, condition=condition)
    return seen, basis


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("batch", [2, 3, 8, 512])
def test_a_latent_is_always_sampled_under_the_same_row(size, batch):
    condition = torch.tensor([10, 20, 30])
    seen, _ = rows_seen(size, batch, condition)
    assert len(seen) == 30
    latents = SpectralProbe(
        PCABasis.from_moments(torch.zeros(DIM), torch.diag(VARIANCE)), "given", num_samples=30
    ).latents.rows(0, 30)
    for i, latent in enumerate(latents.float()):
        # Both of an antithetic pair under one row.
        assert seen[latent.numpy().tobytes()] == {condition[i // 2 % 3].item()}


def test_a_condition_through_a_trainer(tmp_path):
    """Half of the latents under each of two labels: the mean of both variances, by hand."""
    module = Foreign()
    labels = torch.tensor([0, 1])
    own = tracker(
        num_samples=64, sampler=Sampler(), condition=labels, denoiser=Adapter("edm", "labelled"), track_gain=True
    )
    fit(tmp_path, own, module)
    probe = own.session.probe
    basis = probe.basis
    latents = probe.latents.rows(0, 64)
    rows = labels[torch.arange(64) // 2 % 2]
    samples = probe.sampler(
        lambda z, s: module.labelled(z, torch.full((64,), s, dtype=z.dtype), rows), latents * probe.sampler.start
    )
    by_hand = basis.project(samples).double()
    by_hand = (by_hand - by_hand.mean(0)).square().mean(0)
    np.testing.assert_allclose(own.history.variance[-1], by_hand, rtol=1e-4)


class WithLabels(Foreign):
    def training_step(self, batch, batch_idx):
        return super().training_step(batch[0], batch_idx)


def labelled_data():
    """Three of four examples in a class with the data's variances, the rest in one with four times as much."""
    return TensorDataset(torch.cat([gaussian(48), 2 * gaussian(16)]), torch.tensor([0] * 48 + [1] * 16))


def called_with(module, kind):
    if kind == "adapter":
        return Adapter("edm", "labelled")
    return module.labelled


@pytest.mark.parametrize("kind", ["adapter", "callable"])
@pytest.mark.parametrize("gains", [False, True])
def test_classes_of_a_denoiser_that_takes_labels(tmp_path, kind, gains):
    """The module itself says nothing of classes; the number of them is given."""
    module = WithLabels()
    own = tracker(
        denoiser=called_with(module, kind), per_class=True, num_classes=2, num_samples=16, sampler=Sampler(),
        track_gain=gains,
    )  # fmt: skip
    fit(tmp_path, own, module, loader(labelled_data()))
    assert own.history.groups == ["0", "1"]
    np.testing.assert_allclose(own.history["group_share"], [0.75, 0.25])
    # What the sampler makes of the exact denoiser of each class, whose variances these are.
    expected = np.stack([fixed_point(VARIANCE.numpy() * (g + 1) ** 2, Sampler()) for g in (0, 1)])
    np.testing.assert_allclose(own.history["group_variance"][-1], expected, rtol=1e-3)
    np.testing.assert_allclose(own.history.variance[-1], [0.75, 0.25] @ expected, rtol=1e-3)


def test_classes_need_their_number_and_a_denoiser_that_takes_them():
    module = Foreign()
    with pytest.raises(ValueError, match=r"an Adapter or takes labels as a third argument, pass `num_classes`"):
        find_classes(module, None, None, None, takes_labels=True)
    with pytest.raises(ValueError, match=r"needs a model that is conditioned on classes"):
        find_classes(module, None, None, 3, takes_labels=False)
    assert find_classes(module, None, None, 3, takes_labels=True).names == ("0", "1", "2")
    # What is given classifies, whatever the denoiser takes.
    classify = len
    assert find_classes(module, None, classify, 3, takes_labels=True).classify is classify


@pytest.mark.slow
def test_classes_of_a_diffusers_network(tmp_path):
    diffusers = pytest.importorskip("diffusers")

    class Conditional(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.unet = diffusers.UNet2DModel(
                sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 8), layers_per_block=1,
                norm_num_groups=4, num_class_embeds=3, down_block_types=("DownBlock2D",) * 2,
                up_block_types=("UpBlock2D",) * 2,
            )  # fmt: skip
            self.noise_scheduler = diffusers.DDPMScheduler(clip_sample=False)

        def training_step(self, batch, batch_idx):
            x, label = batch
            noise, t = torch.randn_like(x), torch.randint(0, 1000, (len(x),))
            return (self.unet(self.noise_scheduler.add_noise(x, noise, t), t, label).sample - noise).square().mean()

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), 1e-2)

    pl.seed_everything(0)
    data = TensorDataset(torch.randn(48, 1, 8, 8), torch.arange(48) % 3)
    own = tracker(
        denoiser="diffusers-epsilon",
        sampler=None,
        per_class=True,
        num_classes=3,
        num_samples=8,
        num_modes=4,
        track_gain=True,
    )
    fit(tmp_path, own, Conditional(), loader(data), max_steps=3)
    groups = own.history["group_variance"]
    assert own.history.groups == ["0", "1", "2"]
    assert groups.shape == (len(own.history), 3, 4)
    assert np.isfinite(groups).all()
    # Each under its own label: the embeddings of the classes differ.
    assert not np.allclose(groups[-1, 0], groups[-1, 1], rtol=1e-6)


# Functions that sample.


def sharpened(module, latents):
    """Not a denoiser at all."""
    return module.unet.weight * latents * torch.arange(1.0, DIM + 1) + 3


def test_a_function_that_samples_is_measured_by_its_samples(tmp_path):
    own = tracker(sampler=sharpened, num_samples=32)
    fit(tmp_path, own, Foreign(weight=0.5))
    latents = own.session.probe.latents.rows(0, 32)
    samples = 0.5 * latents * torch.arange(1.0, DIM + 1) + 3
    projected = own.basis.project(samples).double()
    np.testing.assert_allclose(own.history.variance[-1], projected.var(0, unbiased=False), rtol=1e-5)
    assert "samples of sharpened(module, latents)" in own.history.metadata["denoiser"]
    np.testing.assert_allclose(own.history.fixed_point, own.history.target)


def test_emergence_is_fitted_without_a_denoiser(tmp_path):
    own, fitter = tracker(sampler=sharpened, per_decade=10), EmergenceFitter(figures_per_decade=1)
    fit(tmp_path, [own, fitter], Foreign(weight=0.5), max_steps=10)
    assert (tmp_path / "spectral" / "emergence.csv").exists()
    assert fitter.result.measured_law("falling").count >= 0


REFUSED = {
    "a theory": (
        lambda: [tracker(sampler=sharpened), AnalyticOverlay(theory=THEORY)],
        ValueError,
        "AnalyticOverlay needs a denoiser, got a function as `sampler`",
    ),
    "another shape": (lambda: [tracker(sampler=lambda m, z: z[:, :2])], ValueError, r"shape of its input, \(16, 8\)"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_a_function_that_samples_cannot_do(tmp_path, what):
    make, error, message = REFUSED[what]
    run = trainer(tmp_path, make())
    with pytest.raises(error, match=message):
        run.fit(Foreign(), loader(gaussian()))
    assert run.global_step == 0


def test_gains_of_a_function_that_samples_are_refused():
    with pytest.raises(ValueError, match="`track_gain`"):
        tracker(sampler=sharpened, track_gain=True)


def test_samples_are_kept_on_the_cpu_whatever_the_function_returns():
    basis = PCABasis.from_moments(torch.zeros(DIM), torch.diag(VARIANCE))
    made = SpectralProbe(basis, "given", num_samples=8).generate(lambda z: z)
    assert isinstance(made, GeneratedSamples)
    assert {chunk.device.type for chunk in made.chunks.values()} == {"cpu"}


def test_data_of_the_tests_are_what_they_say():
    x = gaussian()
    torch.testing.assert_close((x.T @ x / len(x)).double(), torch.diag(VARIANCE), rtol=1e-5, atol=1e-6)
    assert examples().shape == (64, 8)
    assert isinstance(loader(), DataLoader)
