"""The denoising loss."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from spectral_lightning.arguments import one_of
from spectral_lightning.theory import Preconditioning

__all__ = ["Reduction", "denoising_loss"]

Reduction = Literal["sum", "mean"]


def denoising_loss(
    denoised: Tensor, clean: Tensor, sigma: Tensor, preconditioning: Preconditioning, reduction: Reduction = "mean"
) -> Tensor:
    """``mean over the batch of weight(sigma) ||D - x0||^2``, the square summed or averaged over the coordinates.

    The theory's rates hold for the sum. The mean over d coordinates divides the gradient by d, which slows plain
    gradient descent but not Adam.

    Reference: Karras et al. 2022, equation 8 and table 1.

    Args:
        denoised: output of the denoiser, ``[B, *S]``.
        clean: the data, ``[B, *S]``.
        sigma: noise levels, ``[B]``.
        preconditioning: gives the weight.
        reduction: over the coordinates, ``"sum"`` or ``"mean"``.

    Returns:
        Scalar.

    Raises:
        ValueError: for an unknown reduction.
    """
    one_of("reduction", reduction, ("sum", "mean"))
    square = (denoised - clean).flatten(1).square()
    per_example = square.sum(1) if reduction == "sum" else square.mean(1)
    loss: Tensor = (preconditioning.loss_weight(sigma) * per_example).mean()
    return loss
