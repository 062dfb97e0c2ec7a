"""The theory of a training, drawn beside its measurement."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from numpy.typing import NDArray

from spectral_lightning.arguments import fraction, one_of, positive_integer
from spectral_lightning.callbacks.partner import Partner
from spectral_lightning.diffusion import Departure, SupportsDynamics
from spectral_lightning.prediction import compare
from spectral_lightning.prediction.clock import Fit, fit_time_scale, goodness_of_fit, training_time
from spectral_lightning.prediction.departures import data_departures, optimizer_departures
from spectral_lightning.prediction.modes import NaturalModes
from spectral_lightning.report import overlay_figure
from spectral_lightning.sampling import Sampler
from spectral_lightning.spectra import SpectralHistory
from spectral_lightning.theory import LearningDynamics
from spectral_lightning.tracking.schedule import LogSchedule

__all__ = ["AnalyticOverlay"]

Array = NDArray[np.float64]

_LEAST_CROSSED = 5


class AnalyticOverlay(Partner):
    """Predicts what a tracker measures: the module's own theory, through the same sampler, from the same initial gain.

    The module declares its theory (``dynamics()`` and ``departures()``), or one is given. The prediction starts from the
    gain measured before training, mode by mode and level by level.

    Clock. Under plain gradient descent on the declared loss the theory's time is the sum of the learning rates; nothing
    is fitted. Otherwise one factor on the training's time is fitted to the measured variances, once, when
    ``calibrate_after`` of the modes outside the gray zone have crossed their geometric threshold (five at least), and
    then kept: the rows before are in sample, those after are not. A refit over the whole run at the end is reported
    under names of its own. ``overlay.json`` states the clock, the assumptions this run does not meet, and the goodness
    of fit beside that of variances that never change.

    Args:
        theory: a family in place of the module's own. It is the user's word that it describes the module.
        clock: ``"learning_rate"``, ``"fitted"``, or ``"auto"``: the learning rate where nothing the module or the
            optimizer does forbids it.
        calibrate_after: share of the modes outside the gray zone that have to cross before the clock is fitted.
        figures_per_decade: figures per factor of ten in steps, besides the one at the end.
        tracker: name of the tracker to follow.

    Raises:
        ValueError: for an argument out of range; when training is set up, for a missing tracker.
        TypeError: when training is set up, for a module that declares no theory where none is given.
    """

    order = 0

    def __init__(
        self,
        theory: LearningDynamics | None = None,
        clock: Literal["auto", "learning_rate", "fitted"] = "auto",
        calibrate_after: float = 0.25,
        figures_per_decade: int = 2,
        tracker: str = "spectral",
    ) -> None:
        super().__init__(tracker)
        if theory is not None and not isinstance(theory, LearningDynamics):
            raise TypeError(f"`theory` must be a family of `spectral_lightning.theory`, got {theory!r}.")
        self.theory = theory
        self.clock = one_of("clock", clock, ("auto", "learning_rate", "fitted"))
        self.calibrate_after = fraction("calibrate_after", calibrate_after)
        self.figures = LogSchedule(positive_integer("figures_per_decade", figures_per_decade))
        self.history: SpectralHistory | None = None
        self.departures: list[Departure] = []
        self.scale: float | None = None
        self.calibrated_at: int | None = None
        self._dynamics: LearningDynamics | None = None
        self._natural: NaturalModes | None = None
        self._natural_gain: torch.Tensor | None = None
        self._fitted = False
        self._base: float | None = None
        self._drawn = 0
        self._shown: int | None = None

    @property
    def prediction(self) -> SpectralHistory | None:
        """The theory's table, of the same kind as the tracker's."""
        return self.history

    def tags(self, mode: int) -> list[str]:
        """The predicted variance of one mode."""
        return [self.tracker.tag("theory", mode)]

    def prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the theory, or say what is missing."""
        if isinstance(pl_module, SupportsDynamics):
            self._dynamics, self.departures = self.theory or pl_module.dynamics(), pl_module.departures()
        elif self.theory is not None:
            self._dynamics = self.theory
            self.departures = [
                Departure("a module of this theory assumed on the user's word; the module declares none")
            ]
        else:
            raise TypeError(
                f"{type(pl_module).__name__} declares no theory to compare with. Pass one, such as "
                "AnalyticOverlay(theory=OneLayer(learning_rate=..., preconditioning=Preconditioning('edm'))), or give the "
                "module `dynamics()` and `departures()`."
            )

    def on_tracking_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Settle the clock, say what is assumed, and go on with a resumed run's prediction."""
        self.departures = [*self.departures, *optimizer_departures(trainer), *data_departures(self.tracker.basis)]
        unclocked = any(d.affects_clock for d in self.departures)
        self._fitted = self.clock == "fitted" or (self.clock == "auto" and unclocked)
        self._base = _base_rate(trainer)
        dynamics = self._dynamics
        if dynamics is None:
            raise RuntimeError("The theory is known once the Trainer is set up.")
        self._natural = NaturalModes(dynamics.gradient_flow() if self._fitted else dynamics, self.tracker.basis)
        measured = self.tracker.measured
        _ = self._sampler  # raises where there is none
        if not self._fitted:
            self.scale, self.calibrated_at = 1.0, 0
        elif not len(measured):  # a new run, not one that goes on
            self.scale = self.calibrated_at = None
        if not len(measured):
            self._natural_gain = self._initial_gain(pl_module)
        self.history = self.tracker.probe.history(
            measured["initial_gain"], theory=repr(self.natural.dynamics), clock=self.describe_clock()
        )
        self._drawn, self._shown = measured.last_step or 0, None
        self._extend(self.tracker.shown_modes, log=False)
        rank_zero_info(
            f"AnalyticOverlay: {self.natural.dynamics!r}; {self.describe_clock()}. {self.describe_departures()}"
        )

    def on_measurement(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Predict what was just measured, or calibrate where it is time."""
        with self.tracker.cost.of("theory"):
            if self.scale is None and self._ready():
                self._calibrate()
            self._extend(self.tracker.shown_modes)
        step = self.tracker.measured.last_step or 0
        if self.figures.due(self._drawn, step):
            self._draw(step)

    def on_tracking_end(self, trainer: Trainer) -> None:
        """Calibrate at last, refit over the whole run, write and draw."""
        with self.tracker.cost.of("theory"):
            if self.scale is None and len(self.tracker.measured) > 1:
                self._calibrate()
            self._extend(self.tracker.shown_modes)
            document = self._report()
        files = self.tracker.files
        if files is not None and self.history is not None:
            with self.tracker.cost.of("writing"):
                self.history.save(files / "prediction.npz")
                self.history.to_csv(files / "prediction.csv")
                files.write_json("overlay.json", document)
        step = self.tracker.measured.last_step or 0
        if step != self._shown:
            self._draw(step)
        if self._fitted and document["refit_scale"] is not None:
            refit = {f"{self.tracker_name}/refit/time_scale": document["refit_scale"]}
            self.tracker.sinks.scalars(refit, step)

    def state_dict(self) -> dict[str, Any]:
        """The frozen clock and the gain before training; the prediction follows from them."""
        return {"scale": self.scale, "calibrated_at": self.calibrated_at, "natural_gain": self._natural_gain}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the clock of the run that goes on."""
        self.scale, self.calibrated_at = state_dict.get("scale"), state_dict.get("calibrated_at")
        self._natural_gain = state_dict.get("natural_gain")

    # What it says of itself.

    def describe_clock(self) -> str:
        """Where the theory's time comes from."""
        if not self._fitted:
            return "clock: the sum of the learning rates, nothing fitted"
        if self.scale is None:
            return f"clock: one factor, to be fitted once {self.calibrate_after:.0%} of the modes have crossed"
        return f"clock: one factor, {self.scale:.4g}, fitted at step {self.calibrated_at} and kept since"

    def describe_departures(self) -> str:
        """The assumptions this run does not meet."""
        texts = "; ".join(d.text for d in self.departures)
        return f"Assumptions not met: {texts}." if texts else "All assumptions of the theory are met."

    # The parts.

    @property
    def _modes(self) -> NDArray[np.bool_]:
        measured = compare(self.tracker.measured).measured
        return np.asarray(measured.eligible("rising") | measured.eligible("falling"))

    def _ready(self) -> bool:
        measured = compare(self.tracker.measured).measured
        crossed = int((measured.crossed("rising") | measured.crossed("falling")).sum())
        return crossed >= max(_LEAST_CROSSED, self.calibrate_after * int(self._modes.sum()))

    @property
    def natural(self) -> NaturalModes:
        """The theory, in its own modes and seen in the tracker's; known once training starts."""
        if self._natural is None:
            raise RuntimeError("`AnalyticOverlay.natural` is known once training starts.")
        return self._natural

    def _initial_gain(self, pl_module: LightningModule) -> torch.Tensor | None:
        """Gain before training along the theory's own modes, measured where those are not the tracker's."""
        if self.natural.own or not self.natural.takes_gain:
            return None
        return self.tracker.gain_along(self.natural.natural, pl_module)

    def _gain(self) -> Array | None:
        """The gain before training that the prediction starts from."""
        if not self.natural.takes_gain:
            return None
        if self._natural_gain is not None:
            return np.asarray(self._natural_gain.numpy())
        return self.tracker.measured["initial_gain"] if self.natural.own else None

    def _predict(self, time: Array) -> Array:
        return self.natural.variance(time, self._sampler, self._gain())

    @property
    def _sampler(self) -> Sampler:
        sampler = self.tracker.probe.sampler
        if sampler is None:
            raise ValueError(
                "AnalyticOverlay needs a denoiser, got a SpectralTracker with a function as `sampler`. Leave the overlay "
                "out, or give the tracker a `denoiser`."
            )
        return sampler

    def _fit(self) -> float | None:
        measured = self.tracker.measured
        time, modes = training_time(measured, self._base), self._modes
        if not modes.any() or len(time) < 2:
            return None
        return fit_time_scale(time, measured.variance, self._predict, modes)

    def _calibrate(self) -> None:
        self._shown = None  # a figure without the prediction is out of date
        self.scale = self._fit()
        self.calibrated_at = None if self.scale is None else self.tracker.measured.last_step

    def _extend(self, shown: list[int], log: bool = True) -> None:
        """Predict the measurements that have no prediction yet, and send each to the loggers at its own step."""
        measured = self.tracker.measured
        if self.scale is None or self.history is None or len(self.history) == len(measured):
            return
        missing = slice(len(self.history), len(measured))
        time = training_time(measured, self._base)[missing] * self.scale
        gains: dict[str, Any] = {}
        if "gain" in measured:
            gains["gain"] = self.natural.gain(time, measured["levels"], self._gain())
        for i, (step, row) in enumerate(zip(measured.steps[missing], self._predict(time), strict=True)):
            self.history.append(step=step, variance=row, **{name: table[i] for name, table in gains.items()})
            if log:
                self.tracker.sinks.scalars({self.tracker.tag("theory", k): float(row[k]) for k in shown}, int(step))
        self.history.metadata["clock"] = self.describe_clock()

    def _goodness(self, after: int = 0) -> Fit | None:
        """Over the measurements after a step."""
        measured, history = self.tracker.measured, self.history
        if history is None or len(history) == 0:
            return None
        rows = measured.steps > after
        return goodness_of_fit(measured.variance[rows], history.variance[rows], measured.variance[0], self._modes)

    def _report(self) -> dict[str, Any]:
        whole, later = self._goodness(), self._goodness(self.calibrated_at or 0) if self._fitted else None
        return {
            "theory": repr(self.natural.dynamics),
            "modes": self.natural.natural.kind,
            "clock": self.describe_clock(),
            "scale": self.scale,
            "calibrated_at": self.calibrated_at,
            "refit_scale": self._fit() if self._fitted else None,
            "departures": [d.text for d in self.departures],
            "goodness_of_fit": None if whole is None else vars(whole),
            "goodness_after_calibration": None if later is None else vars(later),
        }

    def _draw(self, step: int) -> None:
        self._drawn = self._shown = step
        if self.tracker.files is None or not len(self.tracker.measured):
            return
        with self.tracker.cost.of("figures"):
            fit = self._goodness()
            text = self.describe_clock() if fit is None else f"{self.describe_clock()}\n{fit}"
            figure = overlay_figure(self.tracker.measured, self.history, self.tracker.shown_modes, text)
            self.tracker.sinks.figure(f"{self.tracker_name}/overlay", figure, step)


def _base_rate(trainer: Trainer) -> float | None:
    """The learning rate the optimizer was made with, of which one update is the theory's unit of time."""
    rate = trainer.optimizers[0].defaults.get("lr") if trainer.optimizers else None
    return None if rate is None else float(rate)
