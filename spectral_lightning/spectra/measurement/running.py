"""Loss over its linear floor from the training's own forward passes, without an evaluation of the network."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from spectral_lightning.spectra.bases import Basis
from spectral_lightning.spectra.measurement.wiener import WienerFilter
from spectral_lightning.spectra.ranks import Ranks

__all__ = ["RunningFloor"]

_LOW, _HIGH, _PER_DECADE = -3.0, 2.5, 4  # decades of sigma
_ALL, _EVERY, _MOST = 64, 8, 128
_PRODUCTS, _NUMBERS = 2**28, 2**22  # per pass; in the eigenvectors of data that are looked at at every eighth


class RunningFloor:
    """Sums of ``|D - x0|^2`` and ``|W - x0|^2`` in bins of sigma, four per decade, over passes of the training.

    It looks at the first 64 passes and then at every eighth, at most 128 examples of each; fewer above 1,448 dimensions, so
    that it costs less than half a per cent of the training. It draws nothing, keeps the sums where the network is, and never
    waits for the device. Examples with NaN or infinity are left out. The lowest and highest bin also hold what lies beyond.

    The ratio is a training loss: a network that memorises its training data lowers it too.

    Args:
        basis: the eigenmodes of the training data.

    Attributes:
        sums: number of examples, both errors and ``|z - x0|^2 / (d sigma^2)``, which is 1 on average if z is a noisy x0;
            ``[4, bin]``, float64; None before the first pass.
        passes: passes so far.
    """

    def __init__(self, basis: Basis) -> None:
        self.dim = basis.dim
        self.wiener = WienerFilter(basis, torch.float32)
        size = self.wiener.size
        self.most, self.every = min(_MOST, max(_PRODUCTS // size, 16)), _EVERY * math.ceil(size / _NUMBERS)
        self.sums: Tensor | None = None
        self.passes = 0

    @staticmethod
    def centres() -> Tensor:
        """Geometric centre of each bin of sigma."""
        count = round((_HIGH - _LOW) * _PER_DECADE)
        return 10 ** (_LOW + (torch.arange(count, dtype=torch.float64) + 0.5) / _PER_DECADE)

    def due(self) -> bool:
        """Count a pass; whether to look at it."""
        self.passes += 1
        return self.passes <= _ALL or self.passes % self.every == 0

    def add(self, clean: Tensor, noisy: Tensor, sigma: Tensor, denoised: Tensor) -> None:
        """Add one pass: data, noisy data ``x0 + sigma eps`` and the denoiser's output ``[B, *S]``, levels ``[B]``."""
        if clean[0].numel() != self.dim:
            return
        with torch.no_grad(), torch.autocast(clean.device.type, enabled=False):
            every = math.ceil(len(clean) / self.most)
            x, z, out = (part.detach()[::every].flatten(1).float() for part in (clean, noisy, denoised))
            level = sigma.detach()[::every].float()
            size = [(part - x).square().sum(1) for part in (out, self.wiener(z, level), z)]
            size[2] = size[2] / (self.dim * level**2)
            values = torch.stack([torch.ones_like(level), *size])
            place = ((level.log10() - _LOW) * _PER_DECADE).floor().clamp(0, len(self.centres()) - 1)
            valid = torch.isfinite(values).all(0) & torch.isfinite(place)
            wide = torch.float32 if clean.device.type == "mps" else torch.float64
            # A product, not index_add_, whose order of addition on a GPU is not fixed.
            members = (place[:, None] == torch.arange(len(self.centres()), device=level.device)) & valid[:, None]
            added = torch.where(valid, values, 0).to(wide) @ members.to(wide)
            self.sums = added if self.sums is None else self.sums.to(added) + added

    def fields(self, ranks: Ranks) -> tuple[dict[str, Any], bool]:
        """The fields of a row, and whether the passes were of noisy versions of the data. Every rank must call it."""
        own = torch.zeros(4, len(self.centres()), dtype=torch.float64)
        total = ranks.sum(own if self.sums is None else self.sums.cpu().double())
        count, passes = total[0], float(total[0].sum())
        scale = float(total[3].sum()) / passes if passes else 1.0
        fits = abs(scale - 1) < 0.1 + 6 * (2 / (self.dim * max(passes, 1))) ** 0.5
        mean = total[1:3] / count if fits else torch.full_like(total[1:3], torch.nan)
        found = {
            "training_error": mean[0],
            "training_linear_error": mean[1],
            "training_count": count if fits else 0 * count,
        }
        return {name: value.numpy() for name, value in found.items()}, fits

    def clear(self) -> None:
        """Begin new means."""
        self.sums = None

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values for a checkpoint."""
        return {"sums": None if self.sums is None else self.sums.cpu(), "passes": self.passes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the result of :meth:`state_dict`."""
        self.sums, self.passes = state.get("sums"), int(state.get("passes", 0))
