"""Modes and samples of image-shaped data as pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spectral_lightning.spectra.bases.basis import Basis
from spectral_lightning.spectra.bases.patch import PatchBasis

__all__ = ["mode_images", "sample_images"]

_LEAST = 4  # pixels of the shorter side
_RANGE = 3.0  # standard deviations of a pixel between grey and white


def mode_images(basis: Basis, modes: Sequence[int]) -> NDArray[np.uint8] | None:
    """The first vector of some modes, grey for 0: ``[n, H, W]`` or ``[n, H, W, 3]``; None unless the data are images.

    Each is scaled by its largest entry. Patch components are pictures of a patch.
    """
    layout = _layout((*basis.shape[:-2], basis.size, basis.size) if isinstance(basis, PatchBasis) else basis.shape)
    if layout is None or (isinstance(basis, PatchBasis) and _layout(basis.shape) is None):
        return None
    columns = torch.zeros(len(modes), len(basis.mode_of), dtype=torch.float64)
    for row, mode in enumerate(modes):
        columns[row, int((basis.mode_of == mode).nonzero()[0])] = 1
    fields = columns @ basis.vectors.T if basis.keeps_vectors else basis.synthesize(columns)
    return _pixels(fields / fields.abs().amax(1, keepdim=True).clamp_min(1e-300), layout)


def sample_images(basis: Basis, samples: Tensor) -> NDArray[np.uint8] | None:
    """Samples ``[n, *S]`` as ``[n, H, W]`` or ``[n, H, W, 3]``; None unless the data are images.

    The mean of the data over all pixels is grey; three standard deviations of a pixel below it are black, above it white.
    """
    layout = _layout(basis.shape)
    if layout is None:
        return None
    total = float(basis.spectrum.sum()) + float((basis.mean - basis.mean.mean()).square().sum())
    scale = _RANGE * math.sqrt(total / basis.dim)
    flat = samples.detach().cpu().double().flatten(1)
    return _pixels((flat - float(basis.mean.mean())) / (scale if scale > 0 else 1.0), layout)


def _layout(shape: Sequence[int]) -> tuple[int, int, int] | None:
    """Channels, height and width; None unless they are those of a grey or colour image."""
    full = (1, *shape) if len(shape) == 2 else tuple(shape)
    if len(full) != 3 or full[0] not in (1, 3) or min(full[1:]) < _LEAST:
        return None
    return full[0], full[1], full[2]


def _pixels(rows: Tensor, layout: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Rows of values from -1 to 1 as pixels."""
    images = rows.nan_to_num(0.0).reshape(-1, *layout).permute(0, 2, 3, 1).numpy()
    pixels = (127.5 + 127.5 * images).round().clip(0, 255).astype(np.uint8)
    return pixels[..., 0] if layout[0] == 1 else pixels
