"""Faces and handwritten digits: an MLP against a U-Net, in eigenmodes and in Fourier modes."""

from __future__ import annotations

from typing import Any

from experiments.definition import Experiment, Report, Run, trackers
from experiments.results import Results

__all__ = ["EXPERIMENT"]

_SAMPLES, _HEUN_STEPS, _PER_DECADE, _SIDE = 256, 12, 10, 16
_SMALL: dict[str, dict[str, Any]] = {
    "unet": {"width": 16, "multipliers": [1, 2], "num_blocks": 1},
    "mlp": {"width": 512, "num_blocks": 6, "embedding": 128},
}


def _run(data: str, network: str) -> Run:
    """One data set at 16 x 16 pixels and one network of a size for a CPU."""
    changes: dict[str, Any] = {
        "trainer.max_steps": 800,
        "data.init_args.resize": _SIDE,
        "data.init_args.batch_size": 100 if data == "faces" else 128,  # 100 is a quarter of the faces
        "data.init_args.val_fraction": 0,
        "model.init_args.shape": [1, _SIDE, _SIDE],
        "trainer.callbacks": trackers(_SAMPLES, _PER_DECADE, _HEUN_STEPS, bases={"fourier": "fourier"}),
    }
    sizes = {f"model.init_args.{name}": value for name, value in _SMALL[network].items()}
    return Run(f"{data}_{network}", f"{data}_{network}", {**changes, **sizes})


def report(results: Results) -> Report:
    """What the two networks say on the two data sets."""
    raise NotImplementedError


EXPERIMENT = Experiment(
    name="images",
    title="Faces and digits, MLP and U-Net",
    question="Does an MLP learn faces and digits in the order of their modes' variance, and a U-Net all at once?",
    runs=tuple(_run(data, network) for network in ("unet", "mlp") for data in ("mnist", "faces")),
    report=report,
)
