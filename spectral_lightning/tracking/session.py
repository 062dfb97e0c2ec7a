"""One training as a tracker follows it: what is measured, and what becomes of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from spectral_lightning.callbacks.partner import Partner
from spectral_lightning.report import gain_figure
from spectral_lightning.spectra import Basis, GeneratedSamples, ModeStatistics, SpectralHistory, SpectralProbe
from spectral_lightning.tracking.cost import Cost
from spectral_lightning.tracking.errors import Tolerance, together
from spectral_lightning.tracking.first_look import checked, rechecked, untrained_gain
from spectral_lightning.tracking.instrument import Instrument, Subject
from spectral_lightning.tracking.model import MeasuredModel
from spectral_lightning.tracking.results import TrackerResults
from spectral_lightning.tracking.schedule import LogSchedule
from spectral_lightning.tracking.signals import deferred_signals

__all__ = ["TrackedRun"]


class TrackedRun:
    """Measures a model whenever it is told to, and passes on what it finds: to history, files, loggers and partners.

    Every rank has to call every method.

    Args:
        name: of the tracker.
        model: what is measured.
        instrument: what measures.
        results: files and loggers.
        partners: whom to notify of every measurement, in this order.
        tolerance: what becomes of errors.
        cost: the account of the time it takes.
        earlier: runs of the trackers before this one, whose samples may be used.
        followed: whether there is a tracker after this one, which may use the samples of this run.
    """

    def __init__(
        self,
        name: str,
        model: MeasuredModel,
        instrument: Instrument,
        results: TrackerResults,
        partners: Sequence[Partner],
        tolerance: Tolerance,
        cost: Cost,
        earlier: Sequence[TrackedRun] = (),
        followed: bool = False,
    ) -> None:
        self.name, self.model, self.instrument, self.results = name, model, instrument, results
        self.partners, self.tolerance, self.cost = partners, tolerance, cost
        self.earlier, self.followed = earlier, followed
        self.gain_figures = LogSchedule(2)
        self._gain_drawn = 0
        self._history: SpectralHistory | None = None
        self._generated: tuple[int, list[GeneratedSamples]] | None = None

    @property
    def probe(self) -> SpectralProbe:
        """Basis, sampler and latents of the measurements."""
        return self.instrument.probe

    @property
    def history(self) -> SpectralHistory:
        """The measurements so far, known once the run has begun."""
        if self._history is None:
            raise RuntimeError("`TrackedRun.history` is known once the run has begun.")
        return self._history

    @property
    def prediction(self) -> SpectralHistory | None:
        """The theory's table, where a partner makes one."""
        return next((p.prediction for p in self.partners if p.prediction is not None), None)

    @property
    def key(self) -> Hashable:
        """Equal for runs that generate the same samples at the same step of one training."""
        return self.instrument.key, self.model.key

    def begin(self, module: LightningModule, history: SpectralHistory | None, **about: Any) -> SpectralHistory:
        """Look at the model before anything depends on it.

        Args:
            module: that trains.
            history: to go on with; None to begin one with the gain the model has now.
            about: metadata of a history that begins.

        Raises:
            TypeError, ValueError: for a denoiser that cannot be measured, or is read in the wrong way.
        """
        with self.cost.of("sampling"):
            sums = together(self.probe.ranks, partial(self._first_look, module, history is None))
            gain = None if sums is None else untrained_gain(self.probe, sums)
        if history is None:
            read = {"denoiser": self.model.description, "weights": self.model.weights.describe()}
            history = self.instrument.history(gain, **read, **about)
        self._history, self._gain_drawn = history, history.last_step or 0
        return history

    def _first_look(self, module: LightningModule, fresh: bool) -> Tensor | None:
        with self.model.held(module) as subject:
            checked(self.instrument, subject)
            if not fresh or self.probe.sampler is None:
                return None
            return self.instrument.first_gain_sums(subject)

    def open(self, trainer: Trainer, module: LightningModule, dirpath: str | None, resumed: str | None) -> None:
        """Open the files, with what there is of the history, and let the partners begin.

        Args:
            trainer: that trains.
            module: that it trains.
            dirpath: where the directory with the results goes; the logger's directory if None.
            resumed: directory of the run that is gone on with.
        """
        ranks, step = self.probe.ranks, trainer.global_step
        self.results.open(trainer, dirpath, resumed, self.history.groups, self.partners)
        self.tolerance.each(ranks, step, {"writing": self._keep})
        for partner in self.partners:
            partner.on_tracking_start(trainer, module)
        self.tolerance.each(ranks, step, {"the charts' layout": self.results.sinks.write_layout})
        self.cost.ready()

    @deferred_signals()
    def measure(self, trainer: Trainer, module: LightningModule, final: bool, **known: Any) -> None:
        """Measure once, and tell everybody.

        Args:
            trainer: that trains.
            module: that it trains.
            final: whether it is measured only because the training ends.
            known: further fields of the row.
        """
        step, ranks = trainer.global_step, self.probe.ranks
        known = {"seconds": self.cost.training, "final": final, **known}
        with self.cost.of("sampling"):
            share = self.tolerance.agreed(ranks, step, partial(self._share, trainer, module))
            if share is None:
                return
            row = self.instrument.row(*share, step, **known)
        self.history.append(**row)
        self.cost.count += 1
        if row["non_finite"]:
            warnings.warn(
                f"{row['non_finite']} of {row['num_samples']} samples at step {row['step']} held NaN or infinity and were "
                "left out of the variances.",
                stacklevel=2,
            )
        headline = {f"{self.name}/{key}": float(row[key]) for key in ("alignment", "non_finite")}
        trainer.callback_metrics.update({key: torch.tensor(value) for key, value in headline.items()})
        parts: dict[str, Callable[[], Any]] = {"writing": self._keep, "logging": partial(self._log, headline)}
        parts |= {p.state_key: partial(p.on_measurement, trainer, module) for p in self.partners}
        if self.instrument.track_gain and (final or self.gain_figures.due(self._gain_drawn, step)):
            parts["the figure of the gains"] = partial(self._draw_gain, step)
        self.tolerance.each(ranks, step, parts)

    def _share(self, trainer: Trainer, module: LightningModule) -> tuple[list[ModeStatistics], Tensor | None]:
        """All that this rank does alone, and may fail at alone."""
        step = trainer.global_step
        with self.model.held(module) as subject:
            samples = self._samples(step, subject)
            sums, gain_sums = self.instrument.sums(samples), self.instrument.gain_sums(subject)
            if not any(int(part.non_finite) for part in sums):  # what is broken has no convention
                rechecked(self.instrument, subject, self.history.last_step or 0, step)
        return sums, gain_sums

    def _samples(self, step: int, subject: Subject) -> list[GeneratedSamples]:
        """Samples of the model as it is now: those that a tracker before this one has just made, or its own."""
        for other in self.earlier:
            if other.key == self.key and other._generated is not None and other._generated[0] == step:
                return other._generated[1]
        samples = self.instrument.generate(subject)
        # Kept until the next measurement, where another tracker may ask for them.
        self._generated = (step, samples) if self.followed else None
        return samples

    def gain_along(self, basis: Basis, module: LightningModule) -> Tensor:
        """Gain of the denoiser as it is now along the modes of another basis, ``[level, mode]``."""
        probe, latents = self.probe, self.probe.latents
        other = SpectralProbe(
            basis,
            probe.sampler or "given",
            latents.count,
            latents.kind,
            latents.seed,
            probe.sample_batch_size,
            probe.ranks,
        )
        with self.cost.of("sampling"), self.model.held(module) as subject:
            return other.gain(subject.denoiser, subject.device, subject.dtype, subject.condition)

    def finish(self, trainer: Trainer, failed: bool = False) -> None:
        """Write what is written once: the measurements first, whatever becomes of the rest."""
        parts: dict[str, Callable[[], Any]] = {"writing": self._write_history}
        parts |= {partner.state_key: partial(partner.on_tracking_end, trainer) for partner in self.partners}
        parts["the account of costs"] = self._write_account
        # After an exception no rank may wait for another, and that exception is the one to be seen.
        ranks = None if failed else self.probe.ranks
        self.tolerance.each(ranks, self.history.last_step or 0, parts)

    def _keep(self) -> None:
        with self.cost.of("writing"):
            self.results.keep(self.history)

    def _log(self, headline: dict[str, float]) -> None:
        with self.cost.of("writing"):
            self.results.log(self.history, headline)

    def _draw_gain(self, step: int) -> None:
        self._gain_drawn = step
        if self.results.files is not None:
            with self.cost.of("figures"):
                figure = gain_figure(self.history, self.prediction, self.results.shown_modes)
                self.results.sinks.figure(f"{self.name}/gain", figure, step)

    def _write_history(self) -> None:
        with self.cost.of("writing"):
            self.results.finish(self.history)

    def _write_account(self) -> None:
        """What it cost, and what failed."""
        if self.results.files is not None:
            failures = [{"step": step, "error": text} for step, text in self.tolerance.failures]
            document = {"seconds": self.cost.seconds, "total": self.cost.total, "failures": failures}
            self.results.files.write_json("cost.json", document)
