"""One measurement of any denoiser: sample, project, summarise."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spectral_lightning.diffusion import Denoiser, Latents
from spectral_lightning.sampling import Sampler
from spectral_lightning.spectra.bases import Basis, overlap
from spectral_lightning.spectra.history import SpectralHistory
from spectral_lightning.spectra.measurement.chunks import LatentChunks
from spectral_lightning.spectra.measurement.statistics import ModeStatistics
from spectral_lightning.spectra.ranks import Ranks
from spectral_lightning.theory.solving.generation import fixed_point

__all__ = ["GeneratedSamples", "SpectralProbe", "at_one_level", "gain_sums", "samples_at_once"]

_BLOCKS_FOR_AN_ERROR = 2
_BYTES_HELD, _NUMBERS_AT_ONCE = 2**28, 2**23


@dataclass(frozen=True)
class GeneratedSamples:
    """One rank's share of the samples of a denoiser, where they were generated; on the CPU above 256 MiB.

    Attributes:
        key: the :attr:`SpectralProbe.sampling_key` that they were generated under.
        chunks: the samples ``[n, *S]`` of each of this rank's chunks, by index.
        device: where they were generated.
    """

    key: Hashable
    chunks: dict[int, Tensor]
    device: torch.device


class SpectralProbe:
    """Samples a denoiser and measures the variance of the samples along the modes of a basis.

    A set of latents is integrated down the probability-flow ODE in fixed chunks, which the ranks share. It is the same at
    every measurement, unless it is a slice of a block (fewer than twice the dimension) and :meth:`rotate` is called. Sums are
    kept per block of latents in float64 and added in block order, so that the world size changes results only by the
    rounding of the network.

    The standard error is the scatter of complete blocks of orthogonal latents, from two on. With fewer it follows from the
    fourth moment, counting antithetic pairs once: for part of a block times ``(1 - n / 2d)^(1/2)``, as for drawing without
    replacement; for one block an upper bound, because the sampling error of the linear part cancels. A session replaces it
    by the :class:`~spectral_lightning.spectra.measurement.scatter.Scatter` of repeated measurements.

    Probes with the same :attr:`sampling_key` can share samples: :meth:`generate` them once and take a :meth:`row` of
    each probe.

    Cost of a measurement: ``num_samples x sampler.evaluations`` evaluations of the network, and
    ``num_samples x replicates x d x M`` operations to project on M coordinates, less for Fourier modes. Memory: samples and
    latents (``num_samples x d`` numbers each, shared by the ranks), a block of observables of 8.4 million numbers, and what
    the :class:`~spectral_lightning.spectra.measurement.alignment.Alignment` keeps.

    Args:
        basis: modes and variances of the data.
        sampler: the discrete sampler, a part of the measurement; 18 Heun steps by default. With ``"given"``,
            :meth:`generate` takes a function ``f(latents [B, *S]) -> samples [B, *S]`` instead of a denoiser, there are
            no gains, and the fixed point is the data's variance.
        num_samples: number of latents; a multiple of twice the dimension makes linear denoisers exact.
        latents: ``"orthogonal"`` or ``"independent"``, see :class:`~spectral_lightning.diffusion.Latents`.
        seed: seed of the latents.
        sample_batch_size: the most samples that go through the network at once.
        ranks: the processes that share the work and all call the same methods; this process alone by default.
        part: another, independent set of latents of the same seed.

    Attributes:
        fixed_point: variances that the sampler generates with the exact denoiser of a Gaussian, ``[K]``.
        num_blocks: number of blocks of latents; the last may be incomplete.
        error_from_blocks: whether the standard error is the scatter of blocks, not a bound from the fourth moment.

    Raises:
        ValueError: for an argument out of range.

    Example:
        >>> from spectral_lightning.spectra import PCABasis
        >>> basis = PCABasis.from_moments(torch.zeros(2), torch.diag(torch.tensor([4.0, 1.0])))
        >>> probe = SpectralProbe(basis, Sampler(num_steps=18), num_samples=4)
        >>> wiener = lambda z, sigma: z * basis.variance / (basis.variance + sigma[:, None] ** 2)
        >>> row = probe.measure(wiener, step=0, dtype=torch.float64)
        >>> bool(torch.allclose(torch.as_tensor(row["variance"]), torch.as_tensor(probe.fixed_point)))
        True
    """

    def __init__(
        self,
        basis: Basis,
        sampler: Sampler | Literal["given"] | None = None,
        num_samples: int = 1024,
        latents: str = "orthogonal",
        seed: int = 0,
        sample_batch_size: int = 512,
        ranks: Ranks | None = None,
        part: int = 0,
    ) -> None:
        self.basis = basis
        self.sampler: Sampler | None = None if sampler == "given" else sampler or Sampler()
        self.sample_batch_size, self.ranks = sample_batch_size, ranks or Ranks()
        drawn = Latents(num_samples, basis.dim, latents, seed, part)  # type: ignore[arg-type]
        self.chunks = LatentChunks(drawn, sample_batch_size, self.ranks)
        blocks, left = divmod(self.latents.count, self.latents.block)
        self.num_blocks = blocks + bool(left)
        self.error_from_blocks = blocks >= _BLOCKS_FOR_AN_ERROR and not left
        self.error_source = "fourth moment (an upper bound)"
        if self.error_from_blocks:
            self.error_source = f"scatter of {blocks} blocks, Student's t with {blocks - 1} degrees of freedom"
        elif self.latents.kind == "orthogonal" and not blocks:
            self.error_source = "fourth moment, corrected for the part of a block drawn"
        self.fixed_point: NDArray[np.float64] = basis.variance.numpy()
        if self.sampler is not None:
            self.fixed_point = fixed_point(basis.data.variance.numpy(), self.sampler)
            if basis.data is not basis:
                self.fixed_point = (overlap(basis, basis.data) @ torch.from_numpy(self.fixed_point)).numpy()

    @property
    def latents(self) -> Latents:
        """The latents of the next measurement."""
        return self.chunks.latents

    def rotate(self, index: int) -> None:
        """Take the slice of scheduled measurement ``index``, see :meth:`~spectral_lightning.diffusion.Latents.rotated`.

        Rows then hold the ``slice``, and :meth:`SpectralHistory.smoothed` combines them. Without effect on complete blocks.
        """
        self.chunks.rotate(index)

    def like(
        self,
        basis: Basis | None = None,
        sampler: Sampler | None = None,
        num_samples: int | None = None,
        part: int | None = None,
    ) -> SpectralProbe:
        """A probe with these settings but for those given."""
        latents = self.latents
        return SpectralProbe(
            basis or self.basis,
            sampler or self.sampler or "given",
            num_samples or latents.count,
            latents.kind,
            latents.seed,
            self.sample_batch_size,
            self.ranks,
            latents.part if part is None else part,
        )

    def history(
        self, initial_gain: Any = None, extra: Mapping[str, Any] | None = None, **metadata: Any
    ) -> SpectralHistory:
        """An empty history for this probe's measurements, with the settings of the measurement as metadata.

        Args:
            initial_gain: gain of the denoiser before training, ``[level, mode]``.
            extra: additional static fields, such as those of groups.
            metadata: additional plain values.
        """
        static = {
            **(extra or {}),
            "target": self.basis.variance.numpy(),
            "null": self.basis.null.numpy(),
            "multiplicity": self.basis.multiplicity.numpy(),
            "fixed_point": self.fixed_point,
        }
        wavelength = self.basis.wavelength
        if wavelength is not None:
            static["wavelength"] = wavelength.numpy()
        if self.sampler is not None:
            static["levels"] = self.sampler.levels
        if initial_gain is not None:
            static["initial_gain"] = initial_gain
        about: dict[str, Any] = {
            "sampler": "given" if self.sampler is None else self.sampler.describe(),
            "basis": self.basis.describe(),
            "fingerprint": self.basis.fingerprint,
            "modes": self.basis.labels,
            "latents": f"{self.latents.count} {self.latents.kind}, seed {self.latents.seed}",
            "standard_error": self.error_source,
        }
        if self.latents.sliced:
            about["slices"] = {"directions": self.latents.dim, "width": self.latents.count // 2}
        return SpectralHistory(static, {**about, **metadata})

    @property
    def sampling_key(self) -> Hashable:
        """Equal for probes that generate the same samples from one denoiser."""
        shared = (self.basis.shape, self.sampler, self.latents, self.sample_batch_size)
        return (*shared, self.ranks.rank, self.ranks.size)

    def measure(
        self,
        denoiser: Denoiser,
        step: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        condition: Tensor | None = None,
        **known: Any,
    ) -> dict[str, Any]:
        """Generate the samples and return one row for :meth:`SpectralHistory.append`.

        Gradients are off; modes and random states are up to the caller, see
        :func:`~spectral_lightning.diffusion.undisturbed`. Every rank must call it.

        Takes the arguments of :meth:`generate` and :meth:`row`, and raises what they raise.
        """
        return self.row(self.generate(denoiser, device, dtype, condition), step, **known)

    @torch.no_grad()
    def generate(
        self,
        denoiser: Denoiser,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        condition: Tensor | None = None,
    ) -> GeneratedSamples:
        """This rank's share of the samples, the first half of :meth:`measure`; no rank waits for another.

        Args:
            denoiser: ``D(z [B, *S], sigma [B]) -> [B, *S]``, or ``D(z, sigma, condition [B, ...])`` if a condition is given.
            device: where the network is.
            dtype: precision of the sampler's state; at least float32.
            condition: rows ``[n, ...]``; latents 2i and 2i + 1, an antithetic pair, have row i modulo n.

        Raises:
            ValueError: if the denoiser does not keep the shape of its input.
        """
        made = {}
        held = self.latents.count // self.ranks.size * self.basis.dim * dtype.itemsize
        for index, repeated in self.chunks.turns():
            latents = self.chunks.rows(index, dtype).to(device).reshape(-1, *self.basis.shape)
            rows = self.chunks.condition(condition, index, device)
            if self.sampler is None:
                samples = _same_shape(denoiser(latents, *_copies(rows)), latents)
            else:
                samples = self.sampler(at_one_level(denoiser, rows), latents * self.sampler.start)
            if not repeated:
                made[index] = samples if held <= _BYTES_HELD else samples.cpu()
        return GeneratedSamples(self.sampling_key, made, torch.device(device))

    def row(self, samples: GeneratedSamples, step: int, **known: Any) -> dict[str, Any]:
        """One row for :meth:`SpectralHistory.append`, the second half of :meth:`measure`. Every rank must call it.

        Args:
            samples: this rank's share, from :meth:`generate` of a probe with the same :attr:`sampling_key`.
            step: optimizer updates so far.
            known: additional row fields, such as ``cumulative_learning_rate``.

        Raises:
            ValueError: for samples generated under another key.
        """
        statistics = self.sums(samples)
        statistics.reduce(self.ranks)
        return self.row_of(statistics, step, **known)

    def row_of(self, statistics: ModeStatistics, step: int, **known: Any) -> dict[str, Any]:
        """One row from the sums over the samples of all ranks."""
        return self.summary(statistics, step, self.standard_error(statistics), self.latents.count, **known)

    def sums(self, samples: GeneratedSamples) -> ModeStatistics:
        """Sums over this rank's finite samples, the first of :meth:`sums_by_group`."""
        return self.sums_by_group(samples, None, 0)[0]

    def sums_by_group(
        self, samples: GeneratedSamples, classify: Callable[[Tensor], Tensor] | None, count: int
    ) -> list[ModeStatistics]:
        """Sums over this rank's finite samples: first of all, then of each group; no rank waits for another.

        Args:
            samples: from :meth:`generate` of a probe with the same :attr:`sampling_key`.
            classify: maps samples ``[B, *S]`` to their groups ``[B]``, counted from 0; called once per chunk.
            count: number of groups.

        Raises:
            ValueError: for samples generated under another :attr:`sampling_key`.
        """
        if samples.key != self.sampling_key:
            raise ValueError(f"`samples` must be generated under {self.sampling_key!r}, got {samples.key!r}.")
        number, most = self.latents.count, samples_at_once(self.basis)
        parts = [ModeStatistics.empty(self.num_blocks, self.basis.observables, number) for _ in range(1 + count)]
        for index, chunk in samples.chunks.items():
            values = chunk.to(samples.device)
            finite = torch.isfinite(values.flatten(1)).all(1)
            masks = [finite]
            if classify is not None:
                group = classify(values).to(values.device)
                masks += [finite & (group == g) for g in range(count)]
            origin = self.chunks.parts[index][0][1]
            for block, start, stop in self.chunks.parts[index]:
                for first in range(start, stop, most):
                    own = slice(first - origin, min(first + most, stop) - origin)
                    for statistics, taken in zip(parts, masks, strict=True):
                        observed = self.basis.project(values[own][taken[own]])
                        statistics.add(block, observed, int((~finite[own]).sum()), first)
        return parts

    def standard_error(self, statistics: ModeStatistics) -> Tensor:
        """Standard error of the variance along each mode, ``[K]``."""
        if self.error_from_blocks and int(statistics.total) == self.latents.count:
            return statistics.block_error()
        if self.latents.kind == "independent":
            return statistics.moment_error(float(statistics.total))
        left = 1 - self.latents.count / self.latents.block
        return statistics.moment_error(float(statistics.total) / 2) * (left if left > 0 else 1) ** 0.5

    def summary(
        self, statistics: ModeStatistics, step: int, error: Tensor, num_samples: int, **known: Any
    ) -> dict[str, Any]:
        """One row from sums over samples and the standard error of their variance; NaN without a finite sample."""
        if self.latents.sliced:
            known["slice"] = self.latents.first
        return {
            "step": step,
            # Orthogonal latents are a fixed design with the exact second moment: no correction for the mean.
            "variance": statistics.variance(unbiased=self.latents.kind == "independent").numpy(),
            "standard_error": error.numpy(),
            "mean_deviation": statistics.deviation.numpy(),
            "alignment": statistics.alignment(),
            "num_samples": num_samples,
            "non_finite": int(statistics.non_finite),
            **known,
        }

    def gain(
        self,
        denoiser: Denoiser,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        condition: Tensor | None = None,
    ) -> Tensor:
        """Gain of the denoiser on each mode at each of ``sampler.levels``, ``[level, mode]``, float64.

        ``g_k = sum u_k'(D(z) - mean) u_k'(z - mean) / sum (u_k'(z - mean))^2`` over noisy Gaussian data
        ``z ~ N(mean, Sigma + sigma^2 I)`` and the observables of a mode: the weight of a linear denoiser, the best
        linear gain of any other. One evaluation of the network per level and latent. Every rank must call it.
        """
        return self.gain_of(self.gain_sums(denoiser, device, dtype, condition))

    @torch.no_grad()
    def gain_sums(
        self,
        denoiser: Denoiser,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        condition: Tensor | None = None,
    ) -> Tensor:
        """This rank's share of the two sums of :meth:`gain`, ``[2, level, mode]``; no rank waits for another."""
        if self.sampler is None:
            raise ValueError("`sampler` must be a Sampler for gains, got 'given': a sampling function has no denoiser.")
        levels = self.sampler.levels
        sums = torch.zeros(2, len(levels), len(self.basis.variance), dtype=torch.float64)
        for index, repeated in self.chunks.turns():
            eps = self.chunks.rows(index, dtype).to(device)
            call = at_one_level(denoiser, self.chunks.condition(condition, index, device))
            for i, sigma in enumerate(levels):
                split = torch.split(eps, samples_at_once(self.basis))
                z = torch.cat([self.basis.diffuse(part, sigma).to(device=device, dtype=dtype) for part in split])
                out = call(z, sigma)
                if repeated:
                    continue
                sums[:, i] += gain_sums(self.basis, z, out)
        return sums

    def gain_of(self, sums: Tensor) -> Tensor:
        """The gains from the sums of all ranks. Every rank must call it."""
        total = self.ranks.sum(sums)
        return total[0] / total[1]


def at_one_level(denoiser: Any, condition: Tensor | None) -> Callable[[Tensor, float], Tensor]:
    """The denoiser in the form that solvers expect, with one noise level for all samples."""

    def evaluated(z: Tensor, sigma: float) -> Tensor:
        # New tensors at every call: some libraries write into their arguments.
        level = torch.full((len(z),), sigma, dtype=z.dtype, device=z.device)
        return _same_shape(denoiser(z, level, *_copies(condition)), z).to(z.dtype)

    return evaluated


def _copies(condition: Tensor | None) -> tuple[Tensor, ...]:
    return () if condition is None else (condition.clone(),)


def _same_shape(out: Tensor, z: Tensor) -> Tensor:
    if out.shape != z.shape:
        raise ValueError(f"`denoiser` must return the shape of its input, {tuple(z.shape)}, got {tuple(out.shape)}.")
    return out


def gain_sums(basis: Basis, noisy: Tensor, clean: Tensor) -> Tensor:
    """The two sums of :meth:`SpectralProbe.gain` over samples ``[n, *S]``, ``[2, K]``."""
    sums, most = torch.zeros(2, len(basis.variance), dtype=torch.float64), samples_at_once(basis)
    for z, out in zip(torch.split(noisy, most), torch.split(clean, most), strict=True):
        x, y = basis.project(z), basis.project(out)
        sums += torch.stack([basis.pool(x * y).sum(0), basis.pool(x * x).sum(0)]).cpu()
    return sums


def samples_at_once(basis: Basis) -> int:
    """The number of samples to project together: at most 8.4 million observables."""
    return max(1, _NUMBERS_AT_ONCE // max(basis.dim, basis.observables.count))
