"""The linear response of a denoiser at every noise level: the whole matrix, where gains are its diagonal."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from spectral_lightning.diffusion import Denoiser, Latents
from spectral_lightning.spectra.measurement.chunks import LatentChunks
from spectral_lightning.spectra.measurement.probe import SpectralProbe, at_one_level

__all__ = ["response_matrix"]

_PART = 3  # a part of the latents that no measurement draws


@torch.no_grad()
def response_matrix(
    probe: SpectralProbe,
    denoiser: Denoiser,
    rows: int,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    condition: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Leading rows ``[level, rows, d]`` and the diagonal ``[level, d]`` of a denoiser's response matrix, float64.

    ``W = E[(D(z) - mean) (z - mean)'] (Sigma + sigma^2 I)^-1`` over noisy Gaussian data ``z ~ N(mean, Sigma + sigma^2 I)``
    at each of ``sampler.levels``, in the eigenmodes of the data: the weights of a linear denoiser, without sampling error,
    because the latents are whole orthogonal blocks; the linear regression of any other. Even parts of D drop out. Of the
    odd nonlinear part, a share of ``2 d / latents`` of its variance along each mode counts as linear.

    Cost: as many latents as the probe has, rounded up to whole blocks of 2d, at each level; ``rows x d`` numbers per
    level. Every rank must call it.

    Args:
        probe: levels, seed and ranks; the basis must hold all eigenmodes of the data.
        denoiser: as for :meth:`SpectralProbe.generate`.
        rows: number of leading modes whose rows are wanted, at most d.
        device: where the network is.
        dtype: precision of its input.
        condition: as for :meth:`SpectralProbe.generate`.
    """
    if probe.sampler is None:
        raise ValueError(
            "`sampler` must be a Sampler for a response, got 'given': a sampling function has no denoiser."
        )
    basis, levels, dim = probe.basis.data, probe.sampler.levels, probe.basis.dim
    count = 2 * dim * math.ceil(probe.latents.count / (2 * dim))
    latents = Latents(count, dim, "orthogonal", probe.latents.seed, _PART)
    chunks = LatentChunks(latents, probe.sample_batch_size, probe.ranks)
    sums = torch.zeros(len(levels), rows + 1, dim, dtype=torch.float64)
    for index, repeated in chunks.turns():
        eps = chunks.rows(index, dtype).to(device)
        call = at_one_level(denoiser, chunks.condition(condition, index, device))
        for i, sigma in enumerate(levels):
            z = basis.diffuse(eps, sigma).to(device=device, dtype=dtype)
            out = call(z, sigma)
            if not repeated:
                x, y = basis.project(z), basis.project(out)
                sums[i, :rows] += (y[:, :rows].T @ x).cpu()
                sums[i, rows] += (x * y).sum(0).cpu()
    noisy = count * (basis.variance + torch.tensor(levels, dtype=torch.float64)[:, None] ** 2)
    total = probe.ranks.sum(sums) / noisy[:, None]
    return total[:, :rows], total[:, rows]
