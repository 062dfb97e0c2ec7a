"""Follows one training: decides when to measure, measures, and passes the results on."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from spectral_lightning.diffusion import Denoiser, state_dtype
from spectral_lightning.emergence import Criterion
from spectral_lightning.prediction import Comparison, compare
from spectral_lightning.spectra import (
    Basis,
    GeneratedSamples,
    Groups,
    ModeStatistics,
    SpectralHistory,
    SpectralProbe,
    chosen_recipe,
    current_ranks,
    response_matrix,
)
from spectral_lightning.spectra.ranks import together
from spectral_lightning.tracking.accuracy import Accuracy, expected_error, linear_bias
from spectral_lightning.tracking.errors import Errors
from spectral_lightning.tracking.first_look import check, check_again, check_gain
from spectral_lightning.tracking.floor import LossFloor
from spectral_lightning.tracking.model import MeasuredModel
from spectral_lightning.tracking.reference import ReferenceReader, check_null_class, find_classes
from spectral_lightning.tracking.results import Results
from spectral_lightning.tracking.samples import SampleStrip
from spectral_lightning.tracking.settings import PRESETS, Settings, switched_off
from spectral_lightning.tracking.signals import deferred_signals
from spectral_lightning.tracking.timing import Budget, Cost, Schedule
from spectral_lightning.tracking.training import Training

__all__ = ["Observer", "Session"]

T = TypeVar("T")


class Observer:
    """Base of everything that a session notifies when it begins, after every measurement, and when it ends.

    An observer reads the session (history, basis, files, training) and adds results. It measures only through the session.

    Attributes:
        order: observers of lower order are notified first.
        prediction: the predicted history, if this observer makes one.
        judgement: criterion and gray factor of emergence, if this observer sets them; the other observers use them too.
    """

    order = 0
    prediction: SpectralHistory | None = None
    judgement: tuple[Criterion, float] | None = None

    @property
    def label(self) -> str:
        """Name in messages."""
        return type(self).__name__

    def on_attach(self, session: Session) -> None:
        """Called before the first measurement; raise here if this observer cannot work."""

    def tags(self, session: Session, mode: int) -> list[str]:
        """Logger tags to show in the same chart as the measurement of one mode."""
        return []

    def on_begin(self, session: Session) -> None:
        """Called before the session measures; the basis and, in a resumed run, the history are known by then."""

    def on_measurement(self, session: Session) -> None:
        """Called after every measurement."""

    def on_end(self, session: Session) -> None:
        """Called after the last measurement, or after an exception has ended the training."""

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors for a checkpoint."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the result of :meth:`state_dict`; missing keys are tolerated."""


class Session:
    """Follows one training: measures on a schedule, keeps the history, and notifies observers.

    Call :meth:`attach` once the training exists, :meth:`start` before its first update, :meth:`count_update` before and
    :meth:`after_update` after every update, and finally :meth:`end` or :meth:`fail`. Every rank must call every method.

    A measurement passes five stations: a trigger calls :meth:`after_update`; :meth:`measure` asks the
    :class:`~spectral_lightning.spectra.SpectralProbe` for samples; the sampler makes them by evaluating the denoiser.

    Args:
        settings: all settings of the tracker or monitor.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings, self.name = settings, settings.name
        self.model = MeasuredModel(settings.denoiser, settings.weights, settings.sampling)
        self.recipe = chosen_recipe(settings.basis)
        self.errors = Errors(settings.name, settings.on_error)
        preset = PRESETS[settings.sampling.preset]
        self.schedule = replace(settings.schedule, per_decade=settings.schedule.per_decade or preset.per_decade)
        self.budget = Budget(self.schedule.max_overhead)
        self.cost = Cost()
        self.observers: list[Observer] = []
        self.history: SpectralHistory | None = None
        self.groups: Groups | None = None
        self._training: Training | None = None
        self._probe: SpectralProbe | None = None
        self._accuracy: Accuracy | None = None
        self._floor: LossFloor | None = None
        self._strip: SampleStrip | None = None
        self._results: Results | None = None
        self._restored: dict[str, Any] = {}
        self._rates: float | None = None  # sum of the learning rates so far; None if unknown
        self._tried = 0
        self._earlier: Sequence[Session] = ()
        self._followed = False
        self.started = False
        """Whether :meth:`start` got as far as the first measurement."""
        self._generated: tuple[int, dict[Hashable, GeneratedSamples]] | None = None

    # What observers and clients read.

    @property
    def training(self) -> Training:
        """The training that the session follows, known once attached."""
        return _known(self._training, "training", "attached")

    @property
    def probe(self) -> SpectralProbe:
        """Basis, sampler and latents of the measurements, known once started."""
        return _known(self._probe, "probe", "started")

    @property
    def results(self) -> Results:
        """Files, loggers and charts, known once started."""
        return _known(self._results, "results", "started")

    @property
    def measured(self) -> SpectralHistory:
        """The measurements so far, known once started."""
        return _known(self.history, "history", "started")

    @property
    def basis(self) -> Basis:
        """The modes of the data, known once started."""
        return self.probe.basis

    @property
    def following(self) -> bool:
        """Whether the session has started and the environment does not switch it off."""
        return self.started and not switched_off()

    @property
    def last_step(self) -> int:
        """Step of the last measurement; 0 before the first one."""
        return 0 if self.history is None else self.history.last_step or 0

    @property
    def prediction(self) -> SpectralHistory | None:
        """The predicted history, if an observer makes one."""
        return next((o.prediction for o in self.observers if o.prediction is not None), None)

    @property
    def judgement(self) -> tuple[Criterion, float] | None:
        """Criterion and gray factor of emergence, if an observer sets them."""
        return next((o.judgement for o in self.observers if o.judgement is not None), None)

    def comparison(self, prediction: SpectralHistory | None = None) -> Comparison:
        """Emergence so far, by the criterion and gray factor that an observer sets, else by the defaults."""
        return compare(self.measured, prediction, *(self.judgement or ()))

    def figure_due(self, schedule: Schedule, drawn: int) -> bool:
        """Whether a figure is due by a schedule of figures, the last one having been drawn at step ``drawn``."""
        return schedule.figure_due(drawn, self.last_step, self.training.last_step())

    def observe(self, observer: Observer) -> None:
        """Add an observer, to be notified after those of lower ``order``."""
        observer.on_attach(self)
        if observer not in self.observers:
            self.observers = sorted([*self.observers, observer], key=lambda o: (o.order, o.label))

    def gain_along(self, basis: Basis) -> Tensor:
        """Current gain of the denoiser along the modes of another basis, ``[level, mode]``. Every rank must call it."""
        other = self.probe.like(basis)
        with self.cost.of("sampling"), self.model.held(self.training.module) as denoiser:
            return other.gain(denoiser, self.training.device, self._dtype, self._condition)

    def response(self, rows: int) -> tuple[Tensor, Tensor]:
        """The :func:`~spectral_lightning.spectra.response_matrix` of the current denoiser, in the network's precision.

        Every rank must call it.
        """
        with self.cost.of("sampling"), self.model.held(self.training.module) as denoiser:
            found = response_matrix(self.probe, denoiser, rows, self.training.device, self._dtype, self._condition)
        return found[0].to(self._dtype), found[1]

    # The life of a session.

    def attach(self, training: Training) -> None:
        """Find denoiser, weights and classes; raise if they cannot be measured, before computing anything."""
        if training.step == 0:  # a checkpoint to resume from is loaded later
            self._restored, self.cost = {}, Cost()
        else:
            self.load_state_dict(self.state_dict())
        self.cost.begin()
        self._training = training
        self.model.attach(training.module, training.keepers)
        if self.settings.per_class:
            self._classes()
        if self.settings.sampling.condition is None and (
            self.settings.sampling.track_gain or not self.settings.per_class
        ):
            check_null_class(training.module)

    def start(self, earlier: Sequence[Session] = (), followed: bool = False) -> None:
        """Read the data, make the basis, open the files and measure the untrained model.

        Args:
            earlier: sessions on the same training that measure before this one; their samples are reused if they are the same.
            followed: whether another session measures after this one and may reuse its samples.
        """
        training, self.started = self.training, False
        self.model.check_whole(training.module)
        if training.step == 0 and not self._restored:
            self.history, self._rates, self.errors.failures = None, None, []
        self._earlier, self._followed, self._generated = earlier, followed, None
        fresh = self.history is None
        self._probe = self._read()
        self._results = Results(self.name, self.basis, self.settings.output, self.cost)
        self.history = self._first_look()
        self._tried = max(self.last_step, int(self._restored.get("tried", 0)))
        self._open()
        self.started = True
        if self._floor is not None:
            self._floor.begin()
        if fresh:
            self.measure()
            self._announce()

    def count_update(self, optimizer: Optimizer) -> None:
        """Add the learning rate of the update that comes next."""
        self._rates = (self._rates or 0.0) + float(optimizer.param_groups[0]["lr"])

    def saw(self, batch: Any) -> None:
        """Name the batch on which the network was last trained, for the loss over its floor in training."""
        if self.following and self._floor is not None:
            self._floor.saw(batch)

    def after_update(self) -> None:
        """Measure if a scheduled step has passed since the last measurement and the budget allows it."""
        if not self.following:
            return
        step, last = self.training.step, max(self._tried, self.last_step)
        if step > last and self.schedule.due(last, step):
            self._tried = step
            end, ranks, say = self.training.last_step(), self.probe.ranks, self._say
            if self.budget.affords(step, end, self.schedule, self.cost, ranks, say):
                self.measure()

    def end(self) -> None:
        """Measure the final weights and write the final files."""
        if not self.following:
            return
        if self.training.step > self.last_step:
            self.measure(final=True)
        self.model.weights.release()
        self._finish(failed=False)

    def fail(self) -> None:
        """Save the measurements after an exception; no rank waits for another."""
        if self.following:
            self._finish(failed=True)

    def keep_weights(self) -> None:
        """Remember the raw weights before a callback can replace them with averages."""
        if self.following:
            self.model.weights.keep(self.training.module)

    def release_weights(self) -> None:
        """Forget the remembered weights; the training is about to change them."""
        if self.following:
            self.model.weights.release()

    # One measurement.

    def measure(self, final: bool = False) -> None:
        """Take one measurement and notify all observers.

        Args:
            final: whether it is taken only because training ends.
        """
        training, probe, step = self.training, self.probe, self.training.step
        known: dict[str, Any] = {"seconds": self.cost.training, "final": final}
        if self.knows_rates:
            known["cumulative_learning_rate"] = self._rates or 0.0
        made: dict[Hashable, GeneratedSamples] = {}
        for each in (probe, *(() if self._accuracy is None else self._accuracy.probes)):
            each.rotate(self.schedule.count(0, step))  # not the number of measurements so far, which a budget changes
        with deferred_signals():
            with self.cost.of("sampling"):
                with self.errors.attempt(probe.ranks, step) as attempt, self.model.held(training.module) as denoiser:
                    for label in self.labels:
                        key = self._key(probe, label)
                        made[key] = self._shared(step, key) or probe.generate(
                            denoiser, training.device, self._dtype, self.model.condition(label)
                        )
                    sums = self._sums(list(made.values()))
                    repeated = self._repeated(denoiser, step, final, made)
                    gain_sums = self._gain_sums() if self.settings.sampling.track_gain else None
                    floor = () if self._floor is None else self._floor.measure(denoiser)
                    pictures = self._pictures(denoiser, step, final)
                    if not any(int(part.non_finite) for part in sums):  # NaN and infinity reveal no convention
                        check_again(partial(self._look, denoiser), self.last_step, step, probe.ranks.rank == 0, final)
                if attempt.failed:
                    return
                # Kept until the next measurement, for sessions that measure after this one.
                self._generated = (step, made) if self._followed else None
                if self._floor is not None:
                    known |= self._floor.fields(floor, final)
                row = self._row(sums, gain_sums, repeated, step, known)
            self.measured.append(**row)
            self.cost.count += 1
            self._notify(row, pictures)

    @property
    def knows_rates(self) -> bool:
        """Whether the learning rates of the updates are known."""
        return bool(self.training.optimizers)

    @property
    def labels(self) -> list[int | None]:
        """Class label of each sampling pass; a single pass without a label unless the model is conditioned on classes."""
        return [None] if self.groups is None else self.groups.labels

    @property
    def evaluations(self) -> int:
        """Network evaluations per measurement, over all ranks."""
        count, sampler = self.probe.latents.count, self.probe.sampler
        if sampler is None:
            return count * len(self.labels)
        gains = len(sampler.levels) if self.settings.sampling.track_gain else 0
        floor = 0 if self._floor is None else self._floor.evaluations
        return count * (len(self.labels) * sampler.evaluations + gains) + floor

    def _key(self, probe: SpectralProbe, label: int | None = None) -> Hashable:
        """Equal for the same samples of the same denoiser."""
        return probe.sampling_key, label, self.model.key

    def _shared(self, step: int, key: Hashable) -> GeneratedSamples | None:
        """The samples of this key that an earlier session made at this step, if any."""
        made = [m for m in (other._generated for other in self._earlier) if m is not None and m[0] == step]
        return next((samples[key] for _, samples in made if key in samples), None)

    def _repeated(
        self, denoiser: Denoiser, step: int, final: bool, made: dict[Hashable, GeneratedSamples]
    ) -> list[ModeStatistics]:
        """This rank's sums over repetitions of the measurement, where one is due; their samples are put into ``made``."""
        if self._accuracy is None or not self._accuracy.due(self.last_step, step, final):
            return []
        sums = []
        for probe in self._accuracy.probes:
            key, condition = self._key(probe), self.model.condition(None)
            made[key] = self._shared(step, key) or probe.generate(
                denoiser, self.training.device, self._dtype, condition
            )
            sums.append(probe.sums(made[key]))
        return sums

    def _sums(self, samples: list[GeneratedSamples]) -> list[ModeStatistics]:
        """This rank's sums over its samples, in total or per group."""
        return [self.probe.sums(samples[0])] if self.groups is None else self.groups.sums(self.probe, samples)

    def _gain_sums(self) -> Tensor:
        """This rank's share of the gains, over all classes."""
        return self.probe.gain_sums(self.model.denoiser, self.training.device, self._dtype, self._condition)

    @property
    def _condition(self) -> Tensor | None:
        """The condition of gains: the user's, or none; the labels in turn where the denoiser needs one."""
        labels = [g for g in self.labels if g is not None]
        condition = self.settings.sampling.condition
        if condition is None and labels and self.model.needs_label:
            condition = torch.tensor(labels)
        return condition

    def _row(
        self,
        sums: list[ModeStatistics],
        gain_sums: Tensor | None,
        repeated: list[ModeStatistics],
        step: int,
        known: dict[str, Any],
    ) -> dict[str, Any]:
        """Combine all ranks' shares into one row of the history."""
        for statistics in (*sums, *repeated):
            statistics.reduce(self.probe.ranks)
        if self._accuracy is not None:
            known |= self._accuracy.fields(sums[0].variance(), repeated)
        if gain_sums is not None:
            known["gain"] = self.probe.gain_of(gain_sums).numpy()
        if self.groups is None:
            return self.probe.row_of(sums[0], step, **known)
        return self.groups.row(self.probe, sums, step, **known)

    def _pictures(self, denoiser: Denoiser, step: int, final: bool) -> Callable[[], None] | None:
        """What keeps pictures of samples, where they are due. It raises what making them raised, once the row is kept."""
        if self._strip is None or not self._strip.due(self.measured.last_step, step, final):
            return None
        labels = [g for g in self.labels if g is not None]
        condition = torch.tensor(labels) if labels else self.settings.sampling.condition
        try:
            pixels = self._strip.pixels(denoiser, self.training.device, self._dtype, condition)
        except Exception as error:
            return partial(_raise, error.with_traceback(None))  # without the frames, which hold tensors
        return partial(self.results.keep_samples, step, pixels, self.measured)

    def _notify(self, row: dict[str, Any], pictures: Callable[[], None] | None) -> None:
        """Write and log the newest row and notify the observers; a failure of one does not stop the others."""
        step = int(row["step"])
        if row["non_finite"]:
            warnings.warn(
                f"{row['non_finite']} of {row['num_samples']} samples at step {step} held NaN or infinity and were "
                "left out of the variances.",
                stacklevel=4,
            )
        headline = {f"{self.name}/{key}": float(row[key]) for key in ("alignment", "non_finite")}
        self.training.publish(headline)
        parts: dict[str, Callable[[], Any]] = {
            "writing": partial(self.results.keep, self.measured),
            "logging": partial(self.results.log, self.measured, headline),
        }
        if pictures is not None:
            parts["samples"] = pictures
        parts |= {observer.label: partial(observer.on_measurement, self) for observer in self.observers}
        self.errors.each(self.probe.ranks, step, parts)

    # Before the first measurement.

    def _classes(self) -> Any:
        training, reference = self.training, self.settings.reference
        return find_classes(
            training.module,
            training.datamodule,
            reference.classify,
            reference.num_classes,
            self.model.takes_labels,
        )

    def _read(self) -> SpectralProbe:
        """Build the probe from the data, or in a resumed run from what was saved of them."""
        training, settings, sampling = self.training, self.settings, self.settings.sampling
        ranks = current_ranks(training.device)
        reader = ReferenceReader(settings.reference, settings.data, training, ranks)
        with self.cost.of("reference"):
            basis = reader.basis(self.recipe, self.history, self._restored.get("directory"))
            self.groups = reader.groups(self._classes(), basis, self.history) if settings.per_class else None
        sampler = self.model.sampler(training.module, basis.spectrum.numpy())
        count = sampling.num_samples or PRESETS[sampling.preset].latents(basis.dim)
        options = (basis, sampler, count, sampling.latents, sampling.seed, sampling.batch_size, ranks)
        probe = SpectralProbe(*options)
        twin = any(one._strip is not None and one.model.key == self.model.key for one in self._earlier)
        self._strip = None if twin else SampleStrip.wanted(probe, settings.output.samples)
        self._accuracy = Accuracy(probe) if self.groups is None else None
        if self._accuracy is not None:
            self._accuracy.scatter.load_state_dict(self._restored.get("scatter", {}))
        if self._floor is not None:
            self._floor.end()
        self._floor = None
        # The floor does not depend on the basis; and a run that began without it cannot add its fields.
        elsewhere = any(one._floor is not None and one.model.key == self.model.key for one in self._earlier)
        known = self.history is None or "bins" in self.history
        if sampling.track_floor and probe.sampler is not None and known and not elsewhere:
            with self.cost.of("reference"):
                self._floor = LossFloor(probe, self.model, training, reader, settings.held_out, self.history)
            self._floor.load_state_dict(self._restored.get("floor", {}))
        return probe

    def _first_look(self) -> SpectralHistory:
        """Check the denoiser; return the resumed history, or an empty one with the gain before training."""
        training, probe, gain = self.training, self.probe, None
        wanted = self.history is None and probe.sampler is not None
        with self.cost.of("sampling"):
            with together(probe.ranks), self.model.held(training.module) as denoiser:
                self._look(denoiser)
                sums = self._gain_sums() if wanted else None
            if sums is not None:
                gain = probe.gain_of(sums)
                check_gain(probe, gain)
        if self.history is not None:
            return self.history
        about: dict[str, Any] = {
            "denoiser": self.model.description,
            "weights": self.model.weights.describe(),
            "moments": self.settings.reference.moments,
        }
        if self._accuracy is not None and self._accuracy.describe is not None:
            about["standard_error"] = self._accuracy.describe
        static = {} if self.groups is None else self.groups.static(probe)
        if self._floor is not None:
            static |= self._floor.static()
            about["held_out"] = self._floor.about
        if self.groups is not None:
            about["groups"] = list(self.groups.names)
        return probe.history(None if gain is None else gain.numpy(), static, **about)

    def _look(self, denoiser: Denoiser) -> None:
        """Check the denoiser, under all labels in turn or the user's condition."""
        labels = [g for g in self.labels if g is not None]
        condition = torch.tensor(labels) if labels else self.settings.sampling.condition
        check(self.probe, denoiser, self.training.device, self._dtype, condition)

    def _open(self) -> None:
        """Open the files, start the observers, and write the history so far."""
        ranks, step, results = self.probe.ranks, self.training.step, self.results

        def companions(mode: int) -> list[str]:
            return [tag for observer in self.observers for tag in observer.tags(self, mode)]

        results.open(self.training, self._restored.get("directory"), self.measured.groups, companions)
        for observer in self.observers:
            observer.on_begin(self)
        writing = partial(results.keep, self.measured)
        self.errors.each(ranks, step, {"writing": writing, "the layout of the charts": results.sinks.write_layout})
        self.cost.ready()

    def _announce(self) -> None:
        probe, cost, files = self.probe, self.cost, self.results.files
        conditional = self.groups is not None and self.groups.classify is None
        classes = f" for each of {len(self.labels)} classes" if conditional else ""
        sampler, error = "sampled by the function", expected_error(self.measured)
        if probe.sampler is not None:
            sampler = f"{probe.sampler.describe()}, bias {linear_bias(probe):.1%} on a linear denoiser"
        end = self.training.last_step()
        raw = " before smoothing" if probe.latents.sliced else ""
        more = "" if end is None else f", {self.schedule.count(0, end)} times in {end} steps"
        floor = "" if self._floor is None else f" Held-out points: {self._floor.about}."
        self._say(
            f"{self.model.description}; {self.model.weights.describe()}; {probe.basis.describe()}; {probe.latents.count} "
            f"samples{classes}, {sampler}. Reference {cost.seconds['reference']:.1f} s; a measurement takes {cost.each:.2g} s "
            f"({self.evaluations} evaluations, standard error {error:.1%}{raw}), {self.schedule.per_decade} per factor of ten in "
            f"steps{more}.{floor} Results: {'not written' if files is None else files.path}"
        )

    def _say(self, text: str) -> None:
        self.training.say(f"{self.training.client}: {text}")

    @property
    def _dtype(self) -> torch.dtype:
        return state_dtype(self.training.module)

    # What is written.

    def _finish(self, failed: bool) -> None:
        """Write the final files, the measurements first; a failure of one does not stop the others."""
        parts: dict[str, Callable[[], Any]] = {
            "writing": partial(self.results.finish, self.measured, lambda: self.comparison().measured)
        }
        parts |= {observer.label: partial(observer.on_end, self) for observer in self.observers}
        parts["the cost report"] = partial(self.results.account, self.errors.failures)
        # After an exception no rank may wait for another, and the user must see that exception, not one of ours.
        self.errors.each(None if failed else self.probe.ranks, self.last_step, parts)
        if self._floor is not None:
            self._floor.end()

    def state_dict(self) -> dict[str, Any]:
        """The whole history and the clock, as tensors and plain values; eigenvectors stay on disk."""
        if self.history is None:
            return {}
        files = None if self._results is None else self._results.files
        return {
            "history": self.history.state_dict(),
            "cumulative_learning_rate": self._rates,
            "cost": self.cost.state_dict(),
            "failures": self.errors.state(),
            "tried": self._tried,
            "scatter": {} if self._accuracy is None else self._accuracy.scatter.state_dict(),
            "floor": {} if self._floor is None else self._floor.state_dict(),
            "directory": None if files is None else str(files.path),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a checkpoint; drop a row that was measured only because that training ended."""
        if "history" not in state:
            return
        self._restored = state
        self.history = SpectralHistory.from_state_dict(state["history"])
        self.history.drop_final()
        self._rates = state.get("cumulative_learning_rate")
        self.cost.load_state_dict(state.get("cost", {}))
        self.errors.load_state(state.get("failures", []))


def _known(value: T | None, what: str, when: str) -> T:
    """Return ``value``, or raise an error that says when it becomes known."""
    if value is None:
        raise RuntimeError(f"`{what}` is known once the session has {when}.")
    return value


def _raise(error: Exception) -> None:
    raise error
