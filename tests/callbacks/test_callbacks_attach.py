"""A tracker on modules that know nothing of this package: their denoisers, samplers, data, and command lines."""

import json
import warnings

import lightning.pytorch as pl
import numpy as np
import pytest
import pytorch_lightning as other_pl
import torch
from lightning.pytorch.cli import LightningCLI
from pytorch_lightning.cli import LightningCLI as OtherCLI
from torch import nn

from spectral_lightning.callbacks import AnalyticOverlay, EmergenceFitter, SpectralTracker
from spectral_lightning.diffusion import Adapter
from tests.support.tiny_training import examples, fit, loader, own_module, tracker

DIM = 8
VARIANCE = torch.logspace(1, -3, DIM, dtype=torch.float64)
GRID = torch.cumprod(1 - torch.linspace(1e-4, 0.06, 200, dtype=torch.float64), 0)
PACKAGES = {"lightning": (pl, LightningCLI), "pytorch_lightning": (other_pl, OtherCLI)}


def gaussian(count=64):
    """A loader over rows whose second moments are exactly ``diag(VARIANCE)``."""
    q = torch.linalg.qr(torch.randn(count // 2, DIM, generator=torch.Generator().manual_seed(0)).double())[0]
    half = q * (count // 2) ** 0.5 * VARIANCE.sqrt()
    return loader(torch.cat([half, -half]).float())


class Epsilon(nn.Module):
    """E[eps | x] of diagonal Gaussian data for ``x = a x0 + s eps``, times one weight: trained at 1, with a sign at -1."""

    def __init__(self, weight=1.0, by_index=False):
        super().__init__()
        self.weight, self.by_index = nn.Parameter(torch.tensor(weight)), by_index

    def forward(self, x, t):
        a2 = (GRID[t] if self.by_index else 1 / (1 + t.double() ** 2))[:, None]
        return self.weight * ((1 - a2).sqrt() * x / (a2 * VARIANCE + 1 - a2)).to(x.dtype)


class Scheduler:
    alphas_cumprod = GRID


def foreign(base):
    """Somebody's own module on either package: no `denoise`, a network, a loss."""

    class Foreign(base):
        def __init__(self, weight: float = 1.0, by_index: bool = False):
            super().__init__()
            self.unet, self.noise_scheduler = Epsilon(weight, by_index), Scheduler()

        def clean(self, z, sigma):
            return z - sigma[:, None] * self.unet(z / (1 + sigma[:, None] ** 2).sqrt(), sigma)

        def training_step(self, batch, batch_idx):
            t = torch.randint(0, 200, (len(batch),)) if self.unet.by_index else torch.rand(len(batch)) + 0.1
            return (self.unet(batch, t) - batch).square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.0)

        def train_dataloader(self):
            return gaussian()

    return Foreign


Foreign = foreign(pl.LightningModule)


class Own(Foreign):
    def denoise(self, z, sigma):
        return self.clean(z, sigma)


def by_name(module, z, sigma):
    """What an import path leads to."""
    return module.clean(z, sigma)


BY_SIGMA, BY_INDEX = (
    Adapter("affine", "unet", prediction="epsilon", time="sigma"),
    Adapter("diffusers-epsilon", output=""),
)
WAYS = {  # module, denoiser, what is said, the theory's preconditioning
    "adapter": (
        Foreign,
        lambda m: BY_SIGMA,
        "affine: unet(x, time) predicts epsilon, time sigma",
        "variance_preserving",
    ),
    "callable": (Foreign, lambda m: m.clean, "clean(z, sigma)", "edm"),
    "import path": (Foreign, lambda m: f"{__name__}:by_name", ":by_name(module, z, sigma)", "edm"),
    "a grid": (lambda: Foreign(by_index=True), lambda m: BY_INDEX, "diffusers-epsilon: unet", "variance_preserving"),
    "own method": (Own, lambda m: None, "Own.denoise(z, sigma)", "edm"),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_the_denoiser_measures_the_same_and_says_which(tmp_path, monkeypatch, way):
    said = []
    monkeypatch.setattr("spectral_lightning.callbacks.training.rank_zero_info", said.append)
    make, given, line, kind = WAYS[way]
    module = make()
    own, overlay = tracker(denoiser=given(module), sampler=None), AnalyticOverlay()
    fit(tmp_path, [own, overlay], module, gaussian(), max_steps=2)
    (text,) = [text for text in said if text.startswith("SpectralTracker: ")]
    assert line in text
    assert own.history.metadata["denoiser"] in text
    # The exact denoiser under each sampler: what it makes of the data's variances is known. Float32 networks.
    np.testing.assert_allclose(own.history.variance[-1], own.history.fixed_point, rtol=1e-4)
    np.testing.assert_allclose(own.history.target, VARIANCE, rtol=1e-5)
    # The overlay needs no argument, and says what it assumed.
    assert np.isfinite(overlay.history.variance).all()
    assert "derived" in overlay.departures[0].text
    assert f"'{kind}'" in repr(overlay.predicted.natural.dynamics)


BACKWARDS = Adapter("affine", "unet", prediction="epsilon", time="sigma", reverse_time=True)


@pytest.mark.parametrize(
    ("weight", "adapter", "message"),
    [(-1.0, BY_SIGMA, "sign|output_scale"), (1.0, BACKWARDS, "time|reverse")],
    ids=["the sign", "the time"],
)
def test_a_trained_model_read_in_the_wrong_way_is_refused_before_it_trains(tmp_path, weight, adapter, message):
    with pytest.raises(ValueError, match=message):
        fit(tmp_path, [tracker(denoiser=adapter, sampler=None, num_samples=64)], Foreign(weight), gaussian())
    assert list(tmp_path.iterdir()) == []


class Learns(pl.Callback):
    """An untrained network learns at once; with the opposite sign if it is -1."""

    def __init__(self, weight):
        self.weight = weight

    def on_train_batch_start(self, trainer, module, *_args):
        if trainer.global_step == 50:
            module.unet.weight.data.fill_(self.weight)


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_wrong_reading_found_in_a_training_is_reported_and_stops_nothing(tmp_path, on_error):
    own = tracker(denoiser=BY_SIGMA, sampler=None, num_samples=64, per_decade=1, on_error=on_error)
    with pytest.warns(UserWarning, match=r"step 100 .*`denoiser`"):
        run = fit(tmp_path, [Learns(-1.0), own], Foreign(0.0), gaussian(), max_steps=102)
    assert run.global_step == own.history.last_step == 102
    assert own.session.errors.failures == []


def test_a_right_reading_is_never_doubted(tmp_path):
    own = tracker(denoiser=BY_SIGMA, sampler=None, num_samples=64, per_decade=1)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*probably not the model")
        fit(tmp_path, [Learns(1.0), own], Foreign(0.0), gaussian(), max_steps=102)


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("named", [True, False])
def test_settings_in_yaml_through_either_command_line(tmp_path, package, named):
    fields = {"convention": "affine", "network": "unet", "prediction": "epsilon", "time": "sigma"}
    adapter = {"class_path": "spectral_lightning.diffusion.Adapter", "init_args": fields}
    groups = {"sampling": {"num_samples": 16}, "schedule": {"per_decade": 3, "max_overhead": 100.0}}
    init = {"denoiser": f"{__name__}:by_name" if named else adapter, **groups, "output": {"figures": False}}
    config = {
        "trainer": {
            "accelerator": "cpu", "devices": 1, "max_steps": 2, "logger": False, "enable_checkpointing": False,
            "enable_progress_bar": False, "enable_model_summary": False, "default_root_dir": str(tmp_path),
            "callbacks": [{"class_path": "spectral_lightning.callbacks.SpectralTracker", "init_args": init}],
        }
    }  # fmt: skip
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps(config))  # JSON is YAML
    base, cli = PACKAGES[package]
    done = cli(foreign(base.LightningModule), args=["fit", f"--config={file}"], save_config_callback=None)
    (own,) = [c for c in done.trainer.callbacks if isinstance(c, SpectralTracker)]
    assert own.history.steps.tolist() == [0, 1, 2]
    np.testing.assert_allclose(own.history.variance[-1], own.history.fixed_point, rtol=1e-4)


def sharpened(module, latents):
    """Samples, and is not a denoiser at all."""
    return module.unet.weight * latents * torch.arange(1.0, DIM + 1) + 3


def test_a_function_that_samples_is_measured_by_its_samples(tmp_path):
    own, fitter = tracker(sampler=sharpened, num_samples=32), EmergenceFitter()
    fit(tmp_path, [own, fitter], Foreign(0.5), gaussian(), max_steps=2)
    samples = 0.5 * own.session.probe.latents.rows(0, 32) * torch.arange(1.0, DIM + 1) + 3
    projected = own.basis.project(samples).double()
    np.testing.assert_allclose(own.history.variance[-1], projected.var(0, unbiased=False), rtol=1e-5)
    assert "sharpened" in own.history.metadata["denoiser"]
    np.testing.assert_allclose(own.history.fixed_point, own.history.target)
    assert (tmp_path / "spectral" / "emergence.csv").exists()


# Data on their way to the network.


HOOKS = ["on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer"]


def scaling(base, factor, hooks=HOOKS):
    """Multiplies the data on their way to the device, as a normalisation or an augmentation there, in every hook."""
    return type("Scaling", (base,), {hook: lambda self, batch, *_: factor * batch for hook in hooks})


def variances(rows):
    """Eigenvalues of the covariance, the largest first."""
    return np.linalg.eigvalsh(np.cov(rows.double().numpy().T, bias=True))[::-1]


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("owner", ["module", "datamodule", "both"])
def test_what_happens_on_the_way_to_the_network_is_in_the_spectrum(tmp_path, package, owner):
    base, _ = PACKAGES[package]
    data = type("Data", (base.LightningDataModule,), {"train_dataloader": lambda self: loader()})
    module, factor = own_module(base.LightningModule), 2 if owner == "module" else 3
    if owner != "datamodule":
        module = scaling(module, 2)
    if owner != "module":
        data = scaling(data, 3)  # as in Lightning, the datamodule's hooks stand in for the module's
    own, given = tracker(), tracker(name="given", data=examples())
    fit(tmp_path, [own, given], module(), data(), package=base, max_steps=1)
    np.testing.assert_allclose(own.history.target, variances(factor**3 * examples()), rtol=1e-5)
    # What is given is as the network sees it already.
    np.testing.assert_allclose(given.history.target, variances(examples()), rtol=1e-5)


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_acts_alone_too(tmp_path, hook):
    own = tracker()
    fit(tmp_path, [own], scaling(own_module(pl.LightningModule), 2, [hook])(), max_steps=1)
    np.testing.assert_allclose(own.history.target, variances(2 * examples()), rtol=1e-5)
