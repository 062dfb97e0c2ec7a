"""The command ``spectral-lightning``: Lightning's subcommands, and ours that need no Trainer."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Sequence

__all__ = ["COMMANDS", "help_text", "main"]

COMMANDS = {
    "summary": (
        "spectral_lightning.report.summary:summarise",
        "Print a run's summary table and the paths of its results.",
    ),
    "forecast": (
        "spectral_lightning.report.answers:print_forecast",
        "Print what a run has learnt, what is missing, and when it will come.",
    ),
    "emergence": (
        "spectral_lightning.report.answers:print_emergence",
        "Print the emergence of every mode of a run, and the law.",
    ),
    "report": (
        "spectral_lightning.report.html.page:write_report",
        "Write an HTML report about one run, or several side by side, and print where it lies.",
    ),
    "track": (
        "spectral_lightning.tracking.afterwards.command:track",
        "Make the history of a training from the samples or checkpoints that it saved.",
    ),
    "theory": (
        "spectral_lightning.report.theory.command:draw_theory",
        "Draw weights, generated variances and emergence times of a family, and print its table of exponents.",
    ),
    "exponents": (
        "spectral_lightning.report.theory.command:print_exponents",
        "Print how the exponent of emergence depends on the theory and the criterion, for the same data.",
    ),
    "paper-figures": (
        "spectral_lightning.report.theory.command:draw_paper_figures",
        "Draw the counterparts of figures 2, 5, 6, 7 and 8 of Wang & Pehlevan 2025, and two figures of propositions.",
    ),
}
"""Subcommands that need no Trainer: the functions they call, and the first lines of their docstrings."""

_TRAINING = {
    "fit": "Train a LightningModule on a LightningDataModule, with callbacks.",
    "validate": "Evaluate it on the validation set.",
    "test": "Evaluate it on the test set.",
    "predict": "Run it for predictions.",
}


def help_text() -> str:
    """What ``spectral-lightning --help`` prints; it imports neither Lightning nor torch."""

    def table(rows: dict[str, str]) -> str:
        return "\n".join(f"  {name:<15}{text}" for name, text in rows.items())

    return (
        "usage: spectral-lightning COMMAND [options]\n\n"
        "`spectral-lightning COMMAND --help` lists the options of a command.\n\n"
        "Train, with classes and their arguments from YAML (--config FILE) and the command line:\n"
        f"{table(_TRAINING)}\n\n"
        "Read a run, or draw the theory:\n"
        f"{table({name: text for name, (_, text) in COMMANDS.items()})}\n"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``spectral-lightning``."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given in ([], ["--help"], ["-h"]):
        print(help_text(), end="")
        return
    if given[0] in COMMANDS:
        _call(given[0], given[1:])
        return
    from spectral_lightning.cli.training import train  # noqa: PLC0415

    train(None if arguments is None else given)


def _call(command: str, arguments: list[str]) -> None:
    """Call the function of a command; a list ``runs`` is given as plain words. A run that cannot be read costs one line."""
    from jsonargparse import ArgumentParser, auto_cli  # noqa: PLC0415

    home, _, name = COMMANDS[command][0].partition(":")
    function, prog = getattr(importlib.import_module(home), name), f"spectral-lightning {command}"
    parameters = set(inspect.signature(function).parameters)
    try:
        if "runs" not in parameters:
            auto_cli(function, args=arguments, prog=prog)
            return
        parser = ArgumentParser(prog=prog, description=COMMANDS[command][1])
        parser.add_argument("runs", nargs="+", metavar="RUN", help="directories of runs or their parents, or npz files")
        parser.add_function_arguments(function, skip={"runs"})
        function(**parser.parse_args(arguments).as_dict())
    except (FileNotFoundError, ValueError) as error:
        if not parameters & {"runs", "history", "saved"}:
            raise
        sys.exit(f"{prog}: {error}")
