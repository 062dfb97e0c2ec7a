"""The frequencies of a field of pixels as modes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spectral_lightning.arguments import positive_integer
from spectral_lightning.spectra.bases.basis import Basis, channels_and_size
from spectral_lightning.spectra.bases.pca import PCABasis
from spectral_lightning.spectra.examples import Examples

__all__ = ["FourierBasis", "FourierModes", "spectra_of"]


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

    Samples are projected by the fast Fourier transform, ``d log d`` operations each, and the vectors are not kept. From
    moments, the eigenmodes of the data cost d^3 once and a d x d matrix. From examples (:meth:`from_examples`) only the
    spectral matrices are kept: the data's covariance is then taken as that of a stationary field with these spectra, in the
    sampler's fixed point, in gains and in theories.

    Args:
        channel_modes: eigenvectors v_j of the spectral matrices in columns, one matrix for each pair k and -k in the order of
            ``numpy.fft``, real and imaginary parts last, ``[F, C, C, 2]``.
        variance: data variance of each mode, descending, ``[K]``.
        mode_of: the mode of every coordinate, ``[d]``.
        entries: ``k C + j`` of every coordinate, k the flat index of its frequency in the order of ``numpy.fft``, ``[d]``; a
            second coordinate of the same entry is its imaginary part.
        mean: mean of the data, ``[d]``.
        shape: shape of one example.
        source: what the moments describe, for logs and files.
        bands: number of radial bands, or None for single frequencies.
        axes: number of trailing axes of an example that are pixels; all but the first by default.
        data: the eigenmodes of the data's covariance, or single frequencies; by default this basis.

    Raises:
        ValueError: for a shape without pixels, or matrices that do not match it.

    Example:
        >>> basis = FourierBasis.from_moments(torch.zeros(4), torch.eye(4), shape=(4,))
        >>> basis.variance.tolist(), basis.multiplicity.tolist(), basis.labels
        ([1.0, 1.0, 1.0], [1, 2, 1], ['k=0', 'k=1', 'k=2'])
    """

    kind = "Fourier modes"

    def __init__(
        self,
        channel_modes: Tensor,
        variance: Tensor,
        mode_of: Tensor,
        entries: Tensor,
        mean: Tensor,
        shape: Sequence[int],
        source: str = "given moments",
        bands: int | None = None,
        axes: int | None = None,
        data: Basis | None = None,
    ) -> None:
        self.bands, self.axes = bands, axes
        self.channels, self.size = channels_and_size(shape, axes)
        self._frequencies, self._own = _half(self.size)
        expected, d = (len(self._frequencies), self.channels, self.channels, 2), self.channels * math.prod(self.size)
        if channel_modes.shape != expected or not len(mode_of) == len(entries) == len(mean) == d:
            raise ValueError(
                f"`channel_modes` must have shape {expected}, and `mode_of`, `entries` and `mean` length {d}, got "
                f"{tuple(channel_modes.shape)}, {len(mode_of)}, {len(entries)} and {len(mean)}."
            )
        super().__init__(None, variance, mean, shape, source, mode_of, data=data)
        self.channel_modes, self.entries = channel_modes.detach().cpu().double(), entries.cpu().long()
        # The place of every coordinate among [frequency, channel mode, real or imaginary part].
        place = torch.searchsorted(self._frequencies, self.entries // self.channels)
        pair = place * self.channels + self.entries % self.channels
        order = torch.argsort(pair, stable=True)
        second = torch.zeros(d, dtype=torch.long)
        second[order[1:]] = (pair[order][1:] == pair[order][:-1]).long()
        self._place = 2 * pair + second

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
        matrices = _spectral_matrices(covariance.detach().cpu().double(), size, channels)
        return cls._from_matrices(matrices, mean, shape, source, bands, axes, data)

    @classmethod
    def from_examples(cls, examples: Examples, bands: int | None = None, axes: int | None = None) -> FourierBasis:
        """The Fourier modes of examples, in one pass and without a d x d matrix.

        Raises:
            ValueError: for a shape without pixels, or a band without frequencies.
        """
        [squares] = examples.totals(spectra_of(examples.shape, axes))
        single = cls.from_spectra(squares, examples, axes)
        return single if bands is None else cls._banded(single, bands)

    @classmethod
    def from_spectra(cls, squares: Tensor, examples: Examples, axes: int | None = None) -> FourierBasis:
        """The single frequencies of examples, from the sums of :func:`spectra_of` over all of them."""
        channels, size = channels_and_size(examples.shape, axes)
        waves = _waves(examples.mean[None], channels, size)[0]
        matrices = torch.view_as_complex(squares.cpu()) / examples.count - waves[:, :, None] * waves[:, None, :].conj()
        return cls._from_matrices(matrices, examples.mean, examples.shape, examples.source, None, axes, None)

    @classmethod
    def _from_matrices(
        cls,
        matrices: Tensor,
        mean: Tensor,
        shape: Sequence[int],
        source: str,
        bands: int | None,
        axes: int | None,
        data: Basis | None,
    ) -> FourierBasis:
        """The modes of spectral matrices ``[F, C, C]``."""
        channels, size = channels_and_size(shape, axes)
        frequencies, own = _half(size)
        power, modes = _channel_modes(matrices, own)
        # A coordinate for the real part of every channel mode, and one for its imaginary part unless it has none.
        kept = torch.stack([torch.ones_like(own), ~own], 1)[:, None].expand(-1, channels, -1)
        pair = torch.arange(len(frequencies) * channels).reshape(-1, channels, 1).expand(-1, -1, 2)[kept]
        place, j = pair // channels, pair % channels
        group = pair if bands is None else _band(frequencies[place], size, bands)
        variance, order, mode_of = _by_variance(power[place, j], group)
        entries = (frequencies[place] * channels + j)[order]
        mean = mean.reshape(-1)
        return cls(torch.view_as_real(modes), variance, mode_of, entries, mean, shape, source, bands, axes, data)

    @classmethod
    def _banded(cls, single: FourierBasis, bands: int) -> FourierBasis:
        """The bands of single frequencies."""
        flat = single._place.argsort()  # coordinates of a band in the order of their frequencies
        group = _band(single.entries[flat] // single.channels, single.size, bands)
        variance, order, mode_of = _by_variance(single.variance[single.mode_of[flat]], group)
        about = (single.mean, single.shape, single.source, bands, single.axes, single)
        return cls(single.channel_modes, variance, mode_of, single.entries[flat[order]], *about)

    def along(self, fields: Tensor) -> Tensor:
        """Coordinates of float64 fields by a fast Fourier transform, ``[B, d] -> [B, d]``; see :class:`Basis`."""
        _, modes, frequencies, own, place, _ = self._on(fields.device)
        waves = _waves(fields, self.channels, self.size, frequencies)
        along = torch.view_as_real(torch.einsum("fcj,bfc->bfj", torch.view_as_complex(modes).conj(), waves))
        return (along * (2 - own.double()).sqrt()[:, None, None]).flatten(1)[:, place]

    def synthesize(self, coordinates: Tensor) -> Tensor:
        """Fields with these coordinates, by the inverse transform, ``[B, d] -> [B, d]``; see :class:`Basis`."""
        _, modes, frequencies, own, place, mirror = self._on(coordinates.device)
        parts = coordinates.new_zeros(len(coordinates), len(frequencies), self.channels, 2)
        parts.flatten(1)[:, place] = coordinates
        along = torch.view_as_complex(parts) / (2 - own.double()).sqrt()[:, None]
        waves = torch.einsum("fcj,bfj->bcf", torch.view_as_complex(modes), along)
        plane = waves.new_zeros(len(waves), self.channels, math.prod(_plane(self.size)))
        plane[..., frequencies] = waves
        plane[..., mirror[1]] = waves[..., mirror[0]].conj()  # -k where the half plane holds both
        axes = tuple(range(2 + len(self.size) - 1, 1, -1))
        field: Tensor = torch.fft.irfftn(
            plane.reshape(len(waves), self.channels, *_plane(self.size)), self.size[::-1], axes, norm="ortho"
        )
        return field.flatten(1)

    @property
    def _layout(self) -> tuple[Any, ...]:
        return self.bands, self.axes

    def _defining(self) -> tuple[Tensor, ...]:
        mirrored = _mirror(self.size)[self._frequencies]
        doubled = ((mirrored < math.prod(_plane(self.size))) & ~self._own).nonzero()[:, 0]
        mirror = torch.stack([doubled, mirrored[doubled]])
        return self.channel_modes, self._frequencies, self._own, self._place, mirror

    def _shares(self, basis: Basis) -> Tensor:
        """See :func:`overlap`: by transforming the vectors of ``basis``, one position of each patch.

        Shifts turn only the phases of a frequency, so all positions of a patch have the same share of it.
        """
        if isinstance(basis, FourierBasis) and torch.equal(basis.channel_modes, self.channel_modes):
            # The same coordinates, each in one mode of either.
            mine, theirs = self.mode_of[self._place.argsort()], basis.mode_of[basis._place.argsort()]
            shared = torch.bincount(
                theirs * len(self.variance) + mine, minlength=len(basis.variance) * len(self.variance)
            )
            return shared.reshape(len(basis.variance), -1).double() / basis.observables.coordinates[:, None]
        matrix = torch.zeros(len(basis.variance), len(self.variance), dtype=torch.float64)
        count = basis.observables.coordinates.double()
        for mode, field in zip(basis.mode_of.tolist(), basis._fields(), strict=True):
            matrix[mode].index_add_(0, self.mode_of, self.along(field[None])[0].square() / count[mode])
        return matrix

    @property
    def spectral_matrices(self) -> Tensor:
        """``E X_k X_k'`` less the mean at every frequency in the order of ``numpy.fft``, complex ``[*size, C, C]``.

        Single frequencies only.
        """
        power = self.variance[self.mode_of_entry].reshape(-1, self.channels)[self._frequencies]
        modes = torch.view_as_complex(self.channel_modes)
        half = (modes * power[:, None, :]) @ modes.mH
        full = torch.zeros(math.prod(self.size), self.channels, self.channels, dtype=half.dtype)
        full[_mirror(self.size)[self._frequencies]] = half.conj()
        full[self._frequencies] = half
        return full.reshape(*self.size, self.channels, self.channels)

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
    def wavelength(self) -> Tensor:
        """Pixels per cycle of every mode, those of the mean frequency for bands, infinite for k = 0, ``[K]``."""
        return max(self.size) / self.frequency

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

    def make_from(self, examples: Examples) -> Basis:
        """The Fourier modes of these examples."""
        return FourierBasis.from_examples(examples, self.bands, self.axes)


def spectra_of(shape: Sequence[int], axes: int | None = None) -> Callable[[Tensor], tuple[Tensor]]:
    """Maps fields ``[n, d]`` to the sum of their ``X_k X_k'``, real and imaginary parts last, ``[F, C, C, 2]``."""
    channels, size = channels_and_size(shape, axes)
    frequencies = _half(size)[0]

    def squares(fields: Tensor) -> tuple[Tensor]:
        waves = _waves(fields, channels, size, frequencies.to(fields.device))
        return (torch.view_as_real(torch.einsum("bfc,bfd->fcd", waves, waves.conj())),)

    return squares


def _half(size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """One of k and -k in flat order, and which are their own negative."""
    mirror, flat = _mirror(size), torch.arange(math.prod(size))
    return flat[flat <= mirror], (flat == mirror)[flat <= mirror]


def _plane(size: tuple[int, ...]) -> tuple[int, ...]:
    """Frequencies of a real transform, halved along the first axis, which the half in flat order begins with."""
    return size[0] // 2 + 1, *size[1:]


def _waves(fields: Tensor, channels: int, size: tuple[int, ...], frequencies: Tensor | None = None) -> Tensor:
    """The unitary transform of fields ``[B, d]`` at the frequencies of :func:`_half`, ``[B, F, C]``."""
    images, axes = fields.reshape(len(fields), channels, *size), tuple(range(1 + len(size), 1, -1))
    plane: Tensor = torch.fft.rfftn(images, dim=axes, norm="ortho").flatten(2)
    return plane[..., _half(size)[0] if frequencies is None else frequencies].transpose(1, 2)


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


def _spectral_matrices(covariance: Tensor, size: tuple[int, ...], channels: int) -> Tensor:
    """The spectral matrices of a covariance at the frequencies of :func:`_half`, ``[F, C, C]``."""
    axes, pixels = len(size), math.prod(size)
    folded = covariance.reshape(channels, *size, channels, *size)
    first, second = tuple(range(1, 1 + axes)), tuple(range(2 + axes, 2 + 2 * axes))
    both: Tensor = torch.fft.ifftn(torch.fft.fftn(folded, dim=first), dim=second).reshape(
        channels, pixels, channels, pixels
    )
    return both.diagonal(dim1=1, dim2=3).permute(2, 0, 1)[_half(size)[0]]


def _channel_modes(matrices: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """Descending eigenvalues and eigenvectors of the spectral matrices, ``[F, C]`` and ``[F, C, C]``."""
    power, modes = torch.linalg.eigh((matrices + matrices.mH) / 2)
    # Degenerate eigenvectors of a real matrix may come out complex, and its coordinates must be real.
    real_power, real_modes = torch.linalg.eigh((matrices.real + matrices.real.mT) / 2)
    power = torch.where(own[:, None], real_power, power)
    modes = torch.where(own[:, None, None], real_modes + 0j, modes)
    largest = modes.gather(1, modes.abs().argmax(1, keepdim=True))
    return power.flip(-1).clamp_min(0), (modes * (largest.abs() / largest)).flip(-1)


def _by_variance(power: Tensor, group: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Variance of every mode, descending; the matching order of the columns; their modes."""
    variance = torch.zeros(int(group.max()) + 1, dtype=torch.float64).index_add(0, group, power) / group.bincount()
    ranking = torch.argsort(variance, descending=True, stable=True)
    mode_of = torch.argsort(ranking)[group]
    order = torch.argsort(mode_of, stable=True)
    return variance[ranking], order, mode_of[order]
