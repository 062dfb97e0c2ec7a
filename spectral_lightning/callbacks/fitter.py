"""Emergence times and the power law through them: the Lightning callback."""

from __future__ import annotations

from spectral_lightning.callbacks.observer import ObserverCallback
from spectral_lightning.tracking import Fitter

__all__ = ["EmergenceFitter"]


class EmergenceFitter(Fitter, ObserverCallback):
    """Emergence time of every mode and the law ``tau* ~ lambda^(-alpha)`` per direction, measured and predicted alike.

    See :class:`~spectral_lightning.tracking.Fitter` for the rules and for what is written.

    Args:
        criterion: ``"geometric"``, ``"harmonic"``, ``"arithmetic"``, or a fraction of the target.
        gray_factor: modes that start within this factor of their target are left out.
        figures_per_decade: figures per factor of ten in steps, besides the one at the end.
        tracker: name of the tracker to follow.

    Raises:
        ValueError: for an argument out of range; when training is set up, for a missing tracker.
    """

    def __init__(
        self,
        criterion: str | float = "geometric",
        gray_factor: float = 2.0,
        figures_per_decade: int = 2,
        tracker: str = "spectral",
    ) -> None:
        super().__init__(criterion, gray_factor, figures_per_decade)
        self.tracker_name = tracker
