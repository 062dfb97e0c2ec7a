"""Gaussian data with a chosen spectrum: the data for which the theory of linear denoisers is exact."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from spectral_lightning.arguments import positive_integer
from spectral_lightning.datamodules.rows import DrawnDataModule, Rows
from spectral_lightning.datamodules.spectrum_edit import SpectrumEdit
from spectral_lightning.datamodules.synthetic.population import (
    GaussianPopulation,
    SpectrumChoice,
    finite_numbers,
    haar_rotation,
)

__all__ = ["GaussianDataModule"]


class GaussianDataModule(DrawnDataModule):
    """Samples of a Gaussian whose mean, modes and eigenvalues are known.

    Eigenvalues ``lambda_k``, k = 1 ... d in descending order, are those of :class:`SpectrumChoice`. Everything is computed in
    float64 with separate generators: the global random state is neither read nor changed, and the population is the same for
    any number of samples. A batch is a float32 tensor ``[B, d]``.

    Reference: Wang & Pehlevan 2025, the Gaussian experiment, which is the default at ``dim=128``.

    Args:
        dim: dimension d.
        spectrum: ``"lognormal"``, ``exp(g_k)`` with independent standard normal g_k, normalised to mean 1; ``"power_law"``,
            ``k^-exponent``; or ``"given"``.
        exponent: of the power law only; 0 gives white noise.
        scale: factor on all eigenvalues: the mean variance of ``"lognormal"``, the largest of ``"power_law"``.
        variance: d variances of zero or more, for ``"given"`` only; without a rotation, those of the coordinates in their
            order.
        rotation: whether the modes are a random rotation (Haar) or the coordinates.
        mean: one number for all coordinates, or d numbers.
        edit: new variances for the modes, which stay; it changes the population.
        settings: the arguments of :class:`DrawnDataModule`; ``seed`` determines spectrum, rotation and samples.

    Raises:
        ValueError: for an argument out of range.

    Example:
        >>> data = GaussianDataModule(dim=3, spectrum="power_law", exponent=2.0, rotation=False, batch_size=10)
        >>> [round(v, 3) for v in data.population.variance.tolist()]
        [1.0, 0.25, 0.111]
        >>> next(iter(data.train_dataloader())).shape
        torch.Size([10, 3])
    """

    def __init__(
        self,
        dim: int,
        spectrum: Literal["lognormal", "power_law", "given"] = "lognormal",
        exponent: float = 1.0,
        scale: float = 1.0,
        variance: list[float] | None = None,
        rotation: bool = True,
        mean: float | list[float] = 0.0,
        edit: SpectrumEdit | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.shape = (positive_integer("dim", dim),)
        self.spectrum = SpectrumChoice(spectrum, exponent, scale, variance)
        self.spectrum.check(dim)
        self.rotation, self.edit = rotation, edit
        self._mean = finite_numbers("mean", mean if isinstance(mean, list | tuple) else [mean] * dim, dim)
        self._check_full_rank()

    @cached_property
    def population(self) -> GaussianPopulation:
        """The distribution of the samples, computed when first asked for: its mean, variances, modes and covariance."""
        drawn = self.spectrum.variances(self.dim, self._generator("spectrum"))
        variance, order = drawn.sort(descending=True, stable=True)
        if self.rotation:
            modes = haar_rotation(self.dim, self._generator("rotation"))
        else:
            modes = torch.eye(self.dim, dtype=torch.float64)[:, order]
        if self.edit is not None:
            variance = self.edit.edited(variance)
        return GaussianPopulation.ordered(self._mean, variance, modes)

    def population_moments(self) -> tuple[Tensor, Tensor]:
        """Mean ``[d]`` and covariance ``[d, d]`` of the population, float64, known without drawing a sample."""
        return self.population.moments

    def _draw(self, stream: Literal["train", "val"], count: int) -> Rows:
        samples = self.population.sample(count, self._generator(stream), exact_moments=self.exact_moments)
        return Rows(samples.float())
