"""A training small enough to be run many times, by a module and a loop that know nothing of this package."""

import lightning.pytorch as pl
import torch
from matplotlib.figure import Figure
from torch import nn
from torch.utils.data import DataLoader

from spectral_lightning.callbacks import AnalyticOverlay, EmergenceFitter
from spectral_lightning.sampling import Sampler
from spectral_lightning.theory import Objective, OneLayer, Preconditioning
from tests.support.flat import flat_tracker

DIM = 8
SAMPLER = Sampler(num_steps=3)
THEORY = OneLayer(Objective(learning_rate=1e-3, preconditioning=Preconditioning("edm")))


def examples(count=64, dim=DIM, seed=0):
    """Gaussian rows with standard deviations from 3 down to 0.01."""
    noise = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))
    return noise * torch.logspace(0.5, -2, dim)


class Body(nn.Module):
    """Sees the scaled input and the logarithm of the noise level."""

    def __init__(self, dim=DIM, width=16, dropout=0.0, norm=False):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(dim + 1, width),
            nn.BatchNorm1d(width) if norm else nn.Identity(),
            nn.SiLU(),
            nn.Dropout(dropout),
            nn.Linear(width, dim),
        )

    def forward(self, z, sigma):
        s = sigma[:, None]
        return self.layers(torch.cat([z / (1 + s**2).sqrt(), s.log()], dim=1))


def own_module(base):
    """A user's own module on the LightningModule of either package."""

    class OwnModule(base):
        def __init__(self, body=None, frozen=None, momentum=0.0, weight_decay=0.0, scheduled=False, rate=0.01):
            super().__init__()
            self.body = Body() if body is None else body
            self.frozen = frozen
            if frozen is not None:
                frozen.eval().requires_grad_(False)
            self.options = {"lr": rate, "momentum": momentum, "weight_decay": weight_decay}
            self.scheduled = scheduled
            self.seen_frozen_training = []

        def denoise(self, z, sigma):
            clean = self.body(z, sigma)
            return clean if self.frozen is None else clean + 0.1 * self.frozen(clean)

        def training_step(self, batch, batch_idx):
            if self.frozen is not None:
                self.seen_frozen_training.append(self.frozen.training)
            x = batch[0] if isinstance(batch, list | tuple) else batch
            sigma = torch.rand(len(x), device=x.device) + 0.1
            noisy = x + sigma[:, None] * torch.randn_like(x)
            return (self.denoise(noisy, sigma) - x).square().mean()

        def validation_step(self, batch, batch_idx):
            self.log("val/loss", self.training_step(batch, batch_idx))

        def configure_optimizers(self):
            optimizer = torch.optim.SGD([p for p in self.parameters() if p.requires_grad], **self.options)
            if not self.scheduled:
                return optimizer
            scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 ** (step // 5))
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    return OwnModule


OwnModule = own_module(pl.LightningModule)


def tracker(**options):
    defaults = {"num_samples": 16, "sampler": SAMPLER, "per_decade": 3}
    return flat_tracker(**{**defaults, **options})


def three(**options):
    """All three callbacks."""
    name = options.get("name", "spectral")
    overlay = AnalyticOverlay(theory=THEORY, figures_per_decade=1, tracker=name)
    return [tracker(**options), overlay, EmergenceFitter(figures_per_decade=1, tracker=name)]


def trainer(path, callbacks=(), package=pl, **options):
    defaults = {
        "accelerator": "cpu",
        "devices": 1,
        "max_steps": 10,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": str(path),
        "callbacks": list(callbacks),
    }
    return package.Trainer(**{**defaults, **options})


def loader(data=None, **options):
    return DataLoader(examples() if data is None else data, **{"batch_size": 8, "shuffle": True, **options})


def blank_figure(*_args, **_options):
    """In place of the figures, which take most of the time and are tested on their own."""
    return Figure(figsize=(1, 1))


def without_drawing(monkeypatch):
    observers = "spectral_lightning.tracking.observers"
    for name in ("overlay.overlay_figure", "fitter.emergence_figure", "fitter.group_figure", "gain.gain_figure"):
        monkeypatch.setattr(f"{observers}.{name}", blank_figure)
