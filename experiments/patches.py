"""Natural patches: five networks on the same data and budget, seen in three bases at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.definition import Experiment, Report, Run, trackers
from experiments.results import Results

__all__ = ["EXPERIMENT"]

_STEPS, _BATCH, _SAMPLES, _HEUN_STEPS, _PER_DECADE = 1200, 128, 256, 12, 10
_PATCHES = {"class_path": "spectral_lightning.spectra.PatchComponents", "init_args": {"size": 5, "boundary": "valid"}}
_SAMPLER = {"num_steps": _HEUN_STEPS}
_CONV_RATE = 3.0e-3  # ten times the networks': a kernel of few weights would not get there in these steps


def _run(name: str, config: str, num_samples: int = _SAMPLES, **changes: Any) -> Run:
    """A configuration with the budget that all share."""
    budget = {
        "trainer.max_steps": _STEPS,
        "trainer.limit_val_batches": 0,
        "data.init_args.batch_size": _BATCH,
        "trainer.callbacks": trackers(
            num_samples, _PER_DECADE, _HEUN_STEPS, bases={"fourier": "fourier", "patch": _PATCHES}
        ),
    }
    return Run(name, f"natural_patches_{config}", {**budget, **changes})


def _network(name: str) -> Run:
    if not name.endswith("_conv"):
        return _run(name, name)
    optimizer = {"class_path": "torch.optim.Adam", "init_args": {"lr": _CONV_RATE}}
    return _run(name, name, **{"model.init_args.sampler": _SAMPLER, "model.init_args.optimizer": optimizer})


def _descent(name: str, denoiser: str, rate: float, **given: Any) -> Run:
    """A network of the theory under gradient descent of the expected loss, at nearly the largest rate that converges."""
    model: Mapping[str, Any] = {
        "class_path": f"spectral_lightning.models.{denoiser}",
        "init_args": {
            "shape": [1, 16, 16],
            "sampler": _SAMPLER,
            "objective": "exact",
            "preconditioning": {"kind": "edm", "sigma_data": 1.0},
            "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": rate}},
            **given,
        },
    }
    # Twice the dimension in latents measures a linear denoiser without sampling error; batches only count the steps.
    return _run(f"{name}_descent", "full_width_conv", 512, model=model, **{"data.init_args.batch_size": 4})


def report(results: Results) -> Report:
    """What the five networks and the three controls say."""
    raise NotImplementedError


EXPERIMENT = Experiment(
    name="patches",
    title="Patches of photographs, five networks",
    question="On the same patches and budget, which networks learn the modes in the order of their variance, and which "
    "learn them together?",
    runs=(
        *(_network(name) for name in ("unet", "dit", "mlp", "full_width_conv", "local_conv")),
        _descent("linear", "LinearDenoiser", 5.0e-3),
        _descent("full_width", "FullWidthConvDenoiser", 2.0e-5, bias="shared"),
        _descent("local", "LocalConvDenoiser", 4.5e-4, bias="shared", kernel_size=3),
    ),
    report=report,
)
