"""Scalars and the figure of the loss over its linear floor."""

from __future__ import annotations

import numpy as np

from spectral_lightning.report import floor_figure
from spectral_lightning.spectra import SpectralHistory
from spectral_lightning.tracking.session import Observer, Session
from spectral_lightning.tracking.timing import Schedule

__all__ = ["FloorFigure"]

_CATEGORY = "Loss over its linear floor, by optimizer updates"
_KINDS = {"held_out": "over_floor", "within_classes": "over_class_floor"}
_FEWEST = 16  # examples of a training mean that is logged


class FloorFigure(Observer):
    """Logs the loss over its linear floor at every noise level, and draws it.

    A figure is due once per decade of steps from 1000 on, and at the end. Tags are ``<name>/floor/held_out/sigma_0.5``,
    ``within_classes`` for models conditioned on labels, and ``training``, the mean over training passes of similar sigma.
    """

    order = 2

    def __init__(self) -> None:
        self.figures, self._drawn = Schedule(1), 0

    def on_begin(self, session: Session) -> None:
        """Lay out the charts, and continue the schedule of figures in a resumed run."""
        self._drawn = session.last_step
        history = session.measured
        for sigma in history["levels"] if "linear_error" in history else ():
            tags = [_tag(session, kind, sigma) for kind in ("held_out", "within_classes", "training")]
            session.results.sinks.chart(_CATEGORY, f"sigma {sigma:.3g}", tags)

    def on_measurement(self, session: Session) -> None:
        """Log, and draw if a figure is due."""
        if "bins" not in session.measured:
            return
        scalars = _scalars(session)
        session.training.publish(scalars)
        with session.cost.of("writing"):
            session.results.sinks.scalars(scalars, session.last_step)
        if self.figures.figure_due(self._drawn, session.last_step):
            self._draw(session)

    def on_end(self, session: Session) -> None:
        """Draw the whole run."""
        if session.last_step != self._drawn and "bins" in session.measured:
            self._draw(session)

    def _draw(self, session: Session) -> None:
        self._drawn, history = session.last_step, session.measured
        if session.results.draws and ("over_floor" in history or history["training_count"].any()):
            with session.cost.of("figures"):
                session.results.figure("floor", floor_figure(history), session.last_step)


def _tag(session: Session, kind: str, sigma: float) -> str:
    return f"{session.name}/floor/{kind}/sigma_{sigma:.3g}"


def _scalars(session: Session) -> dict[str, float]:
    """The finite ratios of the newest row."""
    history: SpectralHistory = session.measured
    row, levels, values = history.row(-1), history["levels"], {}
    for kind, field in _KINDS.items():
        for i, sigma in enumerate(levels if field in row else ()):
            values[_tag(session, kind, sigma)] = float(row[field][i])
    nearest = np.abs(np.log(history["bins"])[:, None] - np.log(levels)).argmin(0)
    for sigma, k in zip(levels, nearest, strict=True):
        if row["training_count"][k] >= _FEWEST:
            values[_tag(session, "training", sigma)] = float(row["training_error"][k] / row["training_linear_error"][k])
    return {tag: value for tag, value in values.items() if np.isfinite(value)}
