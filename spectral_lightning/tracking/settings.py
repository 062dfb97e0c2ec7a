"""The settings that the tracker and the monitor share, in groups."""

from __future__ import annotations

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
from spectral_lightning.tracking.timing.schedule import Schedule

__all__ = [
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
"""In this order, or the command line takes every name for a callable."""


@dataclass(frozen=True, eq=False)
class Sampling:
    """How the model is sampled for a measurement.

    Args:
        num_samples: latents per measurement; a multiple of twice the dimension makes a linear denoiser exact.
        sampler: the discrete sampler; by default the module's own ``sampler``, or 18 Heun steps over the denoiser's noise
            levels, on the network's own grid if it has one. For a model that is not a denoiser: a function
            ``f(module, latents [B, *S]) -> samples [B, *S]`` of standard normal latents; then there is no theory and no gain.
        latents: ``"orthogonal"`` or ``"independent"``, see :class:`~spectral_lightning.diffusion.Latents`.
        seed: of the latents.
        batch_size: the most samples that go through the network at once.
        condition: rows ``[n, ...]`` for a conditional denoiser ``D(z, sigma, condition)``; latents 2i and 2i + 1 are always
            sampled under row i modulo n.
        track_gain: whether to measure the denoiser's gain along every mode too, at every noise level of the sampler.

    Raises:
        ValueError: for an argument out of range.

    Example:
        >>> Sampling(num_samples=3)
        Traceback (most recent call last):
            ...
        ValueError: `num_samples` must be an even integer of at least 4, got 3.
    """

    num_samples: int = 1024
    sampler: Sampler | SampleFunction | None = None
    latents: Literal["orthogonal", "independent"] = "orthogonal"
    seed: int = 0
    batch_size: int = 512
    condition: Tensor | None = None
    track_gain: bool = False

    def __post_init__(self) -> None:
        Latents(self.num_samples, 1, self.latents, self.seed)  # raises for what is wrong in any dimension
        positive_integer("batch_size", self.batch_size)
        if self.track_gain and self.samples_itself:
            raise ValueError("`track_gain` needs a denoiser, got a function as `sampler`. Leave `track_gain` out.")

    @property
    def samples_itself(self) -> bool:
        """Whether a function of the user samples, of which nothing but its samples is known."""
        return self.sampler is not None and not isinstance(self.sampler, Sampler)


@dataclass(frozen=True, eq=False)
class Reference:
    """How the data are read for their moments and classes: once, apart from the training.

    Args:
        batch_key: name or position of the examples in a batch, if a batch is not a tensor.
        label_key: name or position of the labels in a batch; the second element by default.
        transform: applied to a batch of examples before its moments are taken, such as the encoder of latent diffusion: a
            callable, or the name of a method of the module, which gets the batch on the module's device.
        moments: ``"sample"``, those of the training data, or ``"population"``, those the datamodule knows.
        max_samples: the most examples read, evenly spread over the data.
        classify: says to which class, from 0, each sample of a batch ``[B, *S]`` belongs; for ``per_class`` with a model
            that is not conditioned on classes. The datamodule's ``classify`` by default.
        num_classes: how many classes ``classify`` distinguishes (the datamodule's number by default), or how many labels
            the ``denoiser`` takes.

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
    """Where results go, and how much of them.

    Args:
        directory: the directory ``name`` with the results goes here; by default into the logger's directory, or
            ``runs`` for a loop without Lightning.
        log_modes: how many modes to send to the loggers; the files hold all of them.
        figures: whether to draw figures.

    Raises:
        ValueError: if ``log_modes`` is not a positive integer.
    """

    directory: str | None = None
    log_modes: int = 16
    figures: bool = True

    def __post_init__(self) -> None:
        positive_integer("log_modes", self.log_modes)


@dataclass(frozen=True, eq=False)
class Settings:
    """Everything a session is told; see :class:`~spectral_lightning.SpectralTracker` for the fields."""

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
