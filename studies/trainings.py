"""Trainings: files of ``configs/`` with the changes that ``trainings.yaml`` makes in them, run, resumed, stored once they end."""

from __future__ import annotations

import copy
import difflib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from spectral_lightning.spectra import SpectralHistory
from studies.store import ROOT, STORE, write_tables

__all__ = ["NAMES", "STUDIES", "WORK", "Run", "adopt", "chosen", "fingerprint", "is_done", "run_all", "train"]

_HERE = Path(__file__).parent
WORK = ROOT / "runs" / "results"
_EVERY = 200  # steps between checkpoints: what an interruption costs at most


@dataclass(frozen=True)
class Run:
    """One training: a configuration and its changes.

    ``given`` holds ``config``, the name of a file in ``configs/`` without ``.yaml``; ``trackers``, the arguments of each
    tracker, whose ``overlay`` holds those of the prediction, or False for none; and values by dotted key, such as
    ``{"trainer.max_steps": 10}``, each of which replaces the value in the file.
    """

    name: str  # unique in its study
    given: Mapping[str, Any]

    def configuration(self) -> dict[str, Any]:
        """The whole configuration, as ``spectral-lightning fit --config`` reads it.

        Raises:
            ValueError: for a change inside something that is not a table.
        """
        changes = {**self.given, "trainer.callbacks": self._callbacks()}
        del changes["trackers"]
        whole: dict[str, Any] = yaml.safe_load((ROOT / "configs" / f"{changes.pop('config')}.yaml").read_text())
        for key, value in changes.items():
            *parents, last = key.split(".")
            place: Any = whole
            for parent in parents:
                place = place.setdefault(parent, {}) if isinstance(place, dict) else None
            if not isinstance(place, dict):
                raise ValueError(f"`changes` must name entries of tables, got {key!r}. Give the list as a whole.")
            place[last] = copy.deepcopy(value)
        return whole

    def _callbacks(self) -> list[dict[str, Any]]:
        found = []
        for one in self.given["trackers"]:
            about = {name: value for name, value in one.items() if name != "overlay"}
            found.append({"class_path": "spectral_lightning.callbacks.SpectralTracker", "init_args": about})
            if one.get("overlay") is not False:
                overlay = {"tracker": one["name"], "figures_per_decade": 1, **one.get("overlay", {})}
                found.append({"class_path": "spectral_lightning.callbacks.AnalyticOverlay", "init_args": overlay})
        return found


Studies = Mapping[str, Sequence[Run]]

STUDIES: Studies = {
    study: [Run(name, given) for name, given in runs.items()]
    for study, runs in yaml.safe_load((_HERE / "trainings.yaml").read_text()).items()
    if not study.startswith(".")
}
"""The trainings of every study by name, the longest ones first."""

NAMES: dict[str, dict[str, Any]] = yaml.safe_load((_HERE / "names.yaml").read_text())
"""Their names on the page."""


def chosen(names: Sequence[str]) -> Studies:
    """The named studies, or all of them.

    Raises:
        ValueError: for an unknown name.
    """
    unknown = sorted(set(names) - set(STUDIES))
    if unknown:
        raise ValueError(f"`names` must be among {', '.join(STUDIES)}, got {', '.join(unknown)}.")
    return {name: STUDIES[name] for name in names or STUDIES}


def fingerprint(configuration: Mapping[str, Any]) -> str:
    """Identifies a configuration.

    Our classes and functions count by their bare name, so that moving one to another module changes nothing.
    """
    text = json.dumps(configuration, sort_keys=True)
    bare = re.sub(r'"(?:spectral_lightning|studies|experiments)(?:\.\w+)*\.(\w+)"', r'"\1"', text)
    return hashlib.sha256(bare.encode()).hexdigest()[:16]


def is_done(run: Run, stored: Path) -> bool:
    """Whether the stored result is that of this configuration, as trained or as adopted."""
    about = stored / "run.json"
    return about.is_file() and json.loads(about.read_text())["configuration"] == fingerprint(run.configuration())


def adopt(studies: Studies, store: Path = STORE) -> None:
    """Declare the stored results to be those of the present configurations, and print what differs.

    For changes that rename or regroup settings and leave the training as it was, which the caller has checked. The
    stored ``config.yaml`` remains that of the training.
    """
    for run, stored in ((run, store / name / run.name) for name, runs in studies.items() for run in runs):
        if (stored / "run.json").is_file() and not is_done(run, stored):
            before, after = (stored / "config.yaml").read_text(), _yaml(run.configuration())
            names = str(stored.relative_to(store)), "now"
            for line in difflib.unified_diff(before.splitlines(), after.splitlines(), *names, n=1, lineterm=""):
                print(line)
            _about(run, stored, json.loads((stored / "run.json").read_text()))


def train(arguments: Sequence[str], log: Path) -> bool:
    """``spectral-lightning`` with these arguments in a process with one thread; whether it succeeded."""
    command = [sys.executable, "-m", "spectral_lightning.cli", *arguments]
    with log.open("a") as opened:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        ended = subprocess.run(command, cwd=ROOT, env=environment, stdout=opened, stderr=opened, check=False)
    return ended.returncode == 0


def run_all(
    studies: Studies,
    jobs: int = 2,
    store: Path = STORE,
    work: Path = WORK,
    training: Callable[[Sequence[str], Path], bool] = train,
) -> None:
    """Train what is not stored yet, continuing from the last checkpoint of an interrupted training.

    Args:
        studies: trainings by name of the study.
        jobs: trainings at a time.
        store: where results are kept.
        work: where trainings keep checkpoints and logs; may be deleted afterwards.
        training: trains by the arguments of ``spectral-lightning``, writes to a log file, and returns whether it succeeded.

    Raises:
        RuntimeError: once all trainings have ended, if some failed.
    """

    def failed(run: Run, place: str) -> Path | None:
        # A directory for each configuration: a checkpoint of another one is not continued from.
        directory = work / place / fingerprint(run.configuration())
        print(f"started: {place}", flush=True)
        fine = training(_prepared(run, directory), directory / "training.log")
        if fine:
            _keep(run, directory / "log", store / place)
        print(f"{'done' if fine else 'failed'}: {place}", flush=True)
        return None if fine else directory

    places = [(run, f"{name}/{run.name}") for name, runs in studies.items() for run in runs]
    waiting = [(run, place) for run, place in places if not is_done(run, store / place)]
    with ThreadPoolExecutor(jobs) as pool:
        broken = [str(one) for one in pool.map(lambda pair: failed(*pair), waiting) if one]
    if broken:
        raise RuntimeError("\n".join(["Trainings failed, see training.log there; run again to continue.", *broken]))


def _prepared(run: Run, directory: Path) -> list[str]:
    """Arguments for the command line: log and checkpoints in ``directory``, continuing from the last checkpoint there."""
    directory.mkdir(parents=True, exist_ok=True)
    whole, checkpoint, config = run.configuration(), directory / "last.ckpt", directory / "config.yaml"
    logger = {"save_dir": str(directory), "name": "", "version": "log"}
    saver = {"dirpath": str(directory), "filename": "last", "every_n_train_steps": _EVERY}
    saver["enable_version_counter"] = False
    saving = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": saver}
    whole["trainer"] |= {
        "enable_progress_bar": False,
        "logger": {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": logger},
        "callbacks": [*whole["trainer"]["callbacks"], saving],
    }
    config.write_text(_yaml(whole))
    if checkpoint.is_file():
        return ["fit", "--config", str(config), "--ckpt_path", str(checkpoint)]
    shutil.rmtree(directory / "log", ignore_errors=True)
    return ["fit", "--config", str(config)]


def _keep(run: Run, log: Path, stored: Path) -> None:
    """Store tables, costs and configuration; ``run.json`` comes last, because its presence marks the result as complete."""
    shutil.rmtree(stored, ignore_errors=True)
    stored.mkdir(parents=True)
    about: dict[str, Any] = {"seconds": 0.0, "tracking_seconds": 0.0, "overlay": {}}
    for files in sorted(file.parent for file in log.glob("*/history.npz")):
        predicted = None
        if (files / "prediction.npz").is_file():
            predicted = SpectralHistory.load(files / "prediction.npz")
            about["overlay"][files.name] = json.loads((files / "overlay.json").read_text())
        write_tables(stored / f"{files.name}.npz", SpectralHistory.load(files / "history.npz"), predicted)
        cost = json.loads((files / "cost.json").read_text())
        about["seconds"] = max(about["seconds"], cost["total"])
        about["tracking_seconds"] += sum(cost["seconds"].values())
    if not any(stored.iterdir()):
        raise RuntimeError(f"The training of {run.name!r} ended without a measurement in {log}.")
    (stored / "config.yaml").write_text(_yaml(run.configuration()))
    _about(run, stored, about)


def _about(run: Run, stored: Path, about: Mapping[str, Any]) -> None:
    document = {**about, "configuration": fingerprint(run.configuration())}
    (stored / "run.json").write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")


def _yaml(configuration: Mapping[str, Any]) -> str:
    return yaml.safe_dump(configuration, sort_keys=False)
