"""A tracker whose settings are written flat, as most tests set one or two of them."""

from spectral_lightning.callbacks import SpectralTracker
from spectral_lightning.spectra import Eigenmodes
from spectral_lightning.theory import Objective, OneLayer, Preconditioning
from spectral_lightning.tracking import Output, Reference, Sampling, Schedule

_GROUPS = {
    "sampling": (
        Sampling,
        ("preset", "num_samples", "sampler", "latents", "seed", "batch_size", "condition", "track_gain", "track_floor"),
    ),
    "schedule": (Schedule, ("per_decade", "max_overhead")),
    "reference": (
        Reference,
        ("batch_key", "label_key", "transform", "moments", "max_samples", "classify", "num_classes"),
    ),
    "output": (Output, ("directory", "log_modes", "figures", "samples")),
}


def grouped(**flat):
    """The settings sorted into their groups; ``num_modes`` stands for that many eigenmodes."""
    if "num_modes" in flat:
        flat["basis"] = Eigenmodes(flat.pop("num_modes"))
    for group, (kind, names) in _GROUPS.items():
        found = {name: flat.pop(name) for name in names if name in flat}
        if found:
            flat[group] = kind(**found)
    return flat


def flat_tracker(kind=SpectralTracker, **flat):
    """``kind(**grouped(**flat))``."""
    return kind(**grouped(**flat))


def one_layer(learning_rate=1e-3, kind="edm", **options):
    """A theory of one linear layer."""
    return OneLayer(Objective(learning_rate, Preconditioning(kind), **options))
