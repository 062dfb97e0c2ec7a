"""What tracking takes of whole trainings: everything it does, from reading the data to the last figure.

Run ``OMP_NUM_THREADS=1 python benchmarks/whole.py [NAME ...]``. Each training is one of ``configs/`` with the trackers named
here, each with its overlay and fitter, logging to TensorBoard. Times are of the wall clock, as users see them; the share is
that of one tracker in a training with this tracker alone.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from spectral_lightning.cli import main as command
from spectral_lightning.spectra import SpectralHistory

ROOT = Path(__file__).parents[1]
PACKAGE = "spectral_lightning.callbacks"
PAPER_ROWS = np.unique(np.geomspace(1, 3000, 486).round())  # with step 0, as many as in the paper's experiment

WHOLE: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "demo": ("natural_patches_mlp", {}, {"standard": {}}),
    "experiment 1": (
        "gaussian_mlp",
        {"trainer.max_steps": 3000},
        {
            "standard": {"schedule": {"per_decade": 18}},
            "economy": {"schedule": {"per_decade": 18}, "sampling": {"preset": "economy"}},
        },
    ),
    "U-Net": (
        "natural_patches_unet",
        {
            "trainer.max_steps": 5000,
            "model.init_args.shape": [1, 8, 8],
            "data.init_args": {"size": 8, "stride": 4, "batch_size": 128},
        },
        {"standard": {}},
    ),
}  # fmt: skip


def run(config: str, changes: dict[str, Any], trackers: dict[str, Any], folder: Path) -> None:
    """Train a configuration with these trackers."""
    whole = yaml.safe_load((ROOT / "configs" / f"{config}.yaml").read_text())
    for key, value in changes.items():
        *parents, last = key.split(".")
        place = whole
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    callbacks = []
    for name, settings in trackers.items():
        callbacks.append({"class_path": f"{PACKAGE}.SpectralTracker", "init_args": {"name": name, **settings}})
        callbacks += [
            {"class_path": f"{PACKAGE}.{observer}", "init_args": {"tracker": name}}
            for observer in ("AnalyticOverlay", "EmergenceFitter")
        ]
    whole["trainer"] |= {"callbacks": callbacks, "enable_progress_bar": False}
    whole["trainer"]["logger"]["init_args"] |= {"save_dir": str(folder), "name": "log"}
    (folder / "config.yaml").write_text(yaml.safe_dump(whole, sort_keys=False))
    command(["fit", "--config", str(folder / "config.yaml")])


def main() -> None:
    """Train and print one row per tracker."""
    print(
        "| training | tracker | measurements | rows on the paper's grid | tracking [s] | by kind | training [s] | share |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name in sys.argv[1:] or WHOLE:
        with tempfile.TemporaryDirectory() as folder:
            run(*WHOLE[name], Path(folder))
            spent = {f.parent.name: json.loads(f.read_text()) for f in Path(folder).rglob("cost.json")}
            every = sum(sum(cost["seconds"].values()) for cost in spent.values())
            for tracker, cost in spent.items():
                history = SpectralHistory.load(next(Path(folder).rglob(f"{tracker}/history.npz")))
                rows = 1 + int((history.steps[-1] >= PAPER_ROWS).sum()) if name == "experiment 1" else len(history)
                seconds = cost["seconds"]
                one, alone = sum(seconds.values()), cost["total"] - every
                kinds = ", ".join(f"{kind} {s:.1f}" for kind, s in sorted(seconds.items(), key=lambda pair: -pair[1]))
                print(
                    f"| {name} | {tracker} | {len(history)} | {rows} | {one:.1f} | {kinds} | {alone:.0f} | "
                    f"{one / (alone + one):.1%} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
