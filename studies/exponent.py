"""What explains the exponent: from the linear network of the theory to the MLP of experiment 1, one change at a time."""

from __future__ import annotations

from typing import Any

from studies.definition import Experiment, Run, trackers
from studies.exponent_report import report

__all__ = ["EXPERIMENT", "RUNS"]

_NETWORKS = "studies.networks"
_DIFFUSION = "spectral_lightning.diffusion"
_EDM = {"kind": "edm", "sigma_data": 0.5}
_LOG_NORMAL = {"class_path": f"{_DIFFUSION}.LogNormalNoise", "init_args": {"mean": -1.2, "std": 1.2}}
_SAMPLER = {"num_steps": 20}
_MLP_STEPS = 1200


def _sgd(rate: float, **options: float) -> dict[str, Any]:
    return {"class_path": "torch.optim.SGD", "init_args": {"lr": rate, **options}}


def _adam() -> dict[str, Any]:
    return {"class_path": "torch.optim.Adam", "init_args": {"lr": 1e-4}}


def _linear(name: str, steps: int, rate: float, objective: str = "exact", **options: Any) -> Run:
    """Independent linear denoisers at the sampler's levels."""
    arguments = {"shape": [128], "sampler": _SAMPLER, "objective": objective, "optimizer": _sgd(rate), **options}
    changes = {
        "trainer.max_steps": steps,
        "trainer.callbacks": trackers(1024),
        "model": {"class_path": f"{_NETWORKS}.EmpiricalLinearDenoiser", "init_args": arguments},
        # Batches of the exact objective only count the steps.
        "data.init_args.batch_size": 4 if objective == "exact" else 1024,
    }
    return Run(name, "gaussian_mlp", changes)


def _shared(name: str, steps: int, optimizer: dict[str, Any], **options: Any) -> Run:
    """Linear in x, one network for all noise levels."""
    arguments = {"dim": 128, "preconditioning": _EDM, "noise": _LOG_NORMAL, "optimizer": optimizer, **options}
    changes = {
        "trainer.max_steps": steps,
        "trainer.callbacks": trackers(1024),
        "model": {"class_path": f"{_NETWORKS}.SharedLinearDenoiser", "init_args": arguments},
    }
    return Run(name, "gaussian_mlp", changes)


def _network(name: str, network: str, **options: Any) -> Run:
    """Another network in place of the MLP, everything else as in experiment 1."""
    arguments = {
        "network": {"class_path": f"{_NETWORKS}.{network}", "init_args": {"dim": 128, **options}},
        "preconditioning": _EDM,
        "noise": _LOG_NORMAL,
        "optimizer": _adam(),
    }
    theory = {
        "class_path": "spectral_lightning.theory.OneLayer",
        "init_args": {"learning_rate": 1e-4, "preconditioning": _EDM},
    }
    changes = {
        "trainer.max_steps": _MLP_STEPS,
        "trainer.callbacks": trackers(1024, per_decade=15, overlay={"theory": theory, "clock": "fitted"}),
        "model": {"class_path": "spectral_lightning.models.DiffusionModule", "init_args": arguments},
    }
    return Run(name, "gaussian_mlp", changes)


def _mlp(name: str, **changes: Any) -> Run:
    """The MLP of experiment 1 with one thing changed."""
    general = {"trainer.max_steps": _MLP_STEPS, "trainer.callbacks": trackers(1024, per_decade=15)}
    own = {f"model.init_args.{key}": value for key, value in changes.items()}
    return Run(name, "gaussian_mlp", {**general, **own})


def _samplers() -> Run:
    """The MLP of experiment 1, measured through twice the steps, and through a sampler that ends at sigma_min."""
    found = trackers(1024, per_decade=15, num_steps=40)
    open_end = trackers(1024, per_decade=15)
    open_end[0]["init_args"] |= {"name": "open_end", "sampler": {"num_steps": 20, "final": "sigma_min"}}
    open_end[1]["init_args"] |= {"tracker": "open_end"}
    changes = {"trainer.max_steps": _MLP_STEPS, "trainer.callbacks": [*found, *open_end]}
    return Run("mlp_samplers", "gaussian_mlp", changes)


_UNWEIGHTED = {**_EDM, "weight": f"{_NETWORKS}.unit_weight"}
_LEVELS = {"sampler": _SAMPLER}

RUNS = (
    _linear("linear", 25_000, 1.5e-4, preconditioning={"kind": "none"}, init=0.1),
    _linear("linear_edm_unweighted", 4000, 0.1, preconditioning=_UNWEIGHTED, init=0.1),
    _linear("linear_edm", 2000, 2e-3, preconditioning=_EDM, init=0.1),
    _linear("linear_edm_zero", 2000, 2e-3, preconditioning=_EDM),
    _linear("linear_density", 2000, 5e-4, preconditioning=_EDM, noise=_LOG_NORMAL),
    _linear("linear_samples", 2000, 0.01, "samples", preconditioning=_EDM, noise=_LOG_NORMAL),
    _shared("shared_levels", 2000, _sgd(0.002), **_LEVELS),
    _shared("shared", 2000, _sgd(0.002)),
    _shared("shared_adam", 4000, _adam()),
    _network("deep_linear", "ResidualLinear"),
    _mlp("mlp_sgd", optimizer=_sgd(0.1, momentum=0.9)),
    _mlp("mlp_x0", preconditioning={"kind": "x0"}),
    _network("mlp_blind", "RescaledNoiseMLP", factor=0.0),
    _mlp("mlp_flat_noise", noise={"class_path": f"{_NETWORKS}.LogUniformNoise"}),
    _mlp("mlp_width_128", **{"network.init_args.width": 128}),
    _samplers(),
)

EXPERIMENT = Experiment(
    name="exponent",
    title="What explains the exponent",
    question="The linear network lies on its theory and the MLP does not: which of preconditioning, loss weight, density of "
    "noise levels, shared weights, optimizer, depth, nonlinearity, width, sampler and criterion makes the exponent what it is?",
    runs=RUNS,
    report=report,
)
