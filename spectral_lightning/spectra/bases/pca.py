"""The eigenvectors of the data's covariance as modes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from spectral_lightning.arguments import positive_integer
from spectral_lightning.spectra.bases.basis import Basis
from spectral_lightning.spectra.bases.lanczos import leading_eigenmodes
from spectral_lightning.spectra.examples import Examples

__all__ = ["Eigenmodes", "PCABasis"]

_DEFAULT_MODES, _KEPT_BLOCK = 256, 64
_LEAST_FOR_LANCZOS = 1_024
_LEAST_FOR_SINGLE, _LEAST_SHARE = 2**18, 1e-2


class PCABasis(Basis):
    """Eigenvectors ``u_k`` of the covariance with its largest eigenvalues ``lambda_k``, descending.

    Each eigenvector's largest component is positive, so that signs do not depend on the solver. Modes with less than
    1e-10 of the largest variance are null modes: along them the data do not leave their mean.

    Args:
        modes: orthonormal columns, ``[d, K]``, float64.
        variance: data variance along each, ``[K]``.
        mean: mean of the data, ``[d]``.
        shape: shape of one example, with d entries.
        source: what the moments describe, for logs and files.
        rest: mean variance of the data in the other d - K directions.

    The product with float32 samples on the CPU is taken in float32 where that is clearly faster and no mode has less than
    1 % of the mean variance: half the time, and 1e-6 of the measured variances, below the rounding of the samples.

    Raises:
        ValueError: if the shapes do not match.

    Example:
        >>> basis = PCABasis.from_moments(torch.zeros(2), torch.diag(torch.tensor([1.0, 4.0])))
        >>> basis.variance.tolist(), basis.project(torch.tensor([[3.0, 5.0]])).tolist()
        ([4.0, 1.0], [[5.0, 3.0]])
    """

    kind = "eigenmodes of the covariance"

    def __init__(
        self,
        modes: Tensor,
        variance: Tensor,
        mean: Tensor,
        shape: Sequence[int],
        source: str = "given moments",
        rest: float = 0.0,
    ) -> None:
        d = math.prod(int(n) for n in shape)
        if modes.ndim != 2 or modes.shape != (d, len(variance)) or len(mean) != len(modes):
            raise ValueError(
                "`modes` must have shape [d, K] with d the product of `shape` and the length of `mean`, K the length of "
                f"`variance`; got {tuple(modes.shape)}, {tuple(shape)}, {len(mean)} and {len(variance)}."
            )
        super().__init__(modes, variance, mean, shape, source, rest=rest)

    @classmethod
    def from_moments(
        cls,
        mean: Tensor,
        covariance: Tensor,
        num_modes: int | None = None,
        shape: Sequence[int] | None = None,
        source: str = "given moments",
    ) -> PCABasis:
        """The ``num_modes`` leading eigenvectors of ``covariance``.

        Cost: d^3, once (0.1 s at d = 256, about 10 s at d = 3,072 on two cores). From 1,024 dimensions on, an eighth of the
        modes or fewer by a block Lanczos iteration, several times faster.

        Args:
            mean: ``[d]``.
            covariance: ``[d, d]``, symmetric.
            num_modes: number of modes to keep; all if None.
            shape: shape of one example; ``[d]`` by default.
            source: what the moments describe.

        Raises:
            ValueError: for shapes that do not match, more modes than dimensions, or moments that are not finite.
        """
        if mean.ndim == 0:  # a torchmetrics.Metric hands over a single number without its axes
            mean, covariance = mean.reshape(1), covariance.reshape(1, 1)
        d = len(mean)
        if covariance.shape != (d, d):
            raise ValueError(
                f"`covariance` must have shape ({d}, {d}) as `mean` has {d}, got {tuple(covariance.shape)}."
            )
        count = d if num_modes is None else positive_integer("num_modes", num_modes)
        if count > d:
            raise ValueError(f"`num_modes` must be at most the dimension of the data, {d}, got {count}.")
        if not (torch.isfinite(mean).all() and torch.isfinite(covariance).all()):
            raise ValueError("`mean` and `covariance` must be finite, got NaN or infinity.")
        matrix = covariance.detach().cpu().double()
        if d >= _LEAST_FOR_LANCZOS and count <= d // 8:
            variance, modes = leading_eigenmodes(lambda v: matrix @ v, d, count)
        else:
            variance, modes = torch.linalg.eigh(matrix)
            variance, modes = variance.flip(0)[:count], modes.flip(1)[:, :count]
        shape, total = (d,) if shape is None else shape, float(matrix.trace())
        return cls._signed(modes, variance, mean, shape, source, total)

    @classmethod
    def from_examples(cls, examples: Examples, num_modes: int | None = None) -> PCABasis:
        """The leading eigenvectors of the covariance of examples, which is never formed.

        A block Lanczos iteration multiplies the centred examples with blocks of vectors until the residuals
        ``|C u - lambda u|`` are below 1e-5 lambda; the error of lambda is about their square over the distance to the
        next eigenvalue. Memory: about ``4 d K`` numbers, and the examples if they fit in ``examples.memory``; if not, each
        of about ten blocks reads them again.

        Args:
            examples: the data.
            num_modes: number of modes; 256 by default, or one per example if there are fewer.

        Raises:
            ValueError: for more modes than dimensions, or examples that do not vary.
        """
        examples.totals(keep=True)
        count = min(_DEFAULT_MODES, examples.count, examples.dim) if num_modes is None else num_modes
        if count > examples.dim:
            raise ValueError(f"`num_modes` must be at most the dimension of the data, {examples.dim}, got {count}.")
        block = count if examples.kept is None else _KEPT_BLOCK
        variance, modes = leading_eigenmodes(
            examples.product, examples.dim, count, block, examples.device, examples.ranks
        )
        total = examples.variance
        return cls._signed(modes, variance, examples.mean, examples.shape, examples.source, total)

    @classmethod
    def _signed(
        cls, modes: Tensor, variance: Tensor, mean: Tensor, shape: Sequence[int], source: str, total: float
    ) -> PCABasis:
        """The basis of these eigenvectors with their signs fixed; ``total`` is the trace of the covariance."""
        largest = modes.gather(0, modes.abs().argmax(0, keepdim=True))
        left = len(modes) - len(variance)
        rest = max(total - float(variance.sum()), 0.0) / left if left else 0.0
        return cls(modes * torch.sign(largest), variance, mean, shape, source, rest)

    def project(self, samples: Tensor) -> Tensor:
        """Observables about the data's mean, float64: ``[B, *S] -> [B, K]``; see :class:`Basis`."""
        flat = samples.detach().flatten(1)
        if not self._takes_single or not _exact_single(flat) or flat.shape[1] != self.dim:
            return super().project(samples)
        vectors, mean, correction = self._single
        return torch.mm(flat - mean, vectors).double() + correction

    @cached_property
    def _takes_single(self) -> bool:
        """Whether a float32 product is worth while and keeps 1e-6 of the variance of every mode."""
        least = float(self.variance.min())
        return self.modes.numel() >= _LEAST_FOR_SINGLE and least >= _LEAST_SHARE * float(self.spectrum.mean())

    @cached_property
    def _single(self) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors and mean in float32, and what rounding the mean changes in the observables."""
        mean = self.mean.float()
        return self.modes.float(), mean, (mean.double() - self.mean) @ self.modes

    @property
    def modes(self) -> Tensor:
        """The eigenvectors as columns, ``[d, K]``."""
        return self.vectors

    @property
    def labels(self) -> list[str]:
        """``mode 1`` for the mode of largest variance, and so on."""
        return [f"mode {k + 1}" for k in range(len(self.variance))]


@dataclass(frozen=True)
class Eigenmodes:
    """The recipe of a :class:`PCABasis`.

    Args:
        num_modes: number of modes of largest variance to keep; all if None, or 256 in more than 4,096 dimensions.

    Example:
        >>> Eigenmodes(num_modes=1).make(torch.zeros(2), torch.eye(2), (2,)).describe()
        '1 eigenmodes of the covariance of given moments, dimension 2'
    """

    num_modes: int | None = None

    def make(self, mean: Tensor, covariance: Tensor, shape: Sequence[int], source: str = "given moments") -> Basis:
        """The eigenmodes of this covariance."""
        return PCABasis.from_moments(mean, covariance, self.num_modes, shape, source)

    def make_from(self, examples: Examples) -> Basis:
        """The leading eigenmodes of these examples."""
        return PCABasis.from_examples(examples, self.num_modes)


def _exact_single(flat: Tensor) -> bool:
    """Whether torch takes the product of these samples in float32 as it stands, on the CPU."""
    lowered = torch.get_float32_matmul_precision() != "highest" or torch.is_autocast_enabled("cpu")
    return flat.dtype == torch.float32 and flat.device.type == "cpu" and not lowered
