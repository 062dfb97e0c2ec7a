"""Settings shared by the tracker and the monitor, in groups."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from spectral_lightning.arguments import one_of, positive_integer
from spectral_lightning.diffusion import Adapter, Denoiser, Latents
from spectral_lightning.diffusion.weights import Weights
from spectral_lightning.sampling import Sampler
from spectral_lightning.spectra import Basis, BasisRecipe
from spectral_lightning.spectra.reading import DataSource
from spectral_lightning.tracking.timing.schedule import PER_DECADE, Schedule

__all__ = [
    "PRESETS",
    "SWITCH",
    "BasisChoice",
    "DenoiserChoice",
    "Output",
    "Reference",
    "SampleFunction",
    "Sampling",
    "Settings",
    "switched_off",
]

SWITCH = "SPECTRAL_LIGHTNING"
"""Environment variable; ``off`` or ``0`` disables every callback and monitor of this package without touching code."""


SampleFunction = Callable[[Any, Tensor], Tensor]
"""``f(module, latents [B, *S]) -> samples [B, *S]``, from standard normal latents."""

BasisChoice = Literal["pca", "fourier", "patch"] | BasisRecipe | Basis
DenoiserChoice = str | Adapter | Denoiser
"""In this order; otherwise the command line would read every name as a callable."""


@dataclass(frozen=True)
class Preset:
    """What a measurement may cost.

    Attributes:
        evaluations: the fewest network evaluations per sample; more if the spectrum needs them.
        bias: largest bias of the sampler on a linear denoiser, in log variance, over two decades about the mean variance.
        least: latents per measurement, rounded up to whole blocks of 2 d.
        most: the most latents in whole blocks, which have the smallest error.
        sliced: latents per measurement if ``most`` are not enough; then a slice of a block.
        per_decade: measurements per factor of ten in optimizer updates.
    """

    evaluations: int
    bias: float
    least: int
    most: int
    sliced: int
    per_decade: int

    def latents(self, dim: int) -> int:
        """Number of latents in ``dim`` dimensions."""
        whole = 2 * dim * math.ceil(self.least / (2 * dim))
        return whole if whole <= self.most else self.sliced


PRESETS = {
    "economy": Preset(evaluations=6, bias=0.06, least=64, most=128, sliced=64, per_decade=4),
    "standard": Preset(evaluations=8, bias=0.03, least=128, most=256, sliced=128, per_decade=PER_DECADE),
    "full": Preset(evaluations=12, bias=0.01, least=512, most=2048, sliced=2048, per_decade=10),
}


@dataclass(frozen=True, eq=False)
class Sampling:
    """How the model is sampled for a measurement.

    Args:
        num_samples: latents per measurement; with multiples of twice the dimension a linear denoiser has no sampling
            error; fewer are slices of one block, which rotate with the scheduled step. By default those of the preset.
        sampler: a discrete sampler; by default the module's ``sampler``, or Adams steps tuned to the data's spectrum, on
            the network's own grid if it has one. For a model that is not a denoiser, a function ``f(module, latents [B, *S])
            -> samples [B, *S]`` of standard normal latents; theory and gains are then unavailable.
        latents: ``"orthogonal"`` or ``"independent"``, see :class:`~spectral_lightning.diffusion.Latents`.
        seed: of the latents.
        batch_size: largest batch of samples passed to the network.
        condition: rows ``[n, ...]`` for a conditional denoiser ``D(z, sigma, condition)``; latents 2i and 2i + 1 always use
            row i modulo n.
        track_gain: whether to also measure the denoiser's gain along every mode, at every noise level of the sampler.
        preset: ``"economy"``, ``"standard"`` or ``"full"``: evaluations, latents and measurements per decade, where they
            are not given.
        track_floor: whether to also measure the loss over its linear floor, at every noise level of the sampler: on held-out
            data, if there are any, for at most 64 evaluations per level, and in the training's own passes.

    Raises:
        ValueError: for an argument out of range.

    Example:
        >>> Sampling(num_samples=3)
        Traceback (most recent call last):
            ...
        ValueError: `num_samples` must be even for orthogonal latents, which come in pairs, got 3.
    """

    num_samples: int | None = None
    sampler: Sampler | SampleFunction | None = None
    latents: Literal["orthogonal", "independent"] = "orthogonal"
    seed: int = 0
    batch_size: int = 512
    condition: Tensor | None = None
    track_gain: bool = False
    preset: Literal["economy", "standard", "full"] = "standard"
    track_floor: bool = True

    def __post_init__(self) -> None:
        one_of("preset", self.preset, PRESETS)
        count = PRESETS[self.preset].least if self.num_samples is None else self.num_samples
        Latents(count, 1, self.latents, self.seed)  # raises for arguments that are wrong in every dimension
        positive_integer("batch_size", self.batch_size)
        if self.track_gain and self.samples_itself:
            raise ValueError("`track_gain` needs a denoiser, got a function as `sampler`. Leave `track_gain` out.")

    @property
    def samples_itself(self) -> bool:
        """Whether the user's function does the sampling, so that no denoiser is known."""
        return self.sampler is not None and not isinstance(self.sampler, Sampler)


@dataclass(frozen=True, eq=False)
class Reference:
    """How to read the data for their moments and classes: once, separately from the training.

    Args:
        batch_key: name or position of the examples in a batch, if a batch is not a tensor.
        label_key: name or position of the labels in a batch; the second element by default.
        transform: applied to a batch of examples before its moments are taken, such as the encoder of latent diffusion: a
            callable, or the name of a method of the module, which gets the batch on the module's device.
        moments: ``"sample"`` for the moments of the training data, ``"population"`` for those the datamodule provides.
        max_samples: largest number of examples to read, evenly spread over the data.
        classify: maps samples ``[B, *S]`` to classes ``[B]``, counted from 0; used by ``per_class`` if the model is not
            conditioned on classes. The datamodule's ``classify`` by default.
        num_classes: number of classes that ``classify`` distinguishes (by default the datamodule's), or of labels that the
            ``denoiser`` takes.

    Raises:
        ValueError: for an argument out of range.
    """

    batch_key: int | str | None = None
    label_key: int | str | None = None
    transform: Callable[[Tensor], Tensor] | str | None = None
    moments: Literal["sample", "population"] = "sample"
    max_samples: int = 100_000
    classify: Callable[[Tensor], Tensor] | None = None
    num_classes: int | None = None

    def __post_init__(self) -> None:
        one_of("moments", self.moments, ("sample", "population"))
        positive_integer("max_samples", self.max_samples)
        if self.num_classes is not None:
            positive_integer("num_classes", self.num_classes)


@dataclass(frozen=True)
class Output:
    """Where results go, and how much to log and draw.

    Args:
        directory: parent of the results' directory, which is called ``name``; by default the logger's directory, or
            ``runs`` without Lightning.
        log_modes: number of modes to send to the loggers; the files hold all modes.
        figures: whether to draw figures.
        samples: number of samples of the same latents whose pictures are kept for the report, of data that are images: twice per
            factor of ten in steps, 64 pixels along a side at most; 0 keeps none.

    Raises:
        ValueError: if ``log_modes`` is not a positive integer, or ``samples`` not one of zero or more.
    """

    directory: str | None = None
    log_modes: int = 16
    figures: bool = True
    samples: int = 8

    def __post_init__(self) -> None:
        positive_integer("log_modes", self.log_modes)
        positive_integer("samples", self.samples, minimum=0)


@dataclass(frozen=True, eq=False)
class Settings:
    """All settings of a session; see :class:`~spectral_lightning.SpectralTracker` for the fields."""

    basis: BasisChoice = "pca"
    denoiser: DenoiserChoice | None = None
    data: DataSource | None = None
    weights: Weights = "raw"
    per_class: bool = False
    on_error: Literal["raise", "skip"] = "raise"
    name: str = "spectral"
    sampling: Sampling = field(default_factory=Sampling)
    schedule: Schedule = field(default_factory=Schedule)
    reference: Reference = field(default_factory=Reference)
    output: Output = field(default_factory=Output)
    held_out: DataSource | None = None

    def __post_init__(self) -> None:
        one_of("on_error", self.on_error, ("raise", "skip"))
        if not re.fullmatch(r"\w[\w.-]*", self.name):
            raise ValueError(
                f"`name` must be a plain, non-empty word, got {self.name!r}. It names a directory and tags."
            )
        if self.reference.classify is not None and not self.per_class:
            raise ValueError("`classify` is used with per_class=True only. Set it, or leave `classify` out.")


def switched_off() -> bool:
    """Whether the environment disables callbacks and monitors."""
    return os.environ.get(SWITCH, "").lower() in ("off", "0", "false")
