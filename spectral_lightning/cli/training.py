"""The subcommands that train, which need Lightning."""

from __future__ import annotations

import sys

from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningCLI

# Imported so that their classes can be named without a path.
import spectral_lightning.callbacks
import spectral_lightning.datamodules
import spectral_lightning.models  # noqa: F401

__all__ = ["train"]


def train(arguments: list[str] | None) -> None:
    """Run Lightning's command line with ``arguments``, or ``sys.argv`` if None."""
    every = LightningCLI.subcommands()
    first = (sys.argv[1:] if arguments is None else arguments)[0]

    class Named(LightningCLI):
        """Only the subcommand that is asked for: each takes a fifth of a second to set up."""

        @staticmethod
        def subcommands() -> dict[str, set[str]]:
            return {first: every[first]} if first in every else every

    Named(
        LightningModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        args=arguments,
        save_config_kwargs={"overwrite": True},
    )
