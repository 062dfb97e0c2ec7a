"""A history from samples that were saved during a training."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spectral_lightning.prediction import compare
from spectral_lightning.spectra import Basis, ModeStatistics, Ranks, SpectralHistory, SpectralProbe, chosen_recipe
from spectral_lightning.spectra.measurement.probe import samples_at_once
from spectral_lightning.tracking.afterwards.reading import by_step, read_examples
from spectral_lightning.tracking.monitor import BareLoop
from spectral_lightning.tracking.reference import ReferenceReader
from spectral_lightning.tracking.results import Results
from spectral_lightning.tracking.settings import BasisChoice, Output, Reference
from spectral_lightning.tracking.timing import Cost

__all__ = ["say_first", "say_where", "track_samples"]


def track_samples(
    samples: str | Path,
    data: str | Path | Tensor,
    *,
    basis: BasisChoice = "pca",
    pattern: str | None = None,
    output: Output = Output(),
    name: str = "spectral",
) -> SpectralHistory:
    """The history of a training from the samples that it saved: their variance along the data's modes at every step.

    The samples count as independent: the variance is divided by n - 1, and its standard error follows from the fourth moment,
    about ``(2 / n)^(1/2)`` of it for Gaussian samples. Those with NaN or infinity are left out, with a warning. The first step
    stands for the untrained network. Files are written as by a tracker, so that ``spectral-lightning summary``, ``emergence``,
    ``forecast`` and ``report`` read the result.

    Args:
        samples: a folder with one subfolder or file per step: images, or arrays ``[n, *S]`` as .npy, .npz or .pt; files of the
            same step are joined. The step is the integer after the word ``step`` in the name, else the last integer of the
            name. Numbers are taken as they are; images and arrays of bytes are scaled to -1 ... 1, channels first.
        data: the data, in the same form: a folder, a file, or a tensor ``[N, *S]``.
        basis: ``"pca"``, ``"fourier"``, ``"patch"``, a recipe or a basis.
        pattern: a regular expression to find the step in a name instead; its one group is the step.
        output: where the files go; by default ``runs``.
        name: of the results' directory.

    Raises:
        FileNotFoundError: if there are no samples or no data.
        ValueError: for a name without a step, a file that cannot be read, shapes that differ, or fewer than two finite samples.
    """
    found = by_step(samples, pattern)
    examples = data if isinstance(data, Tensor) else read_examples(data)
    loop = BareLoop(nn.Identity(), examples, None, None, None)
    recipe, reader = chosen_recipe(basis), ReferenceReader(Reference(), examples, loop, Ranks())
    modes = reader.basis(recipe)
    probe = SpectralProbe(modes, "given", num_samples=2, latents="independent")
    history = probe.history(
        sampler="given: saved samples",
        latents="unknown: saved samples, taken as independent",
        denoiser=f"samples saved in {Path(samples).name}",
        weights="those of the saved samples",
        standard_error="fourth moment of independent samples",
    )
    results = Results(name, modes, output, Cost())
    results.open(loop, None, (), lambda mode: ())
    say_first(next(iter(found)))
    for step, files in found.items():
        history.append(**_row(probe, step, files))
        results.keep(history)
    results.finish(history, lambda: compare(history).measured)
    say_where(history, results)
    return history


def say_first(step: int) -> None:
    """Warn if nothing was saved before training."""
    if step > 0:
        warnings.warn(
            f"The first step is {step}, not 0: it stands for the untrained network, so that emergence before it is unknown.",
            stacklevel=3,
        )


def say_where(history: SpectralHistory, results: Results) -> None:
    """Print what was made and where it lies."""
    place = "" if results.files is None else f" Results: {results.files.path}"
    print(
        f"{len(history)} steps, {history.steps[0]} to {history.last_step}, {len(history.target)} modes.{place}",
        flush=True,
    )


def _row(probe: SpectralProbe, step: int, files: Sequence[Path]) -> dict[str, Any]:
    where = ", ".join(repr(str(file)) for file in files)
    samples = shaped(read_examples(files), probe.basis, where)
    finite = torch.isfinite(samples.flatten(1)).all(1)
    count = int(finite.sum())
    if count < 2:
        raise ValueError(
            f"{where} must hold at least two finite samples, got {len(samples)}, {count} of them finite. Save one array "
            "[n, ...] or one subfolder of images per step."
        )
    if count < len(samples):
        warnings.warn(
            f"{len(samples) - count} of {len(samples)} samples in {where} held NaN or infinity.", stacklevel=3
        )
    statistics = ModeStatistics.empty(1, probe.basis.observables, count)
    first = 0
    for part in torch.split(samples[finite], samples_at_once(probe.basis)):
        statistics.add(0, probe.basis.project(part), 0, first)
        first += len(part)
    statistics.non_finite += len(samples) - count
    return probe.summary(statistics, step, probe.standard_error(statistics), len(samples))


def shaped(samples: Tensor, basis: Basis, where: str) -> Tensor:
    """Samples in the shape of the data, which may differ by axes of length 1.

    Raises:
        ValueError: if they have another shape.
    """
    own, wanted = tuple(samples.shape[1:]), tuple(basis.shape)
    if [n for n in own if n > 1] != [n for n in wanted if n > 1]:
        raise ValueError(
            f"{where} holds samples of shape {own}, the data have {wanted}. Give both as the network sees them."
        )
    return samples.reshape(len(samples), *wanted)
