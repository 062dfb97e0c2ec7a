"""Gaussian data of a chosen spectrum: the data for which the theory of linear denoisers is exact."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import torch
from torch import Generator, Tensor

from spectral_lightning.arguments import positive_integer
from spectral_lightning.datamodules.loading import Rows
from spectral_lightning.datamodules.spectrum_edit import SpectrumEdit
from spectral_lightning.datamodules.synthetic.drawn import DrawnDataModule, DrawnSets
from spectral_lightning.datamodules.synthetic.population import (
    GaussianPopulation,
    SpectrumChoice,
    finite_numbers,
    haar_rotation,
)

__all__ = ["GaussianDataModule"]

# One stream of random numbers per use, so that the population does not depend on how many samples are drawn.
_STREAMS = ("spectrum", "rotation", "train", "val")


class GaussianDataModule(DrawnDataModule):
    """Samples of a Gaussian whose mean, modes and eigenvalues are known.

    Eigenvalues ``lambda_k``, k = 1 ... d in descending order, times ``scale``:

    - ``"lognormal"``: ``exp(g_k)`` of independent standard normal g_k, normalised to mean 1;
    - ``"power_law"``: ``k^-exponent``;
    - ``"given"``: the numbers in ``variance``.

    Computed in float64 from generators of their own: the global random state is neither read nor moved, and the
    population is the same for any number of samples. A batch is a float32 tensor ``[B, d]``.

    Reference: Wang & Pehlevan 2025, the Gaussian experiment, which is the default at ``dim=128``.

    Args:
        dim: dimension d.
        spectrum: ``"lognormal"``, ``"power_law"`` or ``"given"``.
        exponent: of the power law; 0 gives white noise. The other spectra do not use it.
        scale: factor on all eigenvalues: the mean variance of ``"lognormal"``, the largest of ``"power_law"``.
        variance: d variances of zero or more, of the coordinates in their order if there is no rotation. For
            ``"given"`` only.
        rotation: whether the modes are a random rotation (Haar) or the coordinates.
        mean: one number for all coordinates, or d numbers.
        num_samples: size of the training set.
        num_val_samples: size of the validation set; 0 for none.
        batch_size: samples per batch; an incomplete last training batch is dropped.
        exact_moments: whether mean and covariance (with 1/n) of each set are made those of the population, to the
            rounding of float32. Takes more samples than dimensions.
        shuffle: whether the training samples come in a new order each epoch, by the seed of the run.
        seed: of the spectrum, the rotation and the samples.
        num_workers: processes that load batches.
        edit: new variances for the modes, which stay: an edit of the population, whose moments are then the edited ones.

    Raises:
        ValueError: for an argument out of range.

    Example:
        >>> data = GaussianDataModule(dim=3, spectrum="power_law", exponent=2.0, rotation=False, batch_size=10)
        >>> [round(v, 3) for v in data.variance.tolist()]
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
        num_samples: int = 10_000,
        num_val_samples: int = 2_048,
        batch_size: int = 1_024,
        exact_moments: bool = False,
        shuffle: bool = True,
        seed: int = 0,
        num_workers: int = 0,
        edit: SpectrumEdit | None = None,
    ) -> None:
        super().__init__()
        self.dim = positive_integer("dim", dim)
        self.spectrum = SpectrumChoice(spectrum, exponent, scale, variance)
        self.spectrum.check(self.dim)
        self.rotation = rotation
        self.exact_moments = exact_moments
        self.seed = positive_integer("seed", seed, minimum=0)
        self.edit = edit
        self._mean = finite_numbers("mean", mean if isinstance(mean, list | tuple) else [mean] * self.dim, self.dim)
        self.sets = DrawnSets(self._draw, num_samples, num_val_samples, batch_size, shuffle, num_workers)
        if exact_moments:
            self.sets.check_full_rank(self.dim)

    @property
    def shape(self) -> tuple[int]:
        """Shape of one sample, ``(d,)``."""
        return (self.dim,)

    @cached_property
    def population(self) -> GaussianPopulation:
        """The distribution the samples are drawn from; made when first asked for."""
        variance, order = self.spectrum.variances(self.dim, self._generator("spectrum")).sort(
            descending=True, stable=True
        )
        if self.rotation:
            modes = haar_rotation(self.dim, self._generator("rotation"))
        else:
            modes = torch.eye(self.dim, dtype=torch.float64)[:, order]
        if self.edit is not None:
            variance = self.edit.edited(variance)
        return GaussianPopulation.ordered(self._mean, variance, modes)

    @property
    def mean(self) -> Tensor:
        """Mean of the population, ``[d]``, float64."""
        return self.population.mean

    @property
    def variance(self) -> Tensor:
        """Eigenvalues of the covariance in descending order, ``[d]``, float64."""
        return self.population.variance

    @property
    def modes(self) -> Tensor:
        """Eigenvectors of the covariance, ``[d, d]``, the mode of ``variance[k]`` in column k, float64."""
        return self.population.modes

    @property
    def covariance(self) -> Tensor:
        """Covariance of the population, ``[d, d]``, float64."""
        return self.population.covariance

    def population_moments(self) -> tuple[Tensor, Tensor]:
        """Mean ``[d]`` and covariance ``[d, d]`` of the population, float64; no sample has to be drawn for them."""
        return self.mean, self.covariance

    def _generator(self, stream: str) -> Generator:
        return Generator().manual_seed(len(_STREAMS) * self.seed + _STREAMS.index(stream))

    def _draw(self, stream: str, count: int) -> Rows:
        exact = self.exact_moments and count > 0
        samples = self.population.sample(count, self._generator(stream), exact_moments=exact)
        return Rows(samples.float())
