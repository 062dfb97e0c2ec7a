"""Measures the loss over its linear floor: on held-out data at each measurement, and in the training's own passes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from spectral_lightning.diffusion import BoundDenoiser, Denoiser, NetworkPasses, listen, state_dtype
from spectral_lightning.spectra import Basis, LinearFloor, RunningFloor, SpectralHistory, SpectralProbe
from spectral_lightning.spectra.ranks import together
from spectral_lightning.spectra.reading import DataSource, examples
from spectral_lightning.tracking.model import MeasuredModel
from spectral_lightning.tracking.reference import ReferenceReader, num_labels
from spectral_lightning.tracking.training import Training

__all__ = ["LossFloor"]

_POINTS = 64
_CLASS_NUMBERS = 2**24  # 128 MiB of covariances
_FIELDS = (
    "held_out_error",
    "over_floor",
    "over_floor_error",
    "over_class_floor",
    "over_class_floor_error",
    "data_gain",
)


class LossFloor:
    """Loss over its linear floor for one session.

    Held-out points are 64, or half as many as the latents if that is less, evenly spread over ``held_out``, else over the
    training's validation set, read as the training reads its data. Without either, only training passes are used. A model
    conditioned on labels gets those of the points, and the floor within classes stands beside, unless the covariances
    of its classes exceed 128 MiB or a class has no more training examples than dimensions.

    Training passes are those that the module publishes, or of a network in a named convention whose batches are known.

    Args:
        probe: basis, sampler and latents of the measurements.
        model: the model under measurement.
        training: the training.
        reader: reads the data.
        held_out: the user's held-out data.
        history: of a resumed run, which fixes what is measured.

    Attributes:
        about: what the points are, or why there are none.
    """

    def __init__(
        self,
        probe: SpectralProbe,
        model: MeasuredModel,
        training: Training,
        reader: ReferenceReader,
        held_out: DataSource | None,
        history: SpectralHistory | None,
    ) -> None:
        self.probe, self.training, self.model, self.reader = probe, training, model, reader
        self.linear: LinearFloor | None = None
        self._passes: NetworkPasses | None = None
        self._end: Callable[[], None] | None = None
        self._looking = False
        # The rows of a resumed run keep their fields.
        self._shapes = {n: history.row(-1)[n].shape for n in _FIELDS if n in history} if history else {}
        self.running = RunningFloor(probe.basis)
        self.about = "none before the resume"
        if history is None or "linear_error" in history:
            self.about = self._points(held_out)

    def _points(self, held_out: DataSource | None) -> str:
        """Read the points; what they are, or why there are none."""
        probe, reader, training, sampling = self.probe, self.reader, self.training, self.model.sampling
        source = training.validation if held_out is None else held_out
        labels = num_labels(training.module, reader.settings.num_classes, self.model.takes_labels)
        labels = None if reader.settings.classify is not None else labels
        if source is None:
            return "none: no validation set; pass `held_out`"
        if held_out is None and reader.data is not None:
            return "none: the network may see the validation set otherwise than `data`; pass `held_out`"
        if labels is None and sampling.condition is not None:
            return "none: the conditions of held-out points are not known"
        count = min(_POINTS, max(probe.latents.count // 4, 2))
        try:
            with together(probe.ranks):
                points, label = reader.points(source, count, labels is not None, as_seen=held_out is None)
                if points.shape[1:] != probe.basis.shape:
                    raise ValueError(
                        f"`held_out` must hold examples of shape {probe.basis.shape}, got {tuple(points.shape[1:])}."
                    )
        except Exception as error:  # reading a data set can raise anything
            if held_out is not None:
                raise
            return f"none: the validation set cannot be read ({error}); pass `held_out`"
        points = probe.ranks.copy_from_first(points)
        label = None if label is None else probe.ranks.copy_from_first(label)
        classes: list[Basis] | None = None
        if labels is not None and labels * probe.basis.dim**2 <= _CLASS_NUMBERS:
            classes = reader.class_modes(labels, probe.basis)
        self.linear = LinearFloor(
            probe.basis,
            () if probe.sampler is None else probe.sampler.levels,
            points,
            label,
            classes,
            probe.latents.seed,
            state_dtype(training.module),
            probe.sample_batch_size,
            probe.ranks,
        )
        return f"{len(points)} points of {'the validation set' if held_out is None else '`held_out`'}"

    @property
    def evaluations(self) -> int:
        """Evaluations of the network per measurement, over all ranks."""
        return 0 if self.linear is None else self.linear.evaluations

    def static(self) -> dict[str, Any]:
        """Fields of a history that do not change."""
        found = {} if self.linear is None else self.linear.static()
        return {**found, "bins": self.running.centres().numpy()}

    def measure(self, denoiser: Denoiser) -> tuple[Tensor, ...]:
        """This rank's share on the held-out points; no rank waits for another."""
        return () if self.linear is None else self.linear.measure(denoiser, self.training.device)

    def fields(self, measured: tuple[Tensor, ...], final: bool) -> dict[str, Any]:
        """The fields of a row, training passes since the last one included. Every rank must call it.

        Args:
            measured: result of :meth:`measure`.
            final: whether a resumed run will drop the row; the means then go on.
        """
        found = {} if self.linear is None else self.linear.fields(*measured)
        if self._shapes:
            found = {name: found.get(name, np.full(shape, np.nan)) for name, shape in self._shapes.items()}
        passes, fit = self.running.fields(self.probe.ranks)
        if not fit:
            self._stop("What the network denoises are not the examples of the batch in their order.")
        if not final or not fit:
            self.running.clear()
        return found | passes

    # Training passes.

    def begin(self) -> None:
        """Look at what the module publishes from now on."""
        self.end()
        self._looking = True
        if not isinstance(self.model.denoiser, BoundDenoiser):
            self._end = listen(self.training.module, self.running)

    def saw(self, batch: Any) -> None:
        """Name the batch whose pass a network in a named convention has made; its passes are looked at from then on."""
        denoiser = self.model.denoiser
        if not self._looking or not isinstance(denoiser, BoundDenoiser) or self.reader.settings.transform is not None:
            return
        try:
            if self._passes is None:
                self._passes = NetworkPasses(denoiser, self.running)
                self._end = self._passes.end
            self._passes.saw(examples(batch, self.reader.settings.batch_key))
        except (TypeError, ValueError) as error:
            self._stop(str(error))

    def end(self) -> None:
        """Stop looking at passes."""
        if self._end is not None:
            self._end()
        self._end, self._passes, self._looking = None, None, False

    def _stop(self, reason: str) -> None:
        if self._looking:
            self.training.say(f"{self.training.client}: no loss over its floor from training passes. {reason}")
        self.end()

    def state_dict(self) -> dict[str, Any]:
        """The means since the last measurement, for a checkpoint."""
        return self.running.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the result of :meth:`state_dict`, which holds the passes of rank 0 only."""
        if self.probe.ranks.rank == 0:
            self.running.load_state_dict(dict(state))
