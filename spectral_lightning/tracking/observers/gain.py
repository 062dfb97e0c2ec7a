"""The figure of the denoiser's gains."""

from __future__ import annotations

from spectral_lightning.report import gain_figure
from spectral_lightning.tracking.session import Observer, Session
from spectral_lightning.tracking.timing import Schedule

__all__ = ["GainFigure"]


class GainFigure(Observer):
    """Draws the measured gains beside the predicted ones, once per decade of steps from 1000 on, and at the end."""

    order = 2

    def __init__(self) -> None:
        self.figures, self._drawn = Schedule(1), 0

    def on_begin(self, session: Session) -> None:
        """Continue the schedule of figures in a resumed run."""
        self._drawn = session.last_step

    def on_measurement(self, session: Session) -> None:
        """Draw if a figure is due."""
        if self.figures.figure_due(self._drawn, session.last_step):
            self._draw(session)

    def on_end(self, session: Session) -> None:
        """Draw the last measurement."""
        if session.last_step != self._drawn:
            self._draw(session)

    def _draw(self, session: Session) -> None:
        self._drawn = session.last_step
        if "gain" in session.measured and session.results.draws:
            with session.cost.of("figures"):
                figure = gain_figure(session.measured, session.prediction, session.results.shown_modes)
                session.results.figure("gain", figure, session.last_step)
