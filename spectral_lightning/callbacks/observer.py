"""A callback that observes a tracker's session."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer

from spectral_lightning.callbacks.base import SpectralCallback
from spectral_lightning.callbacks.tracker import SpectralTracker
from spectral_lightning.tracking import switched_off
from spectral_lightning.tracking.session import Observer

__all__ = ["ObserverCallback"]


class ObserverCallback(Observer, SpectralCallback):
    """Observes the session of a :class:`SpectralTracker` on the same Trainer.

    The tracker is found by name when the Trainer is set up; the order of the callbacks does not matter.
    """

    tracker_name: str = "spectral"

    @property
    def state_key(self) -> str:
        """Distinguishes several instances in a checkpoint."""
        return f"{type(self).__name__}[{self.tracker_name}]"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the tracker and observe its session.

        Raises:
            ValueError: if the Trainer has no tracker of that name.
        """
        if stage != "fit" or switched_off():
            return
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        trackers = {c.session.name: c for c in callbacks if isinstance(c, SpectralTracker)}
        if self.tracker_name not in trackers:
            present = f"those named {', '.join(map(repr, trackers))}" if trackers else "none"
            raise ValueError(
                f"{type(self).__name__} needs a SpectralTracker named {self.tracker_name!r} among the callbacks, "
                f"got {present}. Add SpectralTracker(), or pass its name as `tracker`."
            )
        trackers[self.tracker_name].session.observe(self)
