"""What observers that only draw a figure have in common: when they draw it."""

from __future__ import annotations

from abc import abstractmethod

from spectral_lightning.tracking.session import Observer, Session
from spectral_lightning.tracking.timing import Schedule

__all__ = ["Chart"]


class Chart(Observer):
    """Draws a figure at the end and once per decade of steps, from 1000 on but not within a decade before a known end."""

    order = 2

    def __init__(self) -> None:
        self._figures, self._drawn = Schedule(1), 0

    @abstractmethod
    def draw(self, session: Session) -> None:
        """Draw the history so far."""

    def on_begin(self, session: Session) -> None:
        """Continue the schedule of figures in a resumed run."""
        self._drawn = session.last_step

    def on_measurement(self, session: Session) -> None:
        """Draw if a figure is due."""
        if session.figure_due(self._figures, self._drawn):
            self._draw(session)

    def on_end(self, session: Session) -> None:
        """Draw the last measurement."""
        if session.last_step != self._drawn:
            self._draw(session)

    def _draw(self, session: Session) -> None:
        self._drawn = session.last_step
        self.draw(session)
