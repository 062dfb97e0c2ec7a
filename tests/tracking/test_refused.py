"""Wrong settings, data and networks: an error that names the argument, before anything is written or trained."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from spectral_lightning import SpectralMonitor
from spectral_lightning.sampling import Sampler
from spectral_lightning.spectra import Eigenmodes
from spectral_lightning.tracking import Fitter, Output, Overlay, Reference, Sampling, Schedule, Session, Settings
from tests.support.bare_loop import Network, examples
from tests.support.flat import flat_tracker


def _name(value):
    return getattr(value, "__name__", None) or next(iter(value))


ARGUMENTS = [
    (Sampling, {"num_samples": 15}),
    (Sampling, {"num_samples": 0}),
    (Sampling, {"latents": "sobol"}),
    (Sampling, {"seed": -1}),
    (Sampling, {"batch_size": 0}),
    (Sampling, {"track_gain": True, "sampler": lambda module, latents: latents}),
    (Schedule, {"per_decade": 0}),
    (Schedule, {"per_decade": 2.5}),
    (Schedule, {"max_overhead": 0}),
    (Reference, {"moments": "exact"}),
    (Reference, {"max_samples": 0}),
    (Reference, {"num_classes": 0}),
    (Output, {"log_modes": 0}),
    (Settings, {"name": "runs/a"}),
    (Settings, {"name": ""}),
    (Settings, {"name": ".."}),
    (Settings, {"on_error": "ignore"}),
    (Fitter, {"criterion": "median"}),
    (Fitter, {"criterion": 1.5}),
    (Fitter, {"criterion": 0.0}),
    (Fitter, {"gray_factor": 0.5}),
    (Fitter, {"gray_factor": float("nan")}),
    (Fitter, {"figures_per_decade": 0}),
    (Overlay, {"figures_per_decade": 0}),
    (Overlay, {"clock": "wall"}),
    (Overlay, {"calibrate_after": 2}),
    (Overlay, {"theory": "OneLayer"}),
]


@pytest.mark.parametrize(("kind", "options"), ARGUMENTS, ids=_name)
def test_wrong_arguments_are_named(kind, options):
    with pytest.raises((ValueError, TypeError), match=f"^`{next(iter(options))}`"):
        kind(**options)


def test_wrong_arguments_of_a_session_are_named():
    with pytest.raises(ValueError, match="`classify`"):
        Settings(reference=Reference(classify=len))
    with pytest.raises(ValueError, match="`basis`"):
        Session(Settings(basis="wavelets"))
    with pytest.raises(TypeError, match="`basis`"):
        Session(Settings(basis=3))


class Dictionaries(Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, index):
        return {"image": examples(64)[index], "label": index % 2}


class Spoilt(Network):
    """Returns something else than what it would."""

    def __init__(self, spoil):
        super().__init__()
        self.spoil = spoil

    def denoise(self, z, sigma):
        return self.spoil(super().forward(z, sigma), sigma)


def with_nan():
    data = examples(64)
    data[5, 2] = float("nan")
    return data


def spoilt(spoil):
    return {"network": Spoilt(spoil), "denoiser": None}


def labelled(labels):
    return {"data": TensorDataset(examples(64), labels), "per_class": True, "num_classes": 2, "denoiser": with_label}


class Conditional(Network):
    """Never trained without a label."""

    num_classes, class_dropout = 2, 0.0

    def denoise(self, z, sigma, label=None):
        return super().forward(z, sigma)


def with_label(z, sigma, label):
    return z / (1 + sigma[:, None] ** 2)


DICTIONARIES = DataLoader(Dictionaries(), batch_size=8)
LABELS = torch.arange(64) % 2
# name -> (error, message, settings)
SITUATIONS = {
    "more modes than dimensions": (ValueError, "`num_modes`", {"basis": Eigenmodes(9)}),
    "no modes": (ValueError, "`num_modes`", {"basis": Eigenmodes(0)}),
    "images for a network of vectors": (ValueError, r"shape \(1, 4, 4\)", {"data": torch.randn(64, 1, 4, 4)}),
    "vectors of another length": (ValueError, r"shape \(6,\)", {"data": examples(64, 6)}),
    "data without pixels": (ValueError, "`shape`", {"data": torch.randn(64, 2, 2, 2, 1), "basis": "fourier"}),
    "NaN in the data": (ValueError, "`batch`.* 1 of 64", {"data": with_nan()}),
    "constant data": (ValueError, "data must vary", {"data": torch.ones(64, 8)}),
    "one example": (ValueError, "data must vary", {"data": examples(1)}),
    "no example": (ValueError, "at least one example", {"data": torch.zeros(0, 8)}),
    "data that are not data": (TypeError, "`data`", {"data": np.zeros((64, 8))}),
    "dictionaries without a key": (ValueError, "`batch_key`", {"data": DICTIONARIES}),
    "a key of integers": (TypeError, "floating-point", {"data": DICTIONARIES, "batch_key": "label"}),
    "whole-number images": (TypeError, "`transform=`", {"data": torch.zeros(64, 8, dtype=torch.uint8)}),
    "moments that nobody knows": (ValueError, "`moments='population'`", {"moments": "population"}),
    "a transform that is not there": (ValueError, "`transform`", {"transform": "encode"}),
    "a transform deep in nothing": (ValueError, "`transform`", {"transform": "body.layers.encode"}),
    "a transform that is not a method": (ValueError, "`transform`", {"transform": "sigma_data"}),
    "a transform without a name": (ValueError, "`transform`", {"transform": ""}),
    "a denoiser that returns a tuple": (TypeError, "`denoiser`.* tuple", spoilt(lambda out, sigma: (out,))),
    "a denoiser of another shape": (ValueError, r"`denoiser`.* \(16, 4\)", spoilt(lambda out, sigma: out[:, :4])),
    "a denoiser that gives NaN": (ValueError, r"`denoiser`.* 0\.002", spoilt(lambda out, sigma: out * torch.nan)),
    "NaN at one level": (
        ValueError,
        "`denoiser`.* sigma = 80",
        spoilt(lambda out, sigma: torch.where(sigma[:, None] > 10, torch.nan, out)),
    ),
    "a denoiser that fails": (ValueError, r"shape \(8,\)", {"denoiser": lambda z, sigma: torch.ones(3) @ z}),
    "a null class that never learns": (ValueError, "labels only", {"network": Conditional(), "denoiser": None}),
    "classes of no model": (ValueError, "`per_class`", {"per_class": True, "denoiser": lambda z, sigma: z}),
    "classes without a number": (ValueError, "`num_classes`", {"per_class": True, "classify": lambda x: x}),
    "labels that are not there": (ValueError, "`label_key`", {**labelled(LABELS), "label_key": 7}),
    "labels that are the examples": (ValueError, "`label_key`", {**labelled(LABELS), "label_key": 0}),
    "labels out of range": (ValueError, "0 to 1, got 0 to 2", labelled(torch.arange(64) % 3)),
}


@pytest.mark.parametrize(("error", "message", "options"), SITUATIONS.values(), ids=SITUATIONS)
def test_wrong_situations_are_refused_with_nothing_written(error, message, options, tmp_path):
    defaults = {"network": Network(), "data": examples(64), "denoiser": "edm", "num_samples": 16}
    sampler = {"sampler": Sampler(num_steps=3), "directory": str(tmp_path), "figures": False}
    with pytest.raises(error, match=message):
        flat_tracker(SpectralMonitor, **{**defaults, **sampler, **options})
    assert list(tmp_path.iterdir()) == []


def flat(parameter):
    """As torch's FSDP names it."""
    return type("FlatParameter", (torch.nn.Parameter,), {})(parameter.data)


def marked(**mark):
    """The same parameter with a mark."""

    def put(parameter):
        for name, value in mark.items():
            setattr(parameter, name, value)
        return parameter

    return put


SHARDED = {"flat parameters": flat, "flat parameter": marked(_is_flat_param=True), "DeepSpeed ZeRO 3": marked(ds_id=0)}


@pytest.mark.parametrize("kind", SHARDED)
def test_sharded_parameters_are_refused_unless_the_denoiser_gathers_them(kind, tmp_path):
    """Those of FSDP2 are, on two processes, with the callbacks."""
    network, options = Network(), {"num_samples": 16, "directory": str(tmp_path), "figures": False}
    network.body[0].weight = SHARDED[kind](network.body[0].weight)
    with pytest.raises(ValueError, match=f"Network are sharded .{kind}.*`denoiser=`"):
        flat_tracker(SpectralMonitor, network=network, data=examples(64), denoiser="edm", **options)
    assert list(tmp_path.iterdir()) == []
    given = flat_tracker(SpectralMonitor, network=network, data=examples(64), denoiser=network.forward, **options)
    assert len(given.history) == 1
