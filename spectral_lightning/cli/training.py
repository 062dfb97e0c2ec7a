"""The subcommands that train, which need Lightning."""

from __future__ import annotations

from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningCLI

# Imported so that their classes can be named without a path.
import spectral_lightning.callbacks
import spectral_lightning.datamodules
import spectral_lightning.models  # noqa: F401

__all__ = ["train"]


def train(arguments: list[str] | None) -> None:
    """Run Lightning's command line with ``arguments``, or ``sys.argv`` if None."""
    LightningCLI(
        LightningModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        args=arguments,
        save_config_kwargs={"overwrite": True},
    )
