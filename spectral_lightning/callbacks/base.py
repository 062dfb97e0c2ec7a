"""Callbacks that pass in a Trainer of ``lightning`` and of ``pytorch_lightning`` alike."""

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
    # Two classes of one name: a Trainer and a CLI of either package accept only their own.
    _other = importlib.import_module("pytorch_lightning.callbacks").Callback
    _bases = (Callback,) if _other is Callback else (Callback, _other)
    SpectralCallback = type("SpectralCallback", _bases, {"__doc__": "Base of the callbacks of this package."})
