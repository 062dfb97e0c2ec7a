"""Pictures of modes and samples, from the arrays that a tracker stores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectral_lightning.report.html.run import Run
from spectral_lightning.report.html.svg import png

__all__ = ["Picture", "mode_pictures", "sample_rows"]

_SHOWN, _COLUMNS, _ROWS = 24, 8, 12


@dataclass(frozen=True)
class Picture:
    """An image and its caption.

    Attributes:
        source: data URI.
        caption: text beside it.
        shape: height and width in pixels.
    """

    source: str
    caption: str
    shape: tuple[int, int]


def mode_pictures(run: Run) -> tuple[list[Picture], str]:
    """Pictures of some modes from ``modes.npz``, or none and the reason."""
    stored = run.arrays("modes.npz")
    modes, pixels = stored.get("mode"), stored.get("pixels")
    if modes is None or pixels is None or not _images(pixels, 3) or len(modes) != len(pixels):
        return (
            [],
            "No pictures of the modes: the run's directory has no modes.npz. Trackers write it for data of images.",
        )
    found, pictures = run.emergence.time, []
    for mode, image in zip(modes[:_SHOWN].tolist(), pixels[:_SHOWN], strict=True):
        if not 0 <= mode < len(run.labels):
            return [], "No pictures of the modes: modes.npz has other modes than the history."
        when = f" · step {found[mode]:,.0f}" if np.isfinite(found[mode]) else ""
        caption = f"{run.labels[mode]} · {run.history.target[mode]:.3g}{when}"
        pictures.append(Picture(png(image), caption, image.shape[:2]))
    return pictures, ""


def sample_rows(run: Run) -> tuple[list[Picture], str]:
    """A strip of samples from the same latents for each of some steps, from ``samples.npz``, or none and the reason."""
    stored = run.arrays("samples.npz")
    steps, pixels = stored.get("step"), stored.get("pixels")
    if steps is None or pixels is None or not _images(pixels, 4) or len(steps) != len(pixels):
        return (
            [],
            "No samples over training: no samples.npz. With Output(samples=8), the default, the first tracker of these weights "
            "keeps it for data of images.",
        )
    rows = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), _ROWS)).round().astype(int))
    strips = [(row, np.concatenate(list(pixels[row, :_COLUMNS]), axis=1)) for row in rows]
    return [Picture(png(strip), f"step {int(steps[row]):,}", strip.shape[:2]) for row, strip in strips], ""


def _images(pixels: NDArray[Any], axes: int) -> bool:
    """Whether these are grey or colour images with ``axes`` axes, besides that of colours."""
    if pixels.dtype != np.uint8 or not pixels.size:
        return False
    return pixels.ndim == axes or (pixels.ndim == axes + 1 and pixels.shape[-1] == 3)
