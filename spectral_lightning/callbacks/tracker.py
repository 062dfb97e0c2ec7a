"""The measurement inside a training: what has been learnt so far, mode by mode."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.optim import Optimizer

from spectral_lightning.arguments import positive_integer
from spectral_lightning.callbacks.base import SpectralCallback, switched_off
from spectral_lightning.callbacks.partner import Partner
from spectral_lightning.diffusion import Adapter, Denoiser, Latents
from spectral_lightning.diffusion.weights.find import Weights
from spectral_lightning.report import LoggerSinks, RunFiles
from spectral_lightning.sampling import Sampler
from spectral_lightning.spectra import (
    Basis,
    BasisRecipe,
    SpectralHistory,
    SpectralProbe,
    VectorBasis,
    chosen_recipe,
    current_ranks,
)
from spectral_lightning.spectra.reading import DataSource
from spectral_lightning.tracking.budget import Budget
from spectral_lightning.tracking.classes import Classes, check_null_class, find_classes
from spectral_lightning.tracking.cost import Cost
from spectral_lightning.tracking.errors import Tolerance
from spectral_lightning.tracking.instrument import Instrument
from spectral_lightning.tracking.model import MeasuredModel, SampleFunction
from spectral_lightning.tracking.reference.basis import Reference
from spectral_lightning.tracking.results import TrackerResults
from spectral_lightning.tracking.schedule import LogSchedule
from spectral_lightning.tracking.session import TrackedRun

__all__ = ["SpectralTracker"]


class SpectralTracker(SpectralCallback):
    """Measures the variance of generated samples along modes of the data while a model trains.

    At the start it reads the data once (never through the training's own loader) for their mean and covariance. Then,
    before the first update and on a logarithmic schedule of updates, it samples from the model with one fixed set of
    latents and records the variance along every mode. The table is :attr:`history`; it is in every checkpoint, on disk
    as it grows, and a readable selection of modes goes to every logger at ``<name>/variance/mode_0001`` and so on.

    The modes are the eigenmodes of the data's covariance, its Fourier modes or the components of its patches (``basis``).
    Several trackers, each with a ``name`` of its own, look at one training in several bases; those with the same latents,
    sampler and denoiser share their samples where they measure at the same step.

    Beside sampling, ``track_gain`` measures the denoiser itself: its gain along every mode at every noise level of the
    sampler, one evaluation per level. ``per_class`` measures every class by itself, as groups of the history.

    A step is an update as Lightning's ``global_step`` counts them: with several optimizers the updates of each. The
    cumulative learning rate is the sum, over the updates of the first optimizer, of the rate of its first group.

    The training is not changed by it: no draw from a global generator, no use of its loader, every mode and weight put
    back, compiled networks run as they are without another graph. An error while measuring is agreed on by all ranks and,
    with ``on_error="skip"``, reported and left behind; samples that are not finite are counted and shown, and where none
    is finite the variances are NaN.

    Cost: ``num_samples x sampler.evaluations`` evaluations of the network per measurement, shared by all ranks, and
    about ``per_decade`` measurements per factor of ten in steps; times the number of classes for a model conditioned on
    them under ``per_class``; ``num_samples x`` levels more with ``track_gain``.

    Args:
        num_modes: leading modes to track, of those with a name in ``basis``; all where it is None.
        basis: ``"pca"``, ``"fourier"`` (single frequencies) or ``"patch"`` (5 x 5 pixels, circular); a recipe with
            settings of its own, such as ``FourierModes(bands=16)``; or a basis that was made before.
        track_gain: whether to measure the denoiser's gains too.
        per_class: whether to measure every class apart: under its label for a model conditioned on classes, or a
            ``denoiser`` that takes labels where ``num_classes`` is given; else by ``classify``, or the datamodule's
            ``classify``.
        classify: says to which class, from 0, each sample of a batch ``[B, *S]`` belongs.
        num_classes: how many classes ``classify`` tells apart, the datamodule's where it knows; or how many labels the
            ``denoiser`` takes.
        label_key: name or position of the labels in a batch; the second element by default.
        num_samples: latents per measurement; a multiple of twice the dimension makes a linear denoiser exact.
        sampler: the discrete sampler; the module's own ``sampler`` where it has one, else 18 Heun steps over the
            denoiser's noise levels, on its own grid where it has a grid. For anything that is not a denoiser: a
            function ``f(module, latents [B, *S]) -> samples [B, *S]`` of standard normal latents; there is no theory and
            there are no gains then.
        per_decade: measurements per factor of ten in optimizer updates.
        data: what to take the moments of, as the network sees it: a tensor ``[N, *S]``, a Dataset or a DataLoader; by
            default the dataset of the training dataloader, read through a loader of the tracker's own.
        batch_key: name or position of the examples in a batch, where a batch is not a tensor.
        transform: applied to a batch of examples before its moments are taken, such as the encoder of latent diffusion; a
            callable, or the name of a method of the module, which gets the batch on the module's device.
        moments: ``"sample"``, those of the training data, or ``"population"``, those the datamodule knows.
        max_reference_samples: the most examples read for the moments, evenly spread over the data.
        denoiser: where the denoiser is, if not in the module's own ``denoise(z, sigma)``: a callable ``D(z, sigma)``; an
            :class:`~spectral_lightning.diffusion.Adapter`; the name of a convention, with the attribute path of the
            network, such as ``"diffusers-epsilon:unet"``; or the import path of a function ``f(module, z, sigma)``.
        weights: ``"raw"``, ``"ema"`` (of Lightning, torch, diffusers, timm, ema-pytorch, or the module's ``ema_scope()``),
            or a callable that takes the module and returns a context in which it holds the weights to measure.
        condition: rows ``[n, ...]`` for a conditional denoiser ``D(z, sigma, condition)``, bound to the latents' indices:
            the same latent is always sampled under the same row.
        on_error: ``"raise"``, or ``"skip"`` a measurement that fails and go on training.
        max_overhead: the most time measuring may take, as a share of the training's; the schedule is thinned to keep
            within it, and says so. No limit where it is None.
        latents: ``"orthogonal"`` or ``"independent"``.
        seed: of the latents.
        sample_batch_size: the most samples that go through the network at once.
        log_modes: how many modes to send to the loggers; all of them are in the files.
        dirpath: where the directory ``name`` with the results goes; the logger's directory by default.
        name: of this tracker: its directory, its tags, and what partners call it.

    Raises:
        ValueError: for an argument out of range; when training starts, for data or a model that cannot be measured.
        TypeError: when training starts, for data that cannot be read apart from the training.

    Example:
        >>> SpectralTracker(num_modes=0)
        Traceback (most recent call last):
            ...
        ValueError: `num_modes` must be a positive integer, got 0.
    """

    def __init__(
        self,
        num_modes: int | None = None,
        num_samples: int = 1024,
        sampler: Sampler | SampleFunction | None = None,
        per_decade: int = 10,
        data: DataSource | None = None,
        batch_key: int | str | None = None,
        transform: Callable[[Tensor], Tensor] | str | None = None,
        moments: Literal["sample", "population"] = "sample",
        max_reference_samples: int = 100_000,
        # In this order, or the command line takes every path for a callable.
        denoiser: str | Adapter | Denoiser | None = None,
        latents: Literal["orthogonal", "independent"] = "orthogonal",
        seed: int = 0,
        sample_batch_size: int = 512,
        log_modes: int = 16,
        dirpath: str | None = None,
        name: str = "spectral",
        basis: Literal["pca", "fourier", "patch"] | BasisRecipe | VectorBasis = "pca",
        track_gain: bool = False,
        per_class: bool = False,
        classify: Callable[[Tensor], Tensor] | None = None,
        num_classes: int | None = None,
        label_key: int | str | None = None,
        weights: Weights = "raw",
        condition: Tensor | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        max_overhead: float | None = None,
    ) -> None:
        super().__init__()
        self.num_modes = None if num_modes is None else positive_integer("num_modes", num_modes)
        Latents(num_samples, 1, latents, seed)  # raises for what no dimension makes right
        self.num_samples, self.latents, self.seed = num_samples, latents, seed
        self.model = MeasuredModel(denoiser, weights, sampler, condition)
        self.tolerance = Tolerance(name, on_error)
        self.budget = Budget(max_overhead)
        self.schedule = LogSchedule(per_decade)
        self.reference = Reference(data, batch_key, label_key, transform, moments, max_reference_samples)
        self.sample_batch_size = positive_integer("sample_batch_size", sample_batch_size)
        self.log_modes = positive_integer("log_modes", log_modes)
        self.dirpath = dirpath
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise ValueError(f"`name` must be a plain, non-empty word, got {name!r}. It names a directory and tags.")
        self.name = name
        self.recipe = chosen_recipe(basis, self.num_modes)
        self.track_gain = track_gain
        if not per_class and classify is not None:
            raise ValueError("`classify` is used with per_class=True only. Set it, or leave `classify` out.")
        self.per_class, self.classify = per_class, classify
        self.num_classes = None if num_classes is None else positive_integer("num_classes", num_classes)

        self.history: SpectralHistory | None = None
        self.cost = Cost()
        self._cumulative_learning_rate = 0.0
        self._restored: dict[str, Any] = {}
        self._partners: list[Partner] = []
        self._run: TrackedRun | None = None
        self._tried, self._counted = 0, -1

    # What partners use.

    def subscribe(self, partner: Partner) -> None:
        """Notify ``partner`` of every measurement, after those of lower ``order``."""
        if partner not in self._partners:
            self._partners = sorted([*self._partners, partner], key=lambda p: (p.order, p.state_key))

    @property
    def run(self) -> TrackedRun:
        """The training that is followed: how it is measured, and where the results go; known once it starts."""
        if self._run is None:
            raise RuntimeError("`SpectralTracker.run` is known once training starts.")
        return self._run

    @property
    def probe(self) -> SpectralProbe:
        """Basis, sampler and latents of the measurements, known once training starts."""
        return self.run.probe

    @property
    def basis(self) -> Basis:
        """The modes of the data, known once training starts."""
        return self.probe.basis

    @property
    def measured(self) -> SpectralHistory:
        """The history, once there is one."""
        if self.history is None:
            raise RuntimeError("`SpectralTracker.history` is known once training starts.")
        return self.history

    @property
    def prediction(self) -> SpectralHistory | None:
        """The theory's table, where a partner makes one."""
        return None if self._run is None else self._run.prediction

    @property
    def sinks(self) -> LoggerSinks:
        """The loggers; none but on rank 0."""
        return self.run.results.sinks

    @property
    def files(self) -> RunFiles | None:
        """Where results are written; None where nothing is, as on other ranks and under ``fast_dev_run``."""
        return None if self._run is None else self._run.results.files

    @property
    def shown_modes(self) -> list[int]:
        """The modes sent to loggers and drawn, evenly spread over the logarithm of their rank; no null modes."""
        return self.run.results.shown_modes

    def tag(self, kind: str, mode: int) -> str:
        """The logger's tag of one mode (counted from 0; tags count from 1 and sort as text)."""
        return self.run.results.tag(kind, mode)

    def gain_along(self, basis: Basis, pl_module: LightningModule) -> Tensor:
        """Gain of the denoiser as it is now along the modes of another basis, ``[level, mode]``. Every rank has to call it."""
        return self.run.gain_along(basis, pl_module)

    # Lightning's hooks.

    @property
    def state_key(self) -> str:
        """Tells several trackers apart in a checkpoint."""
        return f"SpectralTracker[{self.name}]"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a module that cannot be measured before anything is computed."""
        if stage == "fit" and not switched_off():
            if trainer.global_step == 0:  # a checkpoint to go on from is loaded after this hook
                self._restored, self.cost = {}, Cost()
            else:
                self.load_state_dict(self.state_dict())
            self.cost.begin()
            self.model.attach(pl_module, trainer.callbacks)  # type: ignore[attr-defined]
            if self.track_gain and self.model.samples_itself:
                raise ValueError("`track_gain` needs a denoiser, got a function as `sampler`. Leave `track_gain` out.")
            if self.per_class:
                self._classes(trainer, pl_module)
            if self.model.condition is None and (self.track_gain or not self.per_class):
                check_null_class(pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the data, make the basis, open the files and measure the untrained model."""
        if switched_off():
            return
        self.model.check_whole(pl_module)
        if trainer.global_step == 0 and not self._restored:
            self.history, self._cumulative_learning_rate, self.tolerance.failures = None, 0.0, []
        # Those of another Trainer that this tracker served before.
        self._partners = [p for p in self._partners if p in trainer.callbacks]  # type: ignore[attr-defined]
        run, fresh = self._new_run(trainer, pl_module), self.history is None
        self.history = run.begin(pl_module, self.history, moments=self.reference.moments)
        self._tried = max(self.history.last_step or 0, int(self._restored.get("tried", 0)))
        self._run, self._counted = run, -1
        run.open(trainer, pl_module, self.dirpath, self._restored.get("directory"))
        if fresh:
            self._measure(trainer, pl_module)
            self._announce()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Add up the learning rates of the updates, of the first optimizer where there are several."""
        if len(trainer.optimizers) > 1 and optimizer is not trainer.optimizers[0]:
            return
        # An optimizer that evaluates the loss several times, as LBFGS does, calls this as often in one update.
        if trainer.global_step != self._counted:
            self._counted = trainer.global_step
            self._cumulative_learning_rate += float(optimizer.param_groups[0]["lr"])

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure where the schedule was crossed since the last measurement."""
        if self.history is None or switched_off():
            return
        last, step = max(self._tried, self.history.last_step or 0), trainer.global_step
        if step > last and self.schedule.due(last, step):
            self._tried = step
            if self.budget.affords(trainer, self.schedule, self.cost, self.probe.ranks):
                self._measure(trainer, pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Weights that were kept for a moment without them may go."""
        if self.history is not None and not switched_off():
            self.model.weights.release()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the weights, where a callback may put averages in their place while it validates."""
        if self.history is not None and trainer.training and not switched_off():
            self.model.weights.keep(pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the weights, where a callback puts averages in their place for good when training ends."""
        if self.history is not None and not switched_off():
            self.model.weights.keep(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the final weights, and write everything that is written once."""
        if self.history is None or switched_off():
            return
        if trainer.global_step > (self.history.last_step or 0):
            self._measure(trainer, pl_module, final=True)
        self.model.weights.release()
        self.run.finish(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Keep what was measured; no other hook runs after an exception, and no rank may wait for another."""
        if self.history is not None and self._run is not None and not switched_off():
            self._run.finish(trainer, failed=True)

    def state_dict(self) -> dict[str, Any]:
        """The whole history and the clock; eigenvectors stay on disk."""
        if self.history is None:
            return {}
        return {
            "history": self.history.state_dict(),
            "cumulative_learning_rate": self._cumulative_learning_rate,
            "cost": self.cost.state_dict(),
            "failures": self.tolerance.state(),
            "tried": self._tried,
            "directory": None if self.files is None else str(self.files.path),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint; a row measured only because that training ended is dropped."""
        if "history" not in state_dict:
            return
        self._restored = state_dict
        self.history = SpectralHistory.from_state_dict(state_dict["history"])
        self.history.drop_final()
        self._cumulative_learning_rate = float(state_dict.get("cumulative_learning_rate", 0.0))
        self.cost.load_state_dict(state_dict.get("cost", {}))
        self.tolerance.load_state(state_dict.get("failures", []))

    # The parts.

    def _classes(self, trainer: Trainer, pl_module: LightningModule) -> Classes:
        datamodule = getattr(trainer, "datamodule", None)
        return find_classes(pl_module, datamodule, self.classify, self.num_classes, self.model.takes_labels)

    def _new_run(self, trainer: Trainer, pl_module: LightningModule) -> TrackedRun:
        """What follows this training, with the samples of the trackers before this one at hand."""
        instrument = self._instrument(trainer, pl_module)
        results = TrackerResults(self.name, instrument.probe.basis, self.log_modes)
        trackers = [c for c in trainer.callbacks if isinstance(c, SpectralTracker)]  # type: ignore[attr-defined]
        earlier, followed = [other.run for other in trackers[: trackers.index(self)]], trackers[-1] is not self
        return TrackedRun(
            self.name, self.model, instrument, results, self._partners, self.tolerance, self.cost, earlier, followed
        )

    def _instrument(self, trainer: Trainer, pl_module: LightningModule) -> Instrument:
        """What measures: read from the data, or what the checkpoint says of them."""
        ranks, groups = current_ranks(pl_module.device), None
        with self.cost.of("reference"):
            directory = self._restored.get("directory")
            basis = self.reference.basis(trainer, pl_module, self.recipe, ranks, self.history, directory)
            if self.per_class:
                classes = self._classes(trainer, pl_module)
                groups = self.reference.groups(trainer, pl_module, classes, basis, ranks, self.history)
        sampler = self.model.sampler(pl_module)
        probe = SpectralProbe(basis, sampler, self.num_samples, self.latents, self.seed, self.sample_batch_size, ranks)
        return Instrument(probe, groups, self.track_gain)

    def _measure(self, trainer: Trainer, pl_module: LightningModule, final: bool = False) -> None:
        self.run.measure(trainer, pl_module, final, cumulative_learning_rate=self._cumulative_learning_rate)

    def _announce(self) -> None:
        instrument, cost = self.run.instrument, self.cost
        where = "nowhere" if self.files is None else str(self.files.path)
        rank_zero_info(
            f"SpectralTracker: {self.model.description}; {self.model.weights.describe()}; {instrument.describe()}. Reference "
            f"{cost.seconds['reference']:.1f} s; a measurement takes {cost.each:.2g} s ({instrument.evaluations} evaluations), "
            f"{self.schedule.per_decade} of them per factor of ten in steps. Results in {where}"
        )
