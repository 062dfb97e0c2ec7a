"""The command ``spectral-lightning``: Lightning's subcommands, and ours that need no Trainer."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "summary": "spectral_lightning.report.summary:summarise",
    "theory": "spectral_lightning.report.theory.command:draw_theory",
    "exponents": "spectral_lightning.report.theory.command:print_exponents",
    "paper-figures": "spectral_lightning.report.theory.command:draw_paper_figures",
}
"""Subcommands that need no Trainer, with the functions they call. They do not import Lightning."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``spectral-lightning``."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] in COMMANDS:
        from jsonargparse import auto_cli  # noqa: PLC0415

        home, _, name = COMMANDS[given[0]].partition(":")
        function = getattr(importlib.import_module(home), name)
        auto_cli(function, args=given[1:], prog=f"spectral-lightning {given[0]}")
        return
    from spectral_lightning.cli.training import train  # noqa: PLC0415

    train(None if arguments is None else given)
