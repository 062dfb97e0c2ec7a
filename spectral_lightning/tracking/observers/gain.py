"""The figure of the denoiser's gains."""

from __future__ import annotations

from spectral_lightning.report import gain_figure
from spectral_lightning.tracking.session import Observer, Session
from spectral_lightning.tracking.timing import Schedule

__all__ = ["GainFigure"]


class GainFigure(Observer):
    """Draws the measured gains beside the predicted ones, once per decade of steps from 100 on, and at the end."""

    order = 2

    def __init__(self) -> None:
        self.figures, self._drawn = Schedule(1), 0

    def on_begin(self, session: Session) -> None:
        """Continue the schedule of figures in a resumed run."""
        self._drawn = session.last_step

    def on_measurement(self, session: Session) -> None:
        """Draw if a figure is due."""
        step, history = session.last_step, session.measured
        if "gain" not in history or not (history.row(-1)["final"] or self.figures.figure_due(self._drawn, step)):
            return
        self._drawn = step
        if session.results.draws:
            with session.cost.of("figures"):
                figure = gain_figure(history, session.prediction, session.results.shown_modes)
                session.results.figure("gain", figure, step)
