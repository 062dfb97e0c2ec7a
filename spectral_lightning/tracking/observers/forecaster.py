"""What has been learnt, what is missing and when it will come: scalars, a warning, one sentence, and a file."""

from __future__ import annotations

from spectral_lightning.prediction import Outlook, outlook
from spectral_lightning.tracking.session import Observer, Session

__all__ = ["Forecaster"]

_CATEGORY = "What has been learnt, by optimizer updates"
_CHARTS = {
    "share learnt": (
        "share_of_variance",
        "share_of_modes",
        "share_of_modes_within_10_percent",
        "share_of_modes_at_end",
        "share_of_variance_at_end",
    ),
    "steps to 90 % of the modes": ("steps_to_90_percent", "steps_to_90_percent_low", "steps_to_90_percent_high"),
}


class Forecaster(Observer):
    """Says what has been learnt, what is missing and when it will come, by the criterion of a :class:`Fitter`.

    Trackers and monitors have one. It does nothing without a fitter. At every measurement it logs a handful of scalars as
    ``<name>/answers/...`` and renews ``forecast.json``; see :class:`~spectral_lightning.prediction.Outlook` for what they mean.
    As soon as it is known that the training will stop before important modes are learnt, it prints that, once; at the end, one
    sentence. All of it follows from the history, so that a resumed run needs no state.

    Attributes:
        outlook: of the last measurement; None before the first one or without a fitter.
    """

    order = 3

    def __init__(self) -> None:
        self.outlook: Outlook | None = None
        self._warned = False

    def on_begin(self, session: Session) -> None:
        """Lay out the charts."""
        self.outlook, self._warned = None, False
        for title, names in _CHARTS.items() if session.judgement is not None else ():
            session.results.sinks.chart(_CATEGORY, title, [_tag(session, name) for name in names], first=True)

    def on_measurement(self, session: Session) -> None:
        """Log, warn, and write."""
        found = self._look(session, durable=False)
        if found is None:
            return
        scalars = {_tag(session, name): value for name, value in found.scalars().items()}
        session.training.publish(scalars)
        if found.warning and not self._warned:
            self._warned = True
            session.training.say(f"{session.name}: {found.warning}")
        with session.cost.of("writing"):
            session.results.sinks.scalars(scalars, session.last_step)

    def on_end(self, session: Session) -> None:
        """Write, and print the sentence."""
        found = self._look(session, durable=True)
        if found is not None:
            session.training.say(f"{session.name}: {found.sentence}")

    def _look(self, session: Session, durable: bool) -> Outlook | None:
        if session.judgement is None:
            return None
        criterion, gray = session.judgement
        with session.cost.of("forecast"):
            end = session.training.last_step()
            self.outlook = outlook(session.measured, session.prediction, criterion=criterion, gray_factor=gray, end=end)
        if session.results.files is not None:
            with session.cost.of("writing"):
                session.results.files.write_json("forecast.json", self.outlook.document(), durable=durable)
        return self.outlook


def _tag(session: Session, name: str) -> str:
    return f"{session.name}/answers/{name}"
