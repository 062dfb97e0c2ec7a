"""Trainings run, resumed where they were interrupted, and kept as small files."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from studies.definition import Experiment, Run

__all__ = ["ROOT", "STORE", "WORK", "is_done", "run_all"]

ROOT = Path(__file__).parents[1]
STORE = ROOT / "docs" / "results"
WORK = ROOT / "runs" / "results"
_EVERY = 200  # steps between checkpoints: what an interruption costs at most
_SAVER = "lightning.pytorch.callbacks.ModelCheckpoint"

_console = Console()


def run_all(experiments: Sequence[Experiment], jobs: int = 2, store: Path = STORE, work: Path = WORK) -> None:
    """Train what is not yet stored, ``jobs`` trainings at a time, each on one thread.

    Args:
        experiments: those to run.
        jobs: trainings at a time.
        store: where the results are kept.
        work: where the trainings keep checkpoints and logs; can be removed afterwards.

    Raises:
        RuntimeError: once all trainings have ended, if some failed.
    """
    waiting = [(e, r) for e in experiments for r in e.runs if not is_done(r, store / e.name / r.name)]
    with ThreadPoolExecutor(jobs) as pool:
        places = [(r, work / e.name / r.name, store / e.name / r.name) for e, r in waiting]
        ended = list(pool.map(lambda place: _run(*place), places))
    failed = [f"{place[1]}: see training.log there" for place, fine in zip(places, ended, strict=True) if not fine]
    if failed:
        raise RuntimeError("\n".join(["These trainings failed; run again to go on.", *failed]))


def is_done(run: Run, stored: Path) -> bool:
    """Whether the stored result is of this very configuration."""
    about = stored / "run.json"
    return about.is_file() and json.loads(about.read_text())["configuration"] == _fingerprint(run)


def _fingerprint(run: Run) -> str:
    return hashlib.sha256(json.dumps(run.configuration(), sort_keys=True).encode()).hexdigest()[:16]


def _run(run: Run, work: Path, stored: Path) -> bool:
    """Train, going on from the last checkpoint of the same configuration, and keep what was measured."""
    mark = work / "configuration"
    if not (mark.is_file() and mark.read_text() == _fingerprint(run)):
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        mark.write_text(_fingerprint(run))
    (work / "config.yaml").write_text(yaml.safe_dump(_placed(run, work), sort_keys=False))
    checkpoint = work / "last.ckpt"
    if not checkpoint.is_file():
        shutil.rmtree(work / "log", ignore_errors=True)
    resumed = ["--ckpt_path", str(checkpoint)] if checkpoint.is_file() else []
    command = [sys.executable, "-m", "spectral_lightning.cli", "fit", "--config", str(work / "config.yaml"), *resumed]
    _console.print(f"{'resumes' if resumed else 'starts'}: {work.parent.name}/{run.name}")
    with (work / "training.log").open("a") as log:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        fine = subprocess.run(command, cwd=ROOT, env=environment, stdout=log, stderr=log, check=False).returncode == 0
    if fine:
        _keep(run, work / "log", stored)
    _console.print(f"{'done' if fine else '[red]failed[/red]'}: {work.parent.name}/{run.name}")
    return fine


def _placed(run: Run, work: Path) -> dict[str, Any]:
    """The configuration with its log and checkpoints in the place of this run."""
    whole = run.configuration()
    trainer = whole["trainer"]
    trainer["enable_progress_bar"] = False
    trainer["logger"] = {
        "class_path": "lightning.pytorch.loggers.CSVLogger",
        "init_args": {"save_dir": str(work), "name": "", "version": "log"},
    }
    saver = {"dirpath": str(work), "filename": "last", "every_n_train_steps": _EVERY, "enable_version_counter": False}
    trainer["callbacks"] = [*trainer["callbacks"], {"class_path": _SAVER, "init_args": saver}]
    return whole


def _keep(run: Run, log: Path, stored: Path) -> None:
    """Copy the tables, and write what else the report needs; ``run.json`` last, because it says that all is there."""
    shutil.rmtree(stored, ignore_errors=True)
    stored.mkdir(parents=True)
    about: dict[str, Any] = {"configuration": _fingerprint(run), "seconds": 0.0, "tracking_seconds": 0.0, "overlay": {}}
    for history in sorted(log.glob("*/history.npz")):
        files, name = history.parent, history.parent.name
        shutil.copyfile(history, stored / f"{name}.npz")
        if (files / "prediction.npz").is_file():
            shutil.copyfile(files / "prediction.npz", stored / f"{name}_theory.npz")
            about["overlay"][name] = json.loads((files / "overlay.json").read_text())
        cost = json.loads((files / "cost.json").read_text())
        about["seconds"] = max(about["seconds"], cost["total"])
        about["tracking_seconds"] += sum(cost["seconds"].values())
    if not any(stored.iterdir()):
        raise RuntimeError(f"The training of {run.name!r} ended without a measurement in {log}.")
    (stored / "config.yaml").write_text(yaml.safe_dump(run.configuration(), sort_keys=False))
    (stored / "run.json").write_text(json.dumps(about, indent=2, sort_keys=True) + "\n")
