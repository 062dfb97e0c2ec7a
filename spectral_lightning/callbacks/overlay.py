"""Lightning callback that compares the theory's prediction with the measurement."""

from __future__ import annotations

from typing import Literal

from spectral_lightning.callbacks.observer import ObserverCallback
from spectral_lightning.theory import LearningDynamics
from spectral_lightning.tracking import Overlay

__all__ = ["AnalyticOverlay"]


class AnalyticOverlay(Overlay, ObserverCallback):
    """Predicts what a tracker measures: a theory passed through the same sampler, from where the network starts.

    The theory is the ``theory`` argument, else the module's own (``dynamics()`` and ``departures()``), else derived from
    the network's convention. See :class:`~spectral_lightning.tracking.Overlay` for the derivation, the start, the clock and the
    files.

    Args:
        theory: a family to use instead of the module's own or the derived theory; it is not verified.
        clock: ``"learning_rate"``, ``"fitted"``, or ``"auto"``: the learning rate unless a departure rules it out.
        calibrate_after: fraction of the eligible modes that must cross before the clock is fitted.
        figures_per_decade: figures per factor of ten in steps, from 1000 on, in addition to the final one; none within one
            interval before a known end.
        start: ``"response"``, the whole response matrix of the untrained network where the theory is one layer;
            ``"gains"``: only its gains along the modes; or ``"auto"``: the matrix if it costs at most two measurements.
        tracker: name of the tracker to follow.

    Raises:
        TypeError: if ``theory`` is not a family.
        ValueError: for an argument out of range; when training is set up, if the tracker is missing or a function does the
            sampling.
    """

    def __init__(
        self,
        theory: LearningDynamics | None = None,
        clock: Literal["auto", "learning_rate", "fitted"] = "auto",
        calibrate_after: float = 0.25,
        figures_per_decade: int = 1,
        start: Literal["auto", "response", "gains"] = "auto",
        tracker: str = "spectral",
    ) -> None:
        super().__init__(theory, clock, calibrate_after, figures_per_decade, start)
        self.tracker_name = tracker
