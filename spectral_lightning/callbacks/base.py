"""A base class that Trainers of ``lightning`` and of ``pytorch_lightning`` both accept."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING

from lightning.pytorch.callbacks import Callback

__all__ = ["SpectralCallback"]

if TYPE_CHECKING or importlib.util.find_spec("pytorch_lightning") is None:

    class SpectralCallback(Callback):
        """Base of the callbacks of this package."""

else:
    # Each package has its own Callback class, and its Trainer and CLI accept no other.
    _other = importlib.import_module("pytorch_lightning.callbacks").Callback
    _bases = (Callback,) if _other is Callback else (Callback, _other)
    SpectralCallback = type("SpectralCallback", _bases, {"__doc__": "Base of the callbacks of this package."})
