"""The figure of the denoiser's gains."""

from __future__ import annotations

from spectral_lightning.report import gain_figure
from spectral_lightning.tracking.observers.chart import Chart
from spectral_lightning.tracking.session import Session

__all__ = ["GainFigure"]


class GainFigure(Chart):
    """Draws the measured gains beside the predicted ones."""

    def draw(self, session: Session) -> None:
        """Draw the gains, if they are measured."""
        if "gain" in session.measured and session.results.draws:
            with session.cost.of("figures"):
                figure = gain_figure(session.measured, session.prediction, session.results.shown_modes)
                session.results.figure("gain", figure, session.last_step)
