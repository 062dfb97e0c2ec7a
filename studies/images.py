"""Faces and handwritten digits: an MLP against a U-Net, in eigenmodes and in Fourier modes."""

from __future__ import annotations

from typing import Any

from spectral_lightning.emergence import STATUS
from studies.definition import Experiment, Report, Row, Run, trackers
from studies.ordering import RULE, WAYS, Orders, judged
from studies.ordering_figure import ordering_figure
from studies.ordering_tables import grouped, order_table, progress_table, theory_exponents
from studies.results import Results

__all__ = ["EXPERIMENT"]

_STEPS, _SAMPLES, _HEUN_STEPS, _PER_DECADE, _SIDE = 600, 256, 12, 10, 16
_BATCH = {"faces": 100, "mnist": 128}  # 100 is a quarter of the faces
_SMALL: dict[str, dict[str, Any]] = {
    "unet": {"width": 16, "multipliers": [1, 2], "num_blocks": 1},
    "mlp": {"width": 512, "num_blocks": 6, "embedding": 128},
}

_DATA = {"faces": "faces", "mnist": "digits"}
_NETWORKS = {"mlp": "MLP", "unet": "U-Net"}
_BASES = {"spectral": "eigenmodes", "fourier": "Fourier modes"}

# Claim of Wang & Pehlevan 2025, their figure on FFHQ at 32 x 32 pixels, and the order it means.
_CLAIMS = {
    "mlp": ("An MLP learns modes in the order of variance", "0.48 rising, 0.35 falling (FFHQ32)", "by variance"),
    "unet": ("A U-Net learns modes together", "alpha about 0 (FFHQ32)", "together"),
}


def _run(data: str, network: str) -> Run:
    """One data set at 16 x 16 pixels and one network of a size for a CPU."""
    changes: dict[str, Any] = {
        "trainer.max_steps": _STEPS,
        "data.init_args.resize": _SIDE,
        "data.init_args.batch_size": _BATCH[data],
        "data.init_args.val_fraction": 0,
        "model.init_args.shape": [1, _SIDE, _SIDE],
        "trainer.callbacks": trackers(_SAMPLES, _PER_DECADE, _HEUN_STEPS, bases={"fourier": "fourier"}),
    }
    sizes = {f"model.init_args.network.init_args.{name}": value for name, value in _SMALL[network].items()}
    return Run(f"{data}_{network}", f"{data}_{network}", {**changes, **sizes})


def report(results: Results) -> Report:
    """In which order the two networks learnt the modes of the two data sets."""
    orders = Orders(results)
    panels = {(data, net): orders(f"{data}_{net}") for data in _DATA for net in _NETWORKS}
    rows = [_claim(orders, data, net) for data in _DATA for net in _NETWORKS]
    return Report(rows, _text(orders), ordering_figure(panels, _DATA, _NETWORKS, size=(9, 6)))


def _claim(orders: Orders, data: str, net: str) -> Row:
    claim, published, expected = _CLAIMS[net]
    run = f"{data}_{net}"
    found, theory = orders(run), theory_exponents(orders.results[run])
    measured = "; ".join(way.summary for way in found)
    text = f"{claim}: {_DATA[data]}, eigenmodes"
    return Row(text, published, measured, theory, judged(expected, found), headline=True)


def _text(orders: Orders) -> str:
    results = orders.results
    runs = {f"{data}_{net}": f"{called} on {name}" for data, name in _DATA.items() for net, called in _NETWORKS.items()}
    return "\n\n".join(
        [
            f"400 faces (ORL) and 5,000 digits (part of MNIST), reduced to {_SIDE} x {_SIDE} pixels and standardised, "
            f"{_STEPS} batches of {_BATCH['faces']} and {_BATCH['mnist']}; both networks share data, noise, loss and "
            "optimizer. The published figures are of other images, at 32 x 32 pixels and in colour, of larger networks, "
            "and of 100,000 batches of 2,048.",
            _counts(orders),
            f"{RULE} The rank correlation is Spearman's between step and variance, -1 in the order of variance; modes "
            "that wait are tied last in it. The spread is the 90th over the 10th percentile of the step.",
            order_table(orders, runs, _BASES),
            _findings(orders, runs),
            progress_table(results, runs),
        ]
    )


def _counts(orders: Orders) -> str:
    said = []
    for data, name in _DATA.items():
        found = orders(f"{data}_unet")
        rising, falling = (one.law.total for one in found)
        null = int((found[0].found.status == STATUS.index("null mode")).sum())
        said.append(f"{name}: {rising} to rise, {falling} to fall, {null} without variance")
    return f"Of {_SIDE**2} eigenmodes those outside the gray zone of a factor of two are ({'; '.join(said)})."


def _findings(orders: Orders, runs: dict[str, str]) -> str:
    lines = []
    for basis, name in _BASES.items():
        for place, way in enumerate(WAYS):
            found = {called: orders(run, basis)[place] for run, called in runs.items()}
            lines.append(f"- {way.capitalize()} {name}: {grouped(found)}.")
    return "\n".join(lines)


EXPERIMENT = Experiment(
    name="images",
    title="Faces and digits, MLP and U-Net",
    question="Does an MLP learn faces and digits in the order of their modes' variance, and a U-Net all at once?",
    runs=tuple(_run(data, network) for network in ("unet", "mlp") for data in ("mnist", "faces")),
    report=report,
)
