"""Where the theory starts: gains of the untrained network, or its whole response matrix. Error and cost of both.

`OMP_NUM_THREADS=1 python benchmarks/start.py` trains each network twice, alike to the bit, and prints a table. The errors are
root mean squares of the log of measured over predicted variance: before training over all modes with variance, then over
the modes outside the gray zone and all measurements, or those after the clock was fitted. Beside them the rms for variances
that never change.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from spectral_lightning import DiffusionModule, GaussianDataModule, PatchDataModule, ResidualMLP, SpectralMonitor
from spectral_lightning.theory import Preconditioning
from spectral_lightning.tracking import Output, Overlay

STEPS = 1000


def followed(network: nn.Module, kind: str, rows: Tensor, start: str) -> tuple[dict, dict]:
    """The overlay's report and the seconds of the run, by part."""
    torch.manual_seed(0)
    module = DiffusionModule(network, preconditioning=Preconditioning(kind, sigma_data=float(rows.std())))
    optimizer = torch.optim.Adam(module.parameters(), lr=3e-4)
    with tempfile.TemporaryDirectory() as folder:
        overlay, output = Overlay(start=start), Output(folder, figures=False)
        with SpectralMonitor(module, rows, optimizer=optimizer, observers=[overlay], output=output):
            for _ in range(STEPS):
                optimizer.zero_grad()
                module.loss(rows[torch.randint(len(rows), (256,))]).backward()
                optimizer.step()
        reports = (json.loads(next(Path(folder).rglob(name)).read_text()) for name in ("overlay.json", "cost.json"))
        return next(reports), next(reports)


def main() -> None:
    """Train, measure, print."""
    data = {f"Gaussian d = {d}": GaussianDataModule(dim=d, spectrum="lognormal", num_samples=10_000) for d in (64, 512)}
    data["power law d = 64"] = GaussianDataModule(dim=64, spectrum="power_law", exponent=1.5, num_samples=10_000)
    data["patches 8x8"] = PatchDataModule(size=8, stride=4, max_patches=20_000)
    data["patches 16x16"] = PatchDataModule(size=16, stride=4, max_patches=20_000)
    runs = [(name, "edm") for name in data] + [("power law d = 64", kind) for kind in ("variance_preserving", "flow")]
    print(
        "| data, preconditioning | start | error at step 0 | whole run | after the fit | unchanged | theory [s] | run [s] |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name, kind in runs:
        if len(sys.argv) > 1 and not any(word in f"{name}, {kind}" for word in sys.argv[1:]):
            continue
        data[name].setup("fit")
        rows = data[name].train_rows.data
        for start in ("gains", "response"):
            torch.manual_seed(0)
            network = ResidualMLP(list(rows.shape[1:]), width=256, num_blocks=4)
            report, cost = followed(network, kind, rows, start)
            whole, later = report["goodness_of_fit"], report["goodness_after_calibration"]
            print(
                f"| {name}, {kind} | {start} | {report['rms_at_start']['used']:.2f} | {whole['rms']:.2f} | "
                f"{later['rms'] or float('nan'):.2f} | {whole['baseline']:.2f} | {cost['seconds']['theory']:.2f} | "
                f"{cost['total']:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
