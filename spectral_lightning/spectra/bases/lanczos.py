"""Leading eigenvectors of a symmetric matrix that is known by its products only."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from spectral_lightning.seeds import torch_generator
from spectral_lightning.spectra.ranks import Ranks

__all__ = ["leading_eigenmodes"]

_RESIDUAL, _ROUNDING, _MOST_BLOCKS = 1e-5, 1e-13, 500


def leading_eigenmodes(
    product: Callable[[Tensor], Tensor],
    dim: int,
    count: int,
    block: int = 64,
    device: torch.device | str = "cpu",
    ranks: Ranks | None = None,
) -> tuple[Tensor, Tensor]:
    """The ``count`` largest eigenvalues of a positive semidefinite matrix C, descending, and their eigenvectors ``[d, count]``.

    Block Lanczos with full orthogonalisation and thick restarts: V grows by the orthonormal part of ``C q`` for its newest
    block q, and the eigenvectors of ``V' C V`` are tried. A pair has converged when its residual ``|C u - lambda u|`` is at
    most 1e-5 lambda (or 1e-13 of the largest eigenvalue, which null modes do not exceed). Block methods: Golub & Underwood
    1977; thick restarts: Wu & Simon 2000.

    Smaller blocks need fewer products with single vectors, larger ones fewer calls of ``product``.

    Args:
        product: ``C v`` for ``v [d, b]``, float64.
        dim: d.
        count: number of eigenvectors.
        block: vectors in a block.
        device: where the vectors are kept.
        ranks: the processes that share the product; every rank computes the same vectors.

    Raises:
        RuntimeError: if it does not converge in 500 blocks.
    """
    ranks, options = ranks or Ranks(), {"dtype": torch.float64, "device": device}
    most = max(4 * count, count + 4 * block)
    start = torch.randn(dim, min(block, dim), dtype=torch.float64, generator=torch_generator("eigenmodes", dim))
    new = ranks.copy_from_first(torch.linalg.qr(start.to(device))[0])
    vectors, inner = torch.zeros(dim, 0, **options), torch.zeros(0, 0, **options)  # type: ignore[call-overload]
    for _ in range(_MOST_BLOCKS):
        image, old = product(new), vectors.shape[1]
        vectors = torch.cat([vectors, new], 1)
        along = vectors.T @ image
        inner = torch.cat([torch.cat([inner, along[:old].T]), along], 1)
        image = image - vectors @ along
        image -= vectors @ (vectors.T @ image)
        new, left = torch.linalg.qr(image)
        values, rotation = torch.linalg.eigh((inner + inner.T) / 2)
        values, rotation = values.flip(0), rotation.flip(1)
        if vectors.shape[1] >= count:
            residual = (left @ rotation[old:, :count]).norm(dim=0)
            allowed = torch.maximum(_RESIDUAL * values[:count], _ROUNDING * values[0])
            # Rank 0 decides, because rounding may differ between machines.
            done = bool((residual <= allowed).all()) or vectors.shape[1] == dim
            if bool(ranks.copy_from_first(torch.tensor(float(done)))):
                return values[:count].cpu(), (vectors @ rotation[:, :count]).cpu()
        width = min(block, dim - vectors.shape[1])
        if vectors.shape[1] + width > most:
            kept = (count + most - width) // 2
            vectors, inner = ranks.copy_from_first(vectors @ rotation[:, :kept]), torch.diag(values[:kept])
        # Once more: the part left of a block may be rounding, whose direction is not orthogonal to V.
        new = new[:, :width] - vectors @ (vectors.T @ new[:, :width])
        new = ranks.copy_from_first(torch.linalg.qr(new)[0])
    raise RuntimeError(f"The {count} leading eigenmodes did not converge in {_MOST_BLOCKS} blocks.")
