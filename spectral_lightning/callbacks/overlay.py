"""The theory of a training, drawn beside its measurement: the Lightning callback."""

from __future__ import annotations

from typing import Literal

from spectral_lightning.callbacks.observer import ObserverCallback
from spectral_lightning.theory import LearningDynamics
from spectral_lightning.tracking import Overlay

__all__ = ["AnalyticOverlay"]


class AnalyticOverlay(Overlay, ObserverCallback):
    """Predicts what a tracker measures: a theory, through the same sampler, from the same initial gain.

    The theory is the one given, else the module's own (``dynamics()`` and ``departures()``), else it is derived from the
    network's convention; see :class:`~spectral_lightning.tracking.Overlay` for that, for the clock and for what is written.

    Args:
        theory: a family to compare with, instead of the module's own or the derived one. Supplied by the user, not
            verified.
        clock: ``"learning_rate"``, ``"fitted"``, or ``"auto"``: the learning rate unless a departure of the module or the
            optimizer forbids it.
        calibrate_after: share of the eligible modes that must cross before the clock is fitted.
        figures_per_decade: figures per factor of ten in steps, besides the one at the end.
        tracker: name of the tracker to follow.

    Raises:
        TypeError: for a ``theory`` that is no family.
        ValueError: for an argument out of range; when training is set up, for a missing tracker or a model that is sampled
            by a function.
    """

    def __init__(
        self,
        theory: LearningDynamics | None = None,
        clock: Literal["auto", "learning_rate", "fitted"] = "auto",
        calibrate_after: float = 0.25,
        figures_per_decade: int = 2,
        tracker: str = "spectral",
    ) -> None:
        super().__init__(theory, clock, calibrate_after, figures_per_decade)
        self.tracker_name = tracker
