"""The theory's prediction, compared with the measurement."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import torch

from spectral_lightning.arguments import fraction, one_of, positive_integer
from spectral_lightning.diffusion import Departure, SupportsDynamics
from spectral_lightning.prediction import (
    BASELINES,
    NaturalModes,
    Prediction,
    data_departures,
    derived_theory,
    optimizer_departures,
    start_departures,
)
from spectral_lightning.report import overlay_figure
from spectral_lightning.spectra import SpectralHistory
from spectral_lightning.spectra.moments import DENSE_DIM
from spectral_lightning.theory import LearningDynamics
from spectral_lightning.tracking.session import Observer, Session
from spectral_lightning.tracking.timing import Schedule

__all__ = ["Overlay"]

_ROWS, _MOST = 512, 1024  # rows of the response at that many dimensions; the most dimensions with a response


class Overlay(Observer):
    """Predicts what a session measures: a theory passed through the same sampler, from where the network starts.

    The theory is the ``theory`` argument, else the module's own (``dynamics()`` and ``departures()``), else derived: one
    linear layer per noise level, preconditioned by the network's convention or, if that is unknown, as EDM with the data's
    standard deviation. What is assumed is listed among the departures.

    Start: a theory of one layer per noise level starts from the whole response matrix of the untrained network at each
    level, its linear regression on noisy data: column k of its distance from the optimum is learnt at the rate of mode k.
    ``start`` says up to which dimension; above 512 only rows of the leading modes are used, with the gains of the others.
    Beyond 1,024 dimensions, with a part of the modes, or in other families, the gains alone are used. A network that is not
    linear in the states the sampler passes through still starts elsewhere: the report states the error at the start.

    Clock: under plain gradient descent on the declared loss, theory time is the sum of the learning rates and nothing is
    fitted. Otherwise one factor between the two times is fitted to the measured variances, once: when at least five modes
    and ``calibrate_after`` of the eligible ones have crossed their threshold. Rows up to that step are in-sample, later
    rows are predictions. A refit over the whole run is reported separately.

    Judgement: errors of log variance beside those of baselines fitted to the same rows and modes, with the number of fitted
    numbers of each: nothing learnt, one curve in log step for all modes (no spectral bias), and the same with times that
    follow a power of the variance; see :func:`~spectral_lightning.prediction.judge`.

    Writes ``prediction.npz`` and ``.csv``, and ``overlay.json``: the clock, the departures of this run from the theory,
    the start and its rms log error, and the judgement over all steps and after calibration; its errors are logged at the end.

    Above 4,096 dimensions not every family can be solved; the training is then followed without a prediction, and a warning
    says why.

    Args:
        theory: a family to use instead of the module's own or the derived theory; it is not verified.
        clock: ``"learning_rate"``, ``"fitted"``, or ``"auto"``: the learning rate unless a departure rules it out.
        calibrate_after: fraction of the eligible modes that must cross before the clock is fitted.
        figures_per_decade: figures per factor of ten in steps, from 1000 on, in addition to the final one; none within one
            interval before a known end.
        start: ``"response"``; ``"gains"``: only the gains of the untrained network along the modes; or ``"auto"``: the
            response if the dimension is at most twice the number of latents, so that it costs at most about four
            measurements.

    Raises:
        TypeError: if ``theory`` is not a family.
        ValueError: for an argument out of range; when attached, if a function does the sampling.
    """

    order = 0

    def __init__(
        self,
        theory: LearningDynamics | None = None,
        clock: Literal["auto", "learning_rate", "fitted"] = "auto",
        calibrate_after: float = 0.25,
        figures_per_decade: int = 1,
        start: Literal["auto", "response", "gains"] = "auto",
    ) -> None:
        if theory is not None and not isinstance(theory, LearningDynamics):
            raise TypeError(f"`theory` must be a family of `spectral_lightning.theory`, got {theory!r}.")
        self.theory = theory
        self.clock = one_of("clock", clock, ("auto", "learning_rate", "fitted"))
        self.calibrate_after = fraction("calibrate_after", calibrate_after)
        self.figures = Schedule(positive_integer("figures_per_decade", figures_per_decade))
        self.start = one_of("start", start, ("auto", "response", "gains"))
        self.departures: list[Departure] = []
        self._prediction: Prediction | None = None
        self._restored: dict[str, Any] = {}
        self._drawn = 0
        self._shown: int | None = None

    @property
    def prediction(self) -> SpectralHistory | None:  # type: ignore[override]
        """The predicted history, in the form of the measured one."""
        return None if self._prediction is None else self._prediction.history

    @property
    def history(self) -> SpectralHistory | None:
        """The same as :attr:`prediction`."""
        return self.prediction

    @property
    def scale(self) -> float | None:
        """Factor from training time to theory time; None until it is fitted."""
        return self._restored.get("scale") if self._prediction is None else self._prediction.scale

    @property
    def calibrated_at(self) -> int | None:
        """Step at which the factor was fitted; 0 if nothing is fitted, None until then."""
        return self._restored.get("calibrated_at") if self._prediction is None else self._prediction.calibrated_at

    @property
    def predicted(self) -> Prediction:
        """The prediction and its clock, known once training starts."""
        if self._prediction is None:
            raise RuntimeError(f"The prediction of {self.label} is known once training starts.")
        return self._prediction

    def tags(self, session: Session, mode: int) -> list[str]:
        """The tag of one mode's predicted variance."""
        return [session.results.tag("theory", mode)]

    def on_attach(self, session: Session) -> None:
        """Refuse a sampling function, which has no denoiser."""
        if session.settings.sampling.samples_itself:
            raise ValueError(
                f"{self.label} needs a denoiser, got a function as `sampler`. Leave {self.label} out, or pass a `denoiser`."
            )

    def on_begin(self, session: Session) -> None:
        """Choose theory and clock, report the assumptions, and restore a resumed run's prediction."""
        training, measured, basis = session.training, session.measured, session.basis
        rate = training.optimizers[0].defaults.get("lr") if training.optimizers else None
        dynamics, declared = self._theory(session, rate)
        self.departures = [
            *declared,
            *optimizer_departures(training.optimizers, training.clipping),
            *data_departures(basis),
        ]
        unclocked = any(departure.affects_clock for departure in self.departures)
        fitted = self.clock == "fitted" or (self.clock == "auto" and unclocked)
        self._prediction = None
        try:
            natural = NaturalModes(dynamics.gradient_flow() if fitted else dynamics, basis)
        except ValueError as error:
            if basis.dim <= DENSE_DIM:
                raise
            warnings.warn(
                f"{self.label} is unavailable, the measurement goes on without it: {error} Pass another `theory`.",
                stacklevel=2,
            )
            return
        sampler = session.probe.sampler
        if sampler is None:
            raise RuntimeError("`sampler` must be a Sampler, got a function, which `on_attach` refuses.")
        prediction = Prediction(natural, sampler, fitted, None if rate is None else float(rate), self.calibrate_after)
        if len(measured):
            prediction.natural_gain, prediction.response = (self._restored.get(n) for n in ("natural_gain", "response"))
            if fitted:
                prediction.scale, prediction.calibrated_at = self.scale, self.calibrated_at
        elif natural.takes_response and basis.dim <= self._most(session):
            rows = min(basis.dim, int(_ROWS * (_ROWS / basis.dim) ** 0.5))
            prediction.response, prediction.natural_gain = session.response(rows)
        elif not natural.own and natural.takes_gain:
            prediction.natural_gain = session.gain_along(natural.natural)
        self._prediction = prediction
        start = prediction.start(measured).describe()
        prediction.history = session.probe.history(
            measured["initial_gain"], theory=repr(natural.dynamics), clock=prediction.describe_clock(), start=start
        )
        self._drawn, self._shown = session.last_step, None
        prediction.extend(measured)
        training.say(
            f"{self.label}: {natural.dynamics!r}; {prediction.describe_clock()}; start: {start}. {self.describe_departures()}"
        )

    def on_measurement(self, session: Session) -> None:
        """Predict the newest row; calibrate the clock if enough modes have crossed."""
        if self._prediction is None:
            return
        with session.cost.of("theory"):
            uncalibrated = self.scale is None
            rows = self.predicted.update(session.measured, session.comparison())
            if uncalibrated and self.scale is not None:
                self._shown = None  # the last figure lacks the prediction
            self._log(session, rows)
        if session.figure_due(self.figures, self._drawn):
            self._draw(session)

    def on_end(self, session: Session) -> None:
        """Calibrate if that has not happened yet, refit over the whole run, write and draw."""
        if self._prediction is None:
            return
        measured, results, prediction = session.measured, session.results, self.predicted
        with session.cost.of("theory"):
            comparison = session.comparison()
            if self.scale is None and len(measured) > 1:
                self._shown = None
                prediction.calibrate(measured, comparison)
            self._log(session, prediction.extend(measured))
            document = self._report(session)
        if results.files is not None and self.prediction is not None:
            with session.cost.of("writing"):
                self.prediction.save(results.files / "prediction.npz")
                self.prediction.to_csv(results.files / "prediction.csv")
                results.files.write_json("overlay.json", document)
        if session.last_step != self._shown:
            self._draw(session)
        scalars = {}
        if prediction.fitted and document["refit_scale"] is not None:
            scalars["refit/time_scale"] = document["refit_scale"]
        for window in ("all_steps", "after_calibration"):
            errors = (document["judgement"] or {}).get(window) or {"cells": 0}
            if errors["cells"]:
                scalars |= {f"judgement/{window}/{name}": errors[name] for name in ("theory", *BASELINES)}
        results.sinks.scalars({f"{session.name}/{tag}": value for tag, value in scalars.items()}, session.last_step)

    def state_dict(self) -> dict[str, Any]:
        """The fitted clock, and gain and response before training, which determine the prediction."""
        found = {"scale": self.scale, "calibrated_at": self.calibrated_at}
        return found | {name: self._before(name) for name in ("natural_gain", "response")}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the clock of the resumed run."""
        self._restored, self._prediction = dict(state_dict), None

    def describe_clock(self) -> str:
        """One phrase on how training time maps to theory time."""
        return self.predicted.describe_clock()

    def describe_departures(self) -> str:
        """One sentence on the assumptions of the theory that this run does not meet."""
        texts = "; ".join(departure.text for departure in self.departures)
        return f"Assumptions not met: {texts}." if texts else "All assumptions of the theory are met."

    def _before(self, name: str) -> torch.Tensor | None:
        """What was measured before training, in this run or in the one that is resumed."""
        found: torch.Tensor | None = (
            self._restored.get(name) if self._prediction is None else getattr(self._prediction, name)
        )
        return found

    def _most(self, session: Session) -> int:
        """The most dimensions in which the response is measured."""
        return {"gains": 0, "auto": min(2 * session.probe.latents.count, _MOST), "response": _MOST}[self.start]

    def _theory(self, session: Session, rate: float | None) -> tuple[LearningDynamics, list[Departure]]:
        module = session.training.module
        if isinstance(module, SupportsDynamics):
            return self.theory or module.dynamics(), module.departures()
        if self.theory is not None:
            return self.theory, [Departure("theory supplied by the user, not verified: the module declares none")]
        return derived_theory(session.model.denoiser, session.basis, rate)

    def _log(self, session: Session, rows: list[tuple[int, Any]]) -> None:
        """Log each predicted row at its step."""
        results = session.results
        for step, row in rows:
            results.sinks.scalars({results.tag("theory", k): float(row[k]) for k in results.shown_modes}, step)
        if self.prediction is not None:
            self.prediction.metadata["clock"] = self.describe_clock()

    def _report(self, session: Session) -> dict[str, Any]:
        measured, comparison, prediction = session.measured, session.comparison(), self.predicted
        whole = prediction.goodness(measured, comparison)
        later = prediction.goodness(measured, comparison, self.calibrated_at or 0) if prediction.fitted else None
        refit = prediction.fit(measured, comparison) if prediction.fitted else None
        judgement = prediction.judge(measured, comparison, refit)
        start = prediction.start_errors(measured) if len(measured) else None
        departures = self.departures + start_departures(prediction.start(measured), start)
        return {
            "theory": repr(prediction.natural.dynamics),
            "modes": prediction.natural.natural.kind,
            "start": prediction.start(measured).describe(),
            "rms_at_start": start,
            "clock": prediction.describe_clock(),
            "scale": prediction.scale,
            "calibrated_at": prediction.calibrated_at,
            "refit_scale": refit,
            "departures": [departure.text for departure in departures],
            "goodness_of_fit": None if whole is None else vars(whole),
            "goodness_after_calibration": None if later is None else vars(later),
            "judgement": None if judgement is None else judgement.document(),
        }

    def _draw(self, session: Session) -> None:
        self._drawn = self._shown = session.last_step
        if not session.results.draws or not len(session.measured):
            return
        with session.cost.of("figures"):
            judgement = self.predicted.judge(session.measured, session.comparison())
            text = self.describe_clock()
            if judgement is not None:
                text += "; rms errors of log variance (fitted numbers):\n" + "\n".join(judgement.lines())
            figure = overlay_figure(session.measured, self.prediction, session.results.shown_modes, text)
            session.results.figure("overlay", figure, session.last_step)
