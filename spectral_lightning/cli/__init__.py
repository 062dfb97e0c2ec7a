"""The command ``spectral-lightning``."""

from spectral_lightning.cli.main import main

__all__ = ["main"]
