"""Stationary Gaussian fields: the data for which the theory of convolutional denoisers is exact."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property, reduce
from typing import Any, Literal

import torch
from torch import Tensor

from spectral_lightning.arguments import non_negative, positive, positive_integer
from spectral_lightning.datamodules.rows import DrawnDataModule, Rows
from spectral_lightning.datamodules.synthetic.population import GaussianPopulation, finite_numbers, whiten

__all__ = ["GaussianFieldDataModule", "real_fourier"]


def real_fourier(size: int) -> tuple[Tensor, Tensor]:
    """The real Fourier vectors of a circle of N pixels, and the frequency of each.

    ``1/sqrt(N)``, then ``sqrt(2/N) cos(2 pi k x / N)`` and ``sqrt(2/N) sin(2 pi k x / N)`` for k = 1, 2 ... below N/2,
    and ``(-1)^x / sqrt(N)`` where N is even: orthonormal, and eigenvectors of every symmetric circulant matrix.

    Returns:
        Columns ``[N, N]``, float64, and the frequencies k in cycles, ``[N]``, float64.

    Example:
        >>> vectors, frequency = real_fourier(4)
        >>> frequency.tolist(), torch.allclose(vectors.T @ vectors, torch.eye(4, dtype=torch.float64))
        ([0.0, 1.0, 1.0, 2.0], True)
    """
    frequency = (torch.arange(size, dtype=torch.float64) + 1).div(2).floor()
    sine = torch.arange(size) % 2 == 0
    # Whole periods are removed as integers, so that large arguments lose no digits.
    turns = torch.outer(torch.arange(size), frequency.long()) % size
    angle = 2 * math.pi / size * turns.double()
    vectors = torch.where(sine & (frequency > 0), angle.sin(), angle.cos())
    single = (frequency == 0) | (2 * frequency == size)
    return vectors * ((2 - single.double()) / size).sqrt(), frequency


class GaussianFieldDataModule(DrawnDataModule):
    """Samples of a stationary Gaussian field on a circle or torus of pixels, with a power law in radial frequency.

    With the unitary discrete Fourier transform ``x_k`` of a field, and C the covariance of the channels,

        E x_k x_k* = lambda_k C,  lambda_k = scale * g_k / mean(g),  g_k = (|k|^2 + cutoff^2)^(-exponent/2).

    |k| is the radial frequency in cycles per longest side, so that the field is isotropic in pixels; C defaults to the
    identity. The variance of a pixel is ``scale`` times that of its channel, and exponent 0 is white
    noise. Below the cutoff the spectrum is flat, which keeps the variance of the field's mean, k = 0, finite. The
    covariance is circulant: its eigenvalues are ``lambda_k`` times those of C, and its eigenvectors the real Fourier
    vectors times those of C; k and -k have equal variances.

    Everything is computed in float64 with separate generators: the global random state is neither read nor changed. A batch
    is a float32 tensor ``[B, C, N]`` or ``[B, C, H, W]``, also for a single channel. Cost of a sample: d (C + H + W).

    Reference: the spectrum is von Karman's; the setting that of Wang & Pehlevan 2025, Propositions 5.3 and 5.4.

    Args:
        size: pixels, ``[N]`` or ``[H, W]``.
        channels: number of channels.
        exponent: of the power law in radial frequency; 2 is close to that of natural images in 2-d.
        cutoff: radial frequency, in cycles per longest side, below which the spectrum is flat.
        scale: mean of lambda over all frequencies.
        channel_covariance: covariance of the channels, one list per row; None for the identity.
        mean: one number for all channels, or one per channel.
        settings: the arguments of :class:`DrawnDataModule`; ``seed`` determines the samples.

    Raises:
        ValueError: for an argument out of range.

    Example:
        >>> data = GaussianFieldDataModule(size=[4], exponent=2.0, batch_size=10)
        >>> [round(v, 3) for v in data.spectrum.tolist()]
        [1.818, 0.909, 0.364, 0.909]
        >>> next(iter(data.train_dataloader())).shape
        torch.Size([10, 1, 4])
    """

    def __init__(
        self,
        size: list[int],
        channels: int = 1,
        exponent: float = 2.0,
        cutoff: float = 1.0,
        scale: float = 1.0,
        channel_covariance: list[list[float]] | None = None,
        mean: float | list[float] = 0.0,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        if not isinstance(size, list | tuple) or len(size) not in (1, 2):
            raise ValueError(f"`size` must be [N] or [H, W], got {size!r}.")
        self.size = tuple(positive_integer("size", n) for n in size)
        self.channels = positive_integer("channels", channels)
        self.exponent = non_negative("exponent", exponent)
        self.cutoff = positive("cutoff", cutoff, remedy="Without it the variance of the field's mean is infinite.")
        self.scale = positive("scale", scale)
        self.channel_covariance = _channel_covariance(channel_covariance, self.channels)
        self.channel_mean = finite_numbers(
            "mean", mean if isinstance(mean, list | tuple) else [mean] * channels, channels
        )
        self.shape = (self.channels, *self.size)
        self._check_full_rank()

    @property
    def spectrum(self) -> Tensor:
        """lambda_k in the order of ``torch.fft.fftn``, ``[*size]``, float64; that of channel c is ``C_cc`` times it."""
        return self._variances([torch.fft.fftfreq(n, 1 / n, dtype=torch.float64) for n in self.size])

    @cached_property
    def population(self) -> GaussianPopulation:
        """The distribution of the samples, flattened: its modes are real Fourier vectors times channel vectors.

        It holds d^2 numbers and is computed when first asked for; samples are drawn without it.
        """
        axes, variance = self._modes
        mean = self.channel_mean.repeat_interleave(math.prod(self.size))
        return GaussianPopulation.ordered(mean, variance.flatten(), reduce(torch.kron, axes))

    def population_moments(self) -> tuple[Tensor, Tensor]:
        """Mean ``[d]`` and covariance ``[d, d]`` of the population, float64, known without drawing a sample."""
        return self.population.moments

    def _variances(self, frequencies: Sequence[Tensor]) -> Tensor:
        """Variances at the frequencies of each axis, in cycles per that axis, ``[*size]``."""
        longest = max(self.size)
        scaled = [k * longest / n for k, n in zip(frequencies, self.size, strict=True)]
        squared = torch.stack(torch.meshgrid(*scaled, indexing="ij")).square().sum(0) + self.cutoff**2
        # Divided by the largest first, because small cutoffs and large exponents would overflow.
        law = (squared / squared.min()).pow(-self.exponent / 2)
        variance: Tensor = self.scale * law / law.mean()
        return variance

    @cached_property
    def _modes(self) -> tuple[list[Tensor], Tensor]:
        """Modes of the channels and real Fourier vectors of each axis, in columns; variances of their products."""
        channels, modes = torch.linalg.eigh(self.channel_covariance)
        vectors, frequencies = zip(*map(real_fourier, self.size), strict=True)
        variance = torch.tensordot(channels.clamp_min(0), self._variances(frequencies), dims=0)  # [C, *size]
        return [modes.contiguous(), *vectors], variance

    def _draw(self, stream: Literal["train", "val"], count: int) -> Rows:
        z = torch.from_numpy(self._generator(stream).standard_normal((count, self.dim)))
        if self.exact_moments and count:
            z = whiten(z)
        axes, variance = self._modes
        field = z.reshape(count, *self.shape) * variance.sqrt()
        # Rotate every axis by its own small matrix instead of all by one d x d matrix.
        for axis, vectors in enumerate(axes, start=1):
            field = torch.tensordot(field, vectors, dims=([axis], [1])).movedim(-1, axis)
        return Rows((self.channel_mean.view(-1, *[1] * len(self.size)) + field).float().contiguous())


def _channel_covariance(rows: list[list[float]] | None, channels: int) -> Tensor:
    if rows is None:
        return torch.eye(channels, dtype=torch.float64)
    if len(rows) != channels:
        raise ValueError(f"`channel_covariance` must have {channels} rows, one per channel, got {len(rows)}.")
    matrix = torch.stack([finite_numbers("channel_covariance", row, channels) for row in rows])
    smallest, largest = torch.linalg.eigvalsh(matrix)[[0, -1]].tolist()
    if not torch.equal(matrix, matrix.T) or largest <= 0 or smallest < -1e-9 * largest:
        raise ValueError(
            f"`channel_covariance` must be symmetric, with no negative eigenvalue and not zero, got {rows!r}."
        )
    return matrix
