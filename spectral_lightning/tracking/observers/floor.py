"""Scalars and the figure of the loss over its linear floor."""

from __future__ import annotations

import numpy as np

from spectral_lightning.report import floor_figure, training_ratio
from spectral_lightning.spectra import SpectralHistory
from spectral_lightning.tracking.observers.chart import Chart
from spectral_lightning.tracking.session import Session

__all__ = ["FloorFigure"]

_CATEGORY = "Loss over its linear floor, by optimizer updates"
_KINDS = {"held_out": "over_floor", "within_classes": "over_class_floor"}


class FloorFigure(Chart):
    """Logs the loss over its linear floor at every noise level, and draws it.

    Tags are ``<name>/floor/held_out/sigma_0.5``, ``within_classes`` for models conditioned on labels, and ``training``, the
    mean over training passes of similar sigma.
    """

    def on_begin(self, session: Session) -> None:
        """Lay out the charts, and continue the schedule of figures in a resumed run."""
        super().on_begin(session)
        history = session.measured
        for sigma in history["levels"] if "linear_error" in history else ():
            tags = [_tag(session, kind, sigma) for kind in ("held_out", "within_classes", "training")]
            session.results.sinks.chart(_CATEGORY, f"sigma {sigma:.3g}", tags, first=True)

    def on_measurement(self, session: Session) -> None:
        """Log, and draw if a figure is due."""
        if "bins" not in session.measured:
            return
        scalars = _scalars(session)
        session.training.publish(scalars)
        with session.cost.of("writing"):
            session.results.sinks.scalars(scalars, session.last_step)
        super().on_measurement(session)

    def draw(self, session: Session) -> None:
        """Draw the losses, if any are measured."""
        history = session.measured
        known = "bins" in history and ("over_floor" in history or history["training_count"].any())
        if known and session.results.draws:
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
    ratio = training_ratio(row["training_error"], row["training_linear_error"], row["training_count"])
    for sigma, k in zip(levels, nearest, strict=True):
        values[_tag(session, "training", sigma)] = float(ratio[k])
    return {tag: value for tag, value in values.items() if np.isfinite(value)}
