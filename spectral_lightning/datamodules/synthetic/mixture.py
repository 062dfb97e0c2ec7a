"""Gaussian mixtures: classes with chosen weights, means and spectra, whose densities are known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from spectral_lightning.arguments import non_negative, one_of, positive, positive_integer
from spectral_lightning.datamodules.rows import DrawnDataModule, Rows
from spectral_lightning.datamodules.synthetic.population import (
    GaussianPopulation,
    SpectrumChoice,
    finite_numbers,
    haar_rotation,
)

__all__ = ["MixtureDataModule"]

_FLOOR = 1e-10


class MixtureDataModule(DrawnDataModule):
    """Samples of a mixture of Gaussians, with labels.

    A sample is of class c with probability ``w_c``, and then normal with mean ``mu_c`` and covariance ``Sigma_c = U_c
    diag(lambda_c) U_c'``. The mixture has

        mu = sum_c w_c mu_c,  Sigma = sum_c w_c (Sigma_c + (mu_c - mu)(mu_c - mu)').

    Everything is computed in float64 with separate generators: the global random state is neither read nor changed, and the
    population is the same for any number of samples. A batch is ``(x, label)``, float32 ``[B, *S]`` and int64 ``[B]``, or x
    alone; the classes are in random order.

    Args:
        shape: shape S of one sample, ``[d]``, ``[C, N]`` or ``[C, H, W]``; a number means ``[d]``.
        weights: of the classes, positive; they are divided by their sum.
        spectra: variances of each class along its modes, or one entry for all. With ``rotation`` "shared" or "none",
            number k belongs to the same mode in every class. ``"lognormal"`` is drawn anew for each.
        separation: distance between any two class means, which lie along orthogonal random directions about a mixture mean
            of 0. Needs at least as many dimensions as classes.
        means: the mean of each class, flattened, d numbers each; instead of ``separation``.
        rotation: ``"shared"`` for one random rotation (Haar) of the modes of all classes, ``"own"`` for one each,
            ``"none"`` for the coordinates as modes.
        labels: whether batches hold labels.
        stratified: whether each class has exactly its share of each set, rounded to whole samples, instead of a random number.
        settings: the arguments of :class:`DrawnDataModule`; ``seed`` determines spectra, rotations, means and samples.

    Raises:
        ValueError: for an argument out of range.

    Example:
        >>> data = MixtureDataModule(2, [3, 1], separation=4.0, batch_size=16)
        >>> x, label = next(iter(data.train_dataloader()))
        >>> x.shape, label.shape, data.train_rows.labels.bincount().tolist()
        (torch.Size([16, 2]), torch.Size([16]), [7500, 2500])
        >>> bool((data.classify(data.train_rows.data) == data.train_rows.labels).double().mean() > 0.9)
        True
    """

    def __init__(
        self,
        shape: int | list[int],
        weights: list[float],
        spectra: SpectrumChoice | list[SpectrumChoice] | None = None,
        separation: float = 0.0,
        means: list[list[float]] | None = None,
        rotation: Literal["shared", "own", "none"] = "shared",
        labels: bool = True,
        stratified: bool = True,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        sides = shape if isinstance(shape, list | tuple) else [shape]
        self.shape = tuple(positive_integer("shape", n) for n in sides)
        self.weights = _shares(weights)
        self.spectra = self._checked_spectra(SpectrumChoice() if spectra is None else spectra)
        self.separation = non_negative("separation", separation)
        self._means = self._checked_means(means)
        self.rotation = one_of("rotation", rotation, ("shared", "own", "none"))
        self.labels, self.stratified = labels, stratified
        if self.exact_moments and not stratified:
            raise ValueError("`stratified` must be True for `exact_moments`, got False.")
        self._check_full_rank(lambda count: int(_counts(self.weights, count).min()))

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.weights)

    @cached_property
    def populations(self) -> list[GaussianPopulation]:
        """The distribution of each class, computed when first asked for."""
        spectrum, rotation = self._generator("spectrum"), self._generator("rotation")
        eye = torch.eye(self.dim, dtype=torch.float64)
        modes = haar_rotation(self.dim, rotation) if self.rotation == "shared" else eye
        found = []
        for choice, mean in zip(self.spectra, self._class_means(), strict=True):
            if self.rotation == "own":
                modes = haar_rotation(self.dim, rotation)
            found.append(GaussianPopulation.ordered(mean, choice.variances(self.dim, spectrum), modes))
        return found

    def population_moments(self) -> tuple[Tensor, Tensor]:
        """Mean ``[d]`` and covariance ``[d, d]`` of the mixture, float64, known without drawing a sample."""
        means = torch.stack([population.mean for population in self.populations])
        mean = self.weights @ means
        between = (means - mean).T * self.weights @ (means - mean)
        within = [w * p.covariance for w, p in zip(self.weights, self.populations, strict=True)]
        return mean, sum(within, start=between)

    def log_posterior(self, samples: Tensor) -> Tensor:
        """Logarithm of the probability of each class given the sample (Bayes), ``[n, *S] -> [n, num_classes]``.

        Float64, on the CPU. A class with null modes has no density, so variances below 1e-10 of the largest of all classes are
        raised to that, as if noise had been added; such a class claims the samples in the span of its other modes.

        Raises:
            ValueError: if the samples are not of the shape of the data.
        """
        if tuple(samples.shape[1:]) != self.shape:
            raise ValueError(
                f"`samples` must have shape [n, {', '.join(map(str, self.shape))}], got {tuple(samples.shape)}."
            )
        floor = _FLOOR * max(float(population.variance[0]) for population in self.populations)
        flat = samples.detach().flatten(1).cpu().double()
        densities = [population.log_density(flat, floor) for population in self.populations]
        return torch.log_softmax(torch.stack(densities, 1) + self.weights.log(), 1)

    def classify(self, samples: Tensor) -> Tensor:
        """The most probable class of each sample (see :meth:`log_posterior`), ``[n, *S] -> [n]``, int64."""
        return self.log_posterior(samples).argmax(1).to(samples.device)

    def _class_means(self) -> Tensor:
        """Means ``[classes, d]``."""
        if self._means is not None:
            return self._means
        if not self.separation:
            return torch.zeros(self.num_classes, self.dim, dtype=torch.float64)
        # Orthogonal vectors of length r are sqrt(2) r apart.
        directions = haar_rotation(self.dim, self._generator("means"))[:, : self.num_classes].T
        means = self.separation / math.sqrt(2) * directions
        return means - self.weights @ means

    def _draw(self, stream: Literal["train", "val"], count: int) -> Rows:
        generator = self._generator(stream)
        labels = self._draw_labels(count, generator)
        samples = torch.empty(count, self.dim, dtype=torch.float64)
        for label, population in enumerate(self.populations):
            chosen = labels == label
            samples[chosen] = population.sample(int(chosen.sum()), generator, exact_moments=self.exact_moments)
        return Rows(samples.float().reshape(count, *self.shape), labels if self.labels else None)

    def _draw_labels(self, count: int, generator: np.random.Generator) -> Tensor:
        if not self.stratified:
            return torch.from_numpy(generator.choice(self.num_classes, count, p=self.weights.numpy()))
        labels = torch.arange(self.num_classes).repeat_interleave(_counts(self.weights, count))
        return labels[torch.from_numpy(generator.permutation(count))]

    def _checked_spectra(self, spectra: SpectrumChoice | Sequence[SpectrumChoice]) -> list[SpectrumChoice]:
        found = [spectra] * self.num_classes if isinstance(spectra, SpectrumChoice) else list(spectra)
        if len(found) != self.num_classes:
            raise ValueError(f"`spectra` must be one for all or {self.num_classes}, one per class, got {len(found)}.")
        for choice in found:
            if not isinstance(choice, SpectrumChoice):
                raise TypeError(
                    f"`spectra` must hold SpectrumChoice(spectrum, exponent, scale, variance), got {choice!r}."
                )
            choice.check(self.dim)
        return found

    def _checked_means(self, means: list[list[float]] | None) -> Tensor | None:
        if means is None:
            if self.separation and self.num_classes > self.dim:
                raise ValueError(
                    f"`separation` must be 0 with more classes than dimensions, {self.dim}, got {self.separation!r}. "
                    "Pass `means`."
                )
            return None
        if self.separation:
            raise ValueError(f"`separation` must be 0 if `means` are given, got {self.separation!r}.")
        if len(means) != self.num_classes:
            raise ValueError(f"`means` must be {self.num_classes} lists, one per class, got {len(means)}.")
        return torch.stack([finite_numbers("means", mean, self.dim) for mean in means])


def _shares(weights: list[float]) -> Tensor:
    if not weights:
        raise ValueError("`weights` must be one positive number per class, got [].")
    positives = torch.tensor([positive("weights", weight) for weight in weights], dtype=torch.float64)
    return positives / positives.sum()


def _counts(weights: Tensor, count: int) -> Tensor:
    """Whole numbers nearest to ``count * weights`` that add up to ``count``, by the largest remainders, int64."""
    counts = (count * weights).floor().long()
    remainder = count * weights - counts
    counts[remainder.argsort(descending=True, stable=True)[: count - int(counts.sum())]] += 1
    return counts
