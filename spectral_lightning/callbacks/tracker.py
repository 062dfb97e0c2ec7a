"""Lightning callback that measures what a model has learnt so far, mode by mode."""

from __future__ import annotations

from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from torch.optim import Optimizer

from spectral_lightning.callbacks.base import SpectralCallback
from spectral_lightning.callbacks.training import LightningTraining
from spectral_lightning.diffusion.weights import Weights
from spectral_lightning.spectra import Basis, SpectralHistory
from spectral_lightning.spectra.reading import DataSource
from spectral_lightning.tracking import Output, Reference, Sampling, Schedule, Session, Settings, switched_off
from spectral_lightning.tracking.observers import CHARTS, charts
from spectral_lightning.tracking.settings import BasisChoice, DenoiserChoice

__all__ = ["SpectralTracker"]


class SpectralTracker(SpectralCallback):
    """Measures the variance of generated samples along modes of the data while a model trains.

    Before the first update, and then on a logarithmic schedule of updates, it samples from the model with one fixed set of
    latents and records the variance along every mode. The result is :attr:`history`, saved in every checkpoint and written
    to disk as it grows; loggers get a selection of modes as ``<name>/variance/mode_0001`` and so on. The data are read once
    for their mean and covariance, never through the training's own loader.

    Tracking leaves training unchanged, bit for bit. Several trackers with different names measure one training in several
    bases, and share samples if they draw the same ones. Steps are updates as counted by Lightning's ``global_step``. Cost:
    ``num_samples x sampler.evaluations`` network evaluations per measurement, shared by all ranks.

    Args:
        basis: ``"pca"``, ``"fourier"`` (single frequencies) or ``"patch"`` (5 x 5 pixels, circular); a recipe with other
            settings, such as ``FourierModes(bands=16)``; or a finished basis.
        denoiser: the denoiser, if it is not the module's ``denoise(z, sigma)``: a callable ``D(z, sigma)``; an
            :class:`~spectral_lightning.diffusion.Adapter`; the name of a convention, with the attribute path of the
            network, such as ``"diffusers-epsilon:unet"``; or the import path of a function ``f(module, z, sigma)``.
        data: the data whose spectrum is tracked, as the network sees them: a tensor ``[N, *S]``, a Dataset or a DataLoader; by
            default the dataset of the training dataloader, read through a separate loader.
        weights: ``"raw"``; ``"ema"`` (of Lightning, torch, diffusers, timm, ema-pytorch, or the module's ``ema_scope()``);
            or a callable that takes the module and returns a context in which it holds the weights to measure.
        per_class: whether to measure every class separately: under its label for a conditional model, else by classifying
            the samples, see ``reference``.
        on_error: ``"raise"``, or ``"skip"`` to skip a failed measurement and continue training.
        name: of this tracker; used for its directory and tags, and by observers to find it.
        sampling: number and kind of latents, sampler, condition, gains.
        schedule: measurements per decade of steps, and a limit on their cost.
        reference: how the data are read.
        output: directory, number of logged modes, figures.
        held_out: data that are not trained on, as the network sees them, for the loss over its linear floor; by default the
            first validation set, read like the training data.

    Raises:
        ValueError: for an argument out of range; when training starts, for data or a model that cannot be measured.
        TypeError: when training starts, for a module without a denoiser or data that cannot be read separately.
    """

    def __init__(
        self,
        basis: BasisChoice = "pca",
        denoiser: DenoiserChoice | None = None,
        data: DataSource | None = None,
        weights: Weights = "raw",
        per_class: bool = False,
        on_error: Literal["raise", "skip"] = "raise",
        name: str = "spectral",
        sampling: Sampling = Sampling(),
        schedule: Schedule = Schedule(),
        reference: Reference = Reference(),
        output: Output = Output(),
        held_out: DataSource | None = None,
    ) -> None:
        super().__init__()
        settings = Settings(
            basis, denoiser, data, weights, per_class, on_error, name, sampling, schedule, reference, output, held_out
        )
        self.session = Session(settings)
        for observer in charts(sampling):
            self.session.observe(observer)
        self._counted = -1

    @property
    def history(self) -> SpectralHistory | None:
        """The measurements so far; None before training starts."""
        return self.session.history

    @property
    def basis(self) -> Basis:
        """The modes of the data, known once training starts."""
        return self.session.basis

    @property
    def state_key(self) -> str:
        """Distinguishes several trackers in one checkpoint."""
        return f"SpectralTracker[{self.session.name}]"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Raise if the module cannot be measured, before computing anything."""
        if stage == "fit" and not switched_off():
            self.session.attach(LightningTraining("SpectralTracker", trainer, pl_module))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the data and measure the untrained model."""
        if switched_off():
            return
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        sessions = [c.session for c in callbacks if isinstance(c, SpectralTracker)]
        place, self._counted = sessions.index(self.session), -1
        # Drop observers from another Trainer that used this tracker before.
        self.session.observers = [o for o in self.session.observers if o in callbacks or isinstance(o, CHARTS)]
        self.session.start(sessions[:place], followed=sessions[-1] is not self.session)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Add the first optimizer's learning rate, once per update; LBFGS calls this several times in one update."""
        if optimizer is trainer.optimizers[0] and trainer.global_step != self._counted:
            self._counted = trainer.global_step
            self.session.count_update(optimizer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure if a measurement is due."""
        self.session.saw(batch)
        self.session.after_update()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Forget the remembered weights, which are about to change."""
        self.session.release_weights()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the weights; a callback may replace them with averages during validation."""
        if trainer.training:
            self.session.keep_weights()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the weights; a callback may permanently replace them with averages when training ends."""
        self.session.keep_weights()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the final weights and write the final files."""
        self.session.end()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save the measurements; no other hook runs after an exception."""
        self.session.fail()

    def state_dict(self) -> dict[str, Any]:
        """The whole history and the clock."""
        return self.session.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume from a checkpoint."""
        self.session.load_state_dict(state_dict)
