"""Lightning callback for emergence times and their power law."""

from __future__ import annotations

from spectral_lightning.callbacks.observer import ObserverCallback
from spectral_lightning.emergence import Criterion
from spectral_lightning.tracking import Fitter

__all__ = ["EmergenceFitter"]


class EmergenceFitter(Fitter, ObserverCallback):
    """Finds the emergence time of every mode and fits ``tau* ~ lambda^(-alpha)``, for measurement and prediction alike.

    See :class:`~spectral_lightning.tracking.Fitter` for the rules and the files. With it, the tracker also says what has been
    learnt and forecasts the rest: a few scalars, ``forecast.json`` and one sentence at the end.

    Args:
        criterion: ``"geometric"``, ``"harmonic"``, ``"arithmetic"``, a fraction of the target, or ``"within 10 %"``.
        gray_factor: modes that start within this factor of their target are not fitted.
        figures_per_decade: figures per factor of ten in steps, from 1000 on, in addition to the final one; none within one
            interval before a known end.
        tracker: name of the tracker to follow.

    Raises:
        ValueError: for an argument out of range; when training is set up, if the tracker is missing.
    """

    def __init__(
        self,
        criterion: Criterion = "geometric",
        gray_factor: float = 2.0,
        figures_per_decade: int = 1,
        tracker: str = "spectral",
    ) -> None:
        super().__init__(criterion, gray_factor, figures_per_decade)
        self.tracker_name = tracker
