"""The frequencies of a field of pixels as modes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spectral_lightning.arguments import positive_integer
from spectral_lightning.spectra.bases.basis import Basis, channels_and_size
from spectral_lightning.spectra.bases.pca import PCABasis

__all__ = ["FourierBasis", "FourierModes"]


class FourierBasis(Basis):
    """Frequencies ``k`` of the unitary DFT, ``X_k = N^(-1/2) sum_x exp(-2 pi i k x / N) x(x)``, N pixels.

    In this norm white noise of unit variance has variance 1 in every mode. The frequencies k and -k of a
    real field are one mode, with the two real coordinates ``sqrt2 Re X_k`` and ``sqrt2 Im X_k``; a frequency that is
    its own negative has one. With C channels every frequency has C modes ``v_j' X_k``, the eigenvectors v_j of its
    C x C spectral matrix ``E X_k X_k'``. Their variances are those of Wang & Pehlevan, arXiv 2503.03206, Prop. 5.3,
    and need no stationary data: they are the pooled diagonal of the covariance in Fourier space.

    With ``bands`` a mode comprises all channels and frequencies whose radial frequency lies in one of that many intervals
    of equal width; its variance is the mean over their coordinates. The first band includes k = 0. A radial frequency
    counts cycles along the longest side, equally in all directions of the pixel grid.

    Cost: d^3 once for the eigenmodes of the data, d^2 per projected sample, memory of two ``d x d`` matrices.

    Args:
        data: all eigenmodes of the data's covariance.
        vectors: the real coordinates as orthonormal columns in the order of the modes, ``[d, M]``.
        variance: data variance of each mode, descending, ``[K]``.
        mode_of: the mode of every column, ``[M]``.
        entries: ``k C + j`` of every column, k the flat index of its frequency in the order of ``numpy.fft``, ``[M]``.
        bands: number of radial bands, or None for single frequencies.
        axes: number of trailing axes of an example that are pixels; all but the first by default.

    Raises:
        ValueError: for a shape without pixels, or vectors that do not match it.

    Example:
        >>> basis = FourierBasis.from_moments(torch.zeros(4), torch.eye(4), shape=(4,))
        >>> basis.variance.tolist(), basis.multiplicity.tolist(), basis.labels
        ([1.0, 1.0, 1.0], [1, 2, 1], ['k=0', 'k=1', 'k=2'])
    """

    kind = "Fourier modes"

    def __init__(
        self,
        data: Basis,
        vectors: Tensor,
        variance: Tensor,
        mode_of: Tensor,
        entries: Tensor,
        bands: int | None = None,
        axes: int | None = None,
    ) -> None:
        if vectors.shape != (data.dim, len(entries)) or len(mode_of) != len(entries):
            raise ValueError(
                f"`vectors` must have shape [{data.dim}, M] with M the length of `mode_of` and `entries`, got "
                f"{tuple(vectors.shape)}, {len(mode_of)} and {len(entries)}."
            )
        super().__init__(vectors, variance, data.mean, data.shape, data.source, mode_of, data=data)
        self.bands, self.axes = bands, axes
        self.channels, self.size = channels_and_size(data.shape, axes)
        self.entries = entries.cpu().long()

    @classmethod
    def from_moments(
        cls,
        mean: Tensor,
        covariance: Tensor,
        shape: Sequence[int],
        bands: int | None = None,
        axes: int | None = None,
        source: str = "given moments",
    ) -> FourierBasis:
        """The Fourier modes of data of this mean ``[d]`` and covariance ``[d, d]``.

        ``shape`` is that of one example, ``[N]``, ``[C, N]`` or ``[C, H, W]``, or ``[H, W]`` with ``axes=2``; ``bands`` and
        ``axes`` are those of the class, and ``source`` says what the moments describe.

        Raises:
            ValueError: for a shape without pixels, moments that do not fit it, or a band without frequencies.
        """
        channels, size = channels_and_size(shape, axes)
        data = PCABasis.from_moments(mean, covariance, shape=shape, source=source)
        mirror, flat = _mirror(size), torch.arange(math.prod(size))
        frequencies = flat[flat <= mirror]  # one of k and -k, in flat order
        own = (flat == mirror)[frequencies]  # those that are their own negative
        power, channel_modes = _channel_modes(covariance.detach().cpu().double(), size, channels, frequencies, own)
        vectors, entries = _real_vectors(channel_modes, size, frequencies, own)
        place = torch.searchsorted(frequencies, entries // channels)
        group = place * channels + entries % channels if bands is None else _band(entries // channels, size, bands)
        variance, order, mode_of = _by_variance(power[place, entries % channels], group)
        return cls(data, vectors[:, order], variance, mode_of, entries[order], bands, axes)

    @property
    def labels(self) -> list[str]:
        """The frequency of every mode; its mean for bands."""
        if self.bands is not None:
            return [f"|k|={k:.4g}" for k in self.frequency.tolist()]
        waves = [str(k[0]) if len(k) == 1 else str(tuple(k)) for k in self.wavevector.tolist()]
        channel = (self.theory_index % self.channels).tolist()
        several = self.channels > 1
        return [f"k={k}" + f", channel mode {j + 1}" * several for k, j in zip(waves, channel, strict=True)]

    @property
    def frequency(self) -> Tensor:
        """Radial frequency of every mode in cycles along the longest side, its mean over a band, ``[K]``."""
        return self.pool(_radius(self.entries // self.channels, self.size))

    @property
    def wavevector(self) -> Tensor:
        """Cycles of every mode along each axis of pixels, ``[K, axes]``; one of k and -k. Single frequencies only."""
        return _wavevectors(self.size)[self.theory_index // self.channels]

    @property
    def theory_index(self) -> Tensor:
        """The index ``k C + j`` of each mode among those of a convolution's curves, ``[K]``. Single frequencies only.

        ``FullWidthConvolution(...).on(GaussianData(...)).variance[theory_index]`` is :attr:`variance`.
        """
        if self.bands is not None:
            raise ValueError(f"`bands` must be None for modes of one frequency each, got {self.bands}.")
        first = torch.searchsorted(self.mode_of, torch.arange(len(self.variance)))
        return self.entries[first]

    @property
    def mode_of_entry(self) -> Tensor:
        """The mode of every entry ``k C + j``, with both k and -k, ``[d]``. Single frequencies only."""
        entry = torch.arange(self.dim)
        one = torch.minimum(entry // self.channels, _mirror(self.size)[entry // self.channels])
        modes = torch.full((self.dim,), -1)
        modes[self.theory_index] = torch.arange(len(self.variance))
        return modes[one * self.channels + entry % self.channels]

    def describe(self) -> str:
        """One line for logs and files."""
        kind = self.kind if self.bands is None else "radial Fourier bands"
        return f"{len(self.variance)} {kind} of {self.source}, dimension {self.dim}"


@dataclass(frozen=True)
class FourierModes:
    """The recipe of a :class:`FourierBasis`.

    Args:
        bands: number of radial bands; single frequencies if None.
        axes: 2 for grey images ``[H, W]`` without an axis of channels.

    Example:
        >>> FourierModes().make(torch.zeros(4), torch.eye(4), (4,)).labels
        ['k=0', 'k=1', 'k=2']
    """

    bands: int | None = None
    axes: int | None = None

    def make(self, mean: Tensor, covariance: Tensor, shape: Sequence[int], source: str = "given moments") -> Basis:
        """The Fourier modes of data of this covariance."""
        return FourierBasis.from_moments(mean, covariance, shape, self.bands, self.axes, source)


def _wavevectors(size: tuple[int, ...]) -> Tensor:
    """Signed cycles per axis at every flat frequency, Nyquist positive, ``[pixels, axes]``."""
    lines = [torch.arange(n) - n * (2 * torch.arange(n) > n) for n in size]
    return torch.cartesian_prod(*lines).reshape(math.prod(size), len(size))


def _mirror(size: tuple[int, ...]) -> Tensor:
    """The flat index of -k for every frequency k."""
    flat = torch.arange(math.prod(size)).reshape(size)
    axes = tuple(range(len(size)))
    return flat.flip(axes).roll((1,) * len(size), axes).flatten()


def _radius(frequency: Tensor, size: tuple[int, ...]) -> Tensor:
    stretch = max(size) / torch.tensor(size, dtype=torch.float64)
    return (_wavevectors(size)[frequency] * stretch).square().sum(-1).sqrt()


def _band(frequency: Tensor, size: tuple[int, ...], bands: int) -> Tensor:
    """The radial band of every frequency."""
    count = positive_integer("bands", bands)
    radius = _radius(frequency, size)
    # Rounding must not separate frequencies on the edge of a band.
    band = (radius * count / radius.max().clamp_min(1e-300) + 1e-9).long().clamp_max(count - 1)
    if len(torch.unique(band)) < count:
        raise ValueError(f"`bands` must leave a frequency in every band, got {bands} for {size} pixels. Use fewer.")
    return band


def _channel_modes(
    covariance: Tensor, size: tuple[int, ...], channels: int, frequencies: Tensor, own: Tensor
) -> tuple[Tensor, Tensor]:
    """Descending eigenvalues and eigenvectors of the spectral matrices, ``[frequency, C]`` and ``[frequency, C, C]``."""
    axes, pixels = len(size), math.prod(size)
    folded = covariance.reshape(channels, *size, channels, *size)
    first, second = tuple(range(1, 1 + axes)), tuple(range(2 + axes, 2 + 2 * axes))
    both = torch.fft.ifftn(torch.fft.fftn(folded, dim=first), dim=second).reshape(channels, pixels, channels, pixels)
    matrices = both.diagonal(dim1=1, dim2=3).permute(2, 0, 1)[frequencies]
    power, modes = torch.linalg.eigh((matrices + matrices.mH) / 2)
    # Degenerate eigenvectors of a real matrix may come out complex, and its coordinates must be real.
    real_power, real_modes = torch.linalg.eigh((matrices.real + matrices.real.mT) / 2)
    power = torch.where(own[:, None], real_power, power)
    modes = torch.where(own[:, None, None], real_modes + 0j, modes)
    largest = modes.gather(1, modes.abs().argmax(1, keepdim=True))
    return power.flip(-1).clamp_min(0), (modes * (largest.abs() / largest)).flip(-1)


def _real_vectors(
    channel_modes: Tensor, size: tuple[int, ...], frequencies: Tensor, own: Tensor
) -> tuple[Tensor, Tensor]:
    """The real coordinates of every channel mode as columns ``[d, M]``, and the entry ``k C + j`` of each."""
    pixels, channels = math.prod(size), channel_modes.shape[-1]
    positions = torch.cartesian_prod(*(torch.arange(n).double() / n for n in size)).reshape(pixels, -1)
    wave = torch.exp(-2j * math.pi * (_wavevectors(size)[frequencies].double() @ positions.T)) / pixels**0.5
    rows = torch.einsum("fcj,fx->fjcx", channel_modes.conj(), wave)  # v_j' X_k is their product with the field
    parts = torch.stack([rows.real, rows.imag], dim=2).reshape(len(frequencies), channels, 2, channels * pixels)
    parts = parts * (2 - own.double()).sqrt()[:, None, None, None]
    kept = torch.stack([torch.ones_like(own), ~own], dim=1)[:, None].expand(-1, channels, -1)
    entries = (frequencies[:, None] * channels + torch.arange(channels))[..., None].expand(-1, -1, 2)
    return parts[kept].T.contiguous(), entries[kept]


def _by_variance(power: Tensor, group: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Variance of every mode, descending; the matching order of the columns; their modes."""
    variance = torch.zeros(int(group.max()) + 1, dtype=torch.float64).index_add(0, group, power) / group.bincount()
    ranking = torch.argsort(variance, descending=True, stable=True)
    mode_of = torch.argsort(ranking)[group]
    order = torch.argsort(mode_of, stable=True)
    return variance[ranking], order, mode_of[order]
