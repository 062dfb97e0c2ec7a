"""The command ``spectral-lightning track``."""

from __future__ import annotations

from typing import Literal

from spectral_lightning.tracking.afterwards.checkpoints import track_checkpoints
from spectral_lightning.tracking.afterwards.samples import track_samples
from spectral_lightning.tracking.settings import Output, Sampling

__all__ = ["track"]


def track(
    saved: str,
    data: str,
    factory: str | None = None,
    denoiser: str | None = None,
    basis: Literal["pca", "fourier", "patch"] = "pca",
    key: str | None = None,
    prefix: str | None = None,
    trusted: bool = False,
    num_samples: int | None = None,
    pattern: str | None = None,
    output: str = "runs",
    name: str = "spectral",
) -> None:
    """Make the history of a training from the samples or checkpoints that it saved.

    Args:
        saved: folder with one subfolder or file of samples per step (images, .npy, .npz, .pt); with ``factory``, with one
            checkpoint per step. The step is the integer after the word ``step`` in the name, else its last integer.
        data: the data as the network sees them: a folder or file of images or arrays. Images are scaled to -1 ... 1.
        factory: import path ``module:function`` of a function that makes the network, to measure checkpoints.
        denoiser: convention of the network, such as ``edm`` or ``flow-matching``; its ``denoise(z, sigma)`` by default.
        basis: which modes to measure.
        key: entry of a checkpoint that holds the state dict.
        prefix: what the names in the state dict have before those of the network.
        trusted: whether checkpoints may hold any Python objects, which are executed as they are read.
        num_samples: samples per checkpoint.
        pattern: a regular expression to find the step in a name; its one group is the step.
        output: parent of the results' directory.
        name: of the results' directory.

    Raises:
        ValueError: for an option that needs ``factory``, without it.
    """
    place = Output(output, figures=False)
    if factory is not None:
        sampling = Sampling(num_samples, track_floor=False)
        track_checkpoints(
            saved, data, factory, denoiser=denoiser, basis=basis, key=key, prefix=prefix, trusted=trusted, pattern=pattern,
            sampling=sampling, output=place, name=name,
        )  # fmt: skip
        return
    only = {"denoiser": denoiser, "key": key, "prefix": prefix, "num_samples": num_samples, "trusted": trusted or None}
    given = [option for option, value in only.items() if value is not None]
    if given:
        raise ValueError(f"`{given[0]}` is for checkpoints. Pass `factory`, or leave it out for samples.")
    track_samples(saved, data, basis=basis, pattern=pattern, output=place, name=name)
