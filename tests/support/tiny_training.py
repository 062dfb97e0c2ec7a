"""A training small enough to be run many times, by a module and a loop that know nothing of this package."""

import lightning.pytorch as pl
import torch
from matplotlib.figure import Figure
from torch import nn
from torch.utils.data import DataLoader

from spectral_lightning.callbacks import AnalyticOverlay, EmergenceFitter
from spectral_lightning.sampling import Sampler
from tests.support.flat import flat_tracker, one_layer

DIM = 8
SAMPLER = Sampler(num_steps=3)
THEORY = one_layer()


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


class Repeatable(OwnModule):
    """The noise of a step depends on nothing but the step, so that a resumed training is the uninterrupted one."""

    def training_step(self, batch, batch_idx):
        generator = torch.Generator().manual_seed(self.trainer.global_step)
        sigma = torch.rand(len(batch), generator=generator) + 0.1
        noise = torch.randn(batch.shape, generator=generator)
        return (self.denoise(batch + sigma[:, None] * noise, sigma) - batch).square().mean()


def repeatable(make=Repeatable, rate=0.1):
    """The same weights every time."""
    torch.manual_seed(7)
    return make(rate=rate)


def whole_batch():
    """One batch per epoch, always the same."""
    return loader(examples(), batch_size=64, shuffle=False)


def tracker(**options):
    defaults = {"num_samples": 16, "sampler": SAMPLER, "per_decade": 3, "figures": False}
    return flat_tracker(**{**defaults, **options})


def three(clock="auto", figures_per_decade=1, **options):
    """All three callbacks."""
    name = options.get("name", "spectral")
    overlay = AnalyticOverlay(THEORY, clock, figures_per_decade=figures_per_decade, tracker=name)
    return [tracker(**options), overlay, EmergenceFitter(figures_per_decade=figures_per_decade, tracker=name)]


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


def fit(path, callbacks=(), module=None, data=None, val=None, ckpt_path=None, **options):
    """The Trainer after training, from one seed, ``module`` or :class:`OwnModule` on ``data`` or :func:`loader`."""
    pl.seed_everything(11, verbose=False)
    run = trainer(path, callbacks, **options)
    run.fit(OwnModule() if module is None else module, loader() if data is None else data, val, ckpt_path=ckpt_path)
    return run


def values(module):
    """A copy of everything in the module's state."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def same(first, second):
    """Whether two modules, or copies of their states, are equal to the bit."""
    a, b = (one if isinstance(one, dict) else one.state_dict() for one in (first, second))
    return list(a) == list(b) and all(torch.equal(a[key], b[key]) for key in a)


def files(path):
    return {file.name for file in path.rglob("*") if file.is_file()}


def blank_figure(*_args, **_options):
    """In place of the figures, which take most of the time and are tested on their own."""
    return Figure(figsize=(1, 1))


def draw_blanks(monkeypatch, draw=blank_figure):
    for name in (
        "overlay.overlay_figure",
        "fitter.emergence_figure",
        "fitter.group_figure",
        "gain.gain_figure",
        "floor.floor_figure",
    ):
        monkeypatch.setattr(f"spectral_lightning.tracking.observers.{name}", draw)
