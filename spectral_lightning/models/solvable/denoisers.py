"""The denoisers with a solvable theory, one class per family."""

from __future__ import annotations

import math
from abc import abstractmethod
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from spectral_lightning.diffusion import Departure
from spectral_lightning.models.checks import checked_shape
from spectral_lightning.models.solvable.convolution import CircularConvPerLevel, LocalConvPerLevel, image_shape
from spectral_lightning.models.solvable.per_level import AffinePerLevel, DeepLinearPerLevel
from spectral_lightning.models.solvable.solvable import ContinuousNoise, SolvableDenoiser
from spectral_lightning.sampling import Sampler
from spectral_lightning.theory import DeepLinear, FullWidthConvolution, GaussianData, LocalConvolution, OneLayer
from spectral_lightning.theory.families.full_width_convolution import FullWidthCurves
from spectral_lightning.theory.families.local_convolution import LocalCurves

__all__ = ["DeepLinearDenoiser", "FullWidthConvDenoiser", "LinearDenoiser", "LocalConvDenoiser"]


class LinearDenoiser(SolvableDenoiser):
    """Independent affine denoisers per noise level, whose learning is known in closed form (``OneLayer``).

    ``D(z; sigma) = c_skip z + c_out (W_sigma c_in z + b_sigma)``, ``W_sigma = init I`` before training; trained on the
    expected loss or on samples as :class:`SolvableDenoiser` says.

    Reference: Wang & Pehlevan 2025, section 4.2 (without preconditioning); the rates with it are beyond that paper.

    Args:
        shape: of one example; its d coordinates are flattened.
        sampler: sets the noise levels: those at which sampling evaluates the denoiser.
        sigmas: explicit noise levels instead; sampling then needs a sampler with exactly these.
        init: initial gain of the linear layer.
        bias: whether the layer has one.
        noise: its density of log sigma sets how often each level is trained; equally if not given. A rarely trained level
            is hardly learnt: EDM's density at sigma = 80 is 2e-5 of its largest.
        settings: the other arguments of :class:`SolvableDenoiser`; ``optimizer`` is by default plain descent at 0.1.

    Raises:
        ValueError: for an argument out of range, and as in :class:`SolvableDenoiser`.

    Example:
        >>> LinearDenoiser([1, 4, 4], sigmas=[1.0, 4.0]).network.weight.shape
        torch.Size([2, 16, 16])
    """

    def __init__(
        self,
        shape: list[int] | int,
        sampler: Sampler | None = None,
        sigmas: list[float] | None = None,
        init: float = 0.0,
        bias: bool = True,
        noise: ContinuousNoise | None = None,
        **settings: Any,
    ) -> None:
        network = partial(AffinePerLevel, math.prod(checked_shape(shape)), init=init, bias=bias)
        super().__init__(network, shape, sampler, sigmas, 0.1, noise, **settings)
        self.init, self.bias = init, bias

    def stable_learning_rate(self) -> float:
        """Largest learning rate at which descent converges for these levels and moments.

        One over the largest eigenvalue, over all levels, of half the loss's second derivative by ``[W b]``,
        ``p weight c_out^2 [[c_in^2 (Sigma + sigma^2 I + mu mu'), c_in mu], [c_in mu', 1]]``.

        1.56e-4 without preconditioning at sigma = 80, whatever the data.
        """
        curvature = [self._curvature(sigma) for sigma in self.sigma_grid]
        return self._slowdown / max(p * c for p, c in zip(self._often, curvature, strict=True))

    def _curvature(self, sigma: float) -> float:
        p, (mean, covariance) = self.preconditioning, self._moments_or_zero()
        # The bias is the weight of one more input, which is always 1.
        inputs = torch.cat([p.c_in(sigma) * mean, torch.ones(1, dtype=mean.dtype)])
        second = torch.outer(inputs, inputs)
        second[:-1, :-1] += p.c_in(sigma) ** 2 * (covariance + sigma**2 * torch.eye(self.dim, dtype=mean.dtype))
        trained = second if self.bias else second[:-1, :-1]
        return float(p.bias_rate_factor(sigma) * torch.linalg.eigvalsh(trained)[-1])

    def dynamics(self) -> OneLayer:
        """The closed form of this module's training, one update of the optimizer as the unit of time."""
        return OneLayer(self._objective, self.init)


class DeepLinearDenoiser(SolvableDenoiser):
    """Independent deep linear denoisers per noise level, whose learning is known (``DeepLinear``).

    ``D(z; sigma) = c_skip z + c_out W_L .. W_1 c_in z``, the product ``init I`` before training; trained on the expected
    loss or on samples as :class:`SolvableDenoiser` says.

    There is no bias: the theory holds for data of zero mean, and :meth:`departures` reports a mean that is not zero (the
    layers then learn second moments about zero).

    From depth 2 on a gain keeps its sign, so that modes whose best gain has the opposite sign (under EDM those of variance
    below ``sigma_data^2``, for a positive ``init``) end at the saddle ``F = 0``. The theory stays there, but rounding slowly
    unbalances trained layers until they leave it: at half the stable rate, after some 400 updates in single precision and
    1,000 in double.

    Reference: Wang & Pehlevan 2025, appendix F; tied layers and preconditioning are beyond that paper.

    Args:
        shape: of one example; its d coordinates are flattened.
        depth: number of layers.
        tied: whether one layer is used ``depth`` times.
        sampler: sets the noise levels: those at which sampling evaluates the denoiser.
        sigmas: explicit noise levels instead; sampling then needs a sampler with exactly these.
        init: gain of the product of the layers before training.
        settings: the other arguments of :class:`SolvableDenoiser`; ``optimizer`` is by default plain descent at 0.02.

    Raises:
        ValueError: for an argument out of range, and as in :class:`SolvableDenoiser`.

    Example:
        >>> DeepLinearDenoiser(4, depth=3).dynamics().depth
        3
    """

    def __init__(
        self,
        shape: list[int] | int,
        depth: int = 2,
        tied: bool = False,
        sampler: Sampler | None = None,
        sigmas: list[float] | None = None,
        init: float = 0.1,
        **settings: Any,
    ) -> None:
        network = partial(DeepLinearPerLevel, math.prod(checked_shape(shape)), depth=depth, tied=tied, init=init)
        super().__init__(network, shape, sampler, sigmas, 0.02, None, **settings)
        self.init, self.depth, self.tied = init, depth, tied

    def stable_learning_rate(self) -> float:
        """Learning rate at which descent just converges near the optimum, or near the start if that is steeper.

        ``1 / max f (lambda + sigma^2) m max(|q*|, |init|)^(2 - 2/L)`` over levels and eigenvalues lambda of the second
        moments, in the terms of ``DeepLinear``: a local bound, sharp for a small ``init``.
        """
        mean, covariance = self._moments_or_zero()
        variance = torch.linalg.eigvalsh(covariance + torch.outer(mean, mean)).clamp(min=0)
        return self._slowdown / max(self._curvature(sigma, variance) for sigma in self.sigma_grid)

    def _curvature(self, sigma: float, variance: Tensor) -> float:
        p = self.preconditioning
        optimum = (variance / (variance + sigma**2) - p.c_skip(sigma)) / (p.c_out(sigma) * p.c_in(sigma))
        steepest = optimum.abs().clamp(min=abs(self.init)) ** (2 - 2 / self.depth)
        count = self.depth**2 if self.tied else self.depth
        return float((p.rate_factor(sigma) * (variance + sigma**2) * count * steepest).max())

    def dynamics(self) -> DeepLinear:
        """The theory of this module's training, one update of the optimizer as the unit of time."""
        return DeepLinear(self._objective, self.init, self.depth, self.tied)

    def departures(self) -> list[Departure]:
        """Mini-batches, and a mean of the data."""
        mean, _ = self._moments_or_zero()
        if not mean.any():
            return super().departures()
        text = "zero mean of the data assumed, but without a bias the layers learn second moments about zero"
        return [*super().departures(), Departure(text, affects_clock=False)]


class ConvolutionDenoiser(SolvableDenoiser):
    """A denoiser made of one convolution per noise level, whose theory is solved on the data's moments.

    Arguments and errors are those of :class:`SolvableDenoiser`. An image has C ``channels`` and ``size`` pixels per axis.
    """

    channels: int
    size: tuple[int, ...]

    @abstractmethod
    def dynamics(self) -> FullWidthConvolution | LocalConvolution:
        """The theory of this module's training, one update of the optimizer as the unit of time."""

    def curves(self) -> FullWidthCurves | LocalCurves:
        """:meth:`dynamics` solved on the data's moments, or on zeros while they are unknown."""
        mean, covariance = self._moments_or_zero()
        symmetric = ((covariance + covariance.T) / 2).numpy()
        return self.dynamics().on(GaussianData(symmetric, mean.numpy(), self.size, self.channels))


class FullWidthConvDenoiser(ConvolutionDenoiser):
    """Independent circular convolutions as wide as the image per noise level (``FullWidthConvolution``).

    ``D(z; sigma)_o(p) = c_skip z_o(p) + c_out (Sum_{i,a} w_oi(a) c_in z_i(p + a) + b_o(p))``, w = ``init`` at offset zero
    before training; trained on the expected loss or on samples as :class:`SolvableDenoiser` says. On stationary data it
    learns N times as fast as :class:`LinearDenoiser` at the same rate, because N pixels share its weights.

    Reference: Wang & Pehlevan 2025, proposition 5.3; channels, bias and preconditioning are beyond that paper.

    Args:
        shape: of one example, ``[N]``, ``[C, N]`` or ``[C, H, W]``.
        sampler: sets the noise levels: those at which sampling evaluates the denoiser.
        sigmas: explicit noise levels instead; sampling then needs a sampler with exactly these.
        init: initial gain of the convolution.
        bias: None, ``"shared"`` by all pixels, or one ``"per_pixel"``; without one, a mean counts as second moment.
        settings: the other arguments of :class:`SolvableDenoiser`; ``optimizer`` is by default plain descent at 0.1 / N.

    Raises:
        ValueError: for an argument out of range, and as in :class:`SolvableDenoiser`.

    Example:
        >>> module = FullWidthConvDenoiser([2, 8, 8], sigmas=[1.0, 4.0])
        >>> module.network.weight.shape, module.size, module.channels
        (torch.Size([2, 2, 2, 8, 8]), (8, 8), 2)
    """

    def __init__(
        self,
        shape: list[int] | int,
        sampler: Sampler | None = None,
        sigmas: list[float] | None = None,
        init: float = 0.0,
        bias: Literal["shared", "per_pixel"] | None = None,
        **settings: Any,
    ) -> None:
        channels, size = image_shape(shape)
        network = partial(CircularConvPerLevel, channels, size, init=init, bias=bias)
        super().__init__(network, shape, sampler, sigmas, 0.1 / math.prod(size), None, **settings)
        self.channels, self.size, self.init, self.bias = channels, size, init, bias

    def stable_learning_rate(self) -> float:
        """Largest learning rate at which descent converges for these levels and moments.

        One over N times the largest ``weight (c_out c_in)^2 (lambda + sigma^2)`` over levels and spectral eigenvalues, with
        the bias as ``FullWidthConvolution`` has it.
        """
        return self._slowdown * self.curves().stable_learning_rate(self.sigma_grid)

    def dynamics(self) -> FullWidthConvolution:
        """The theory of this module's training, one update of the optimizer as the unit of time."""
        return FullWidthConvolution(self._objective, self.init, self.bias)


class LocalConvDenoiser(ConvolutionDenoiser):
    """Independent convolutions with a small kernel per noise level (``LocalConvolution``): modes emerge nearly together.

    ``D(z; sigma)_o(p) = c_skip z_o(p) + c_out (Sum_{i,a} w_oi(a) c_in z_i(p + a) + b_o(p))``, w = ``init`` at its centre
    before training; trained on the expected loss or on samples as :class:`SolvableDenoiser` says. A local kernel cannot
    represent the data's spectrum: the generated one ends at the theory's limit.

    The theory assumes a circular boundary; :meth:`departures` reports zero padding. It allows one bias per pixel only if
    the mean is the same at all pixels.

    Reference: Wang & Pehlevan 2025, proposition 5.4; channels, bias and preconditioning are beyond that paper.

    Args:
        shape: of one example, ``[N]``, ``[C, N]`` or ``[C, H, W]``.
        kernel_size: K along every axis, odd.
        padding: of the image, ``"circular"`` or ``"zeros"``.
        sampler: sets the noise levels: those at which sampling evaluates the denoiser.
        sigmas: explicit noise levels instead; sampling then needs a sampler with exactly these.
        init: initial gain of the convolution.
        bias: None, ``"shared"`` by all pixels, or one ``"per_pixel"``; without one, a mean counts as second moment.
        settings: the other arguments of :class:`SolvableDenoiser`; ``optimizer`` is by default plain descent at 0.02 / N.

    Raises:
        ValueError: for an argument out of range, and as in :class:`SolvableDenoiser`.

    Example:
        >>> LocalConvDenoiser([2, 8, 8], kernel_size=5, sigmas=[1.0, 4.0]).network.weight.shape
        torch.Size([2, 2, 2, 5, 5])
    """

    network: LocalConvPerLevel

    def __init__(
        self,
        shape: list[int] | int,
        kernel_size: int = 3,
        padding: Literal["circular", "zeros"] = "circular",
        sampler: Sampler | None = None,
        sigmas: list[float] | None = None,
        init: float = 0.0,
        bias: Literal["shared", "per_pixel"] | None = None,
        **settings: Any,
    ) -> None:
        channels, size = image_shape(shape)
        network = partial(
            LocalConvPerLevel, channels, size, kernel_size=kernel_size, padding=padding, init=init, bias=bias
        )
        super().__init__(network, shape, sampler, sigmas, 0.02 / math.prod(size), None, **settings)
        self.kernel_size, self.padding = kernel_size, padding
        self.channels, self.size, self.init, self.bias = channels, size, init, bias

    def stable_learning_rate(self) -> float:
        """Largest learning rate at which descent converges for these levels, moments and padding.

        One over the largest eigenvalue, over all levels, of half the loss's second derivative by the kernel and the bias.
        """
        return self._slowdown / max(self._curvature(sigma) for sigma in self.sigma_grid)

    def _curvature(self, sigma: float) -> float:
        p, (mean, covariance) = self.preconditioning, self._moments_or_zero()
        noisy = covariance + sigma**2 * torch.eye(self.dim, dtype=mean.dtype)
        patch, cross, corner = self.network.input_moments(p.c_in(sigma) * mean, p.c_in(sigma) ** 2 * noisy)
        second = torch.cat([torch.cat([patch, cross], 1), torch.cat([cross.T, corner], 1)])
        return float(p.bias_rate_factor(sigma) * torch.linalg.eigvalsh(second)[-1])

    def dynamics(self) -> LocalConvolution:
        """The theory of this module's training, one update of the optimizer as the unit of time."""
        return LocalConvolution(self._objective, self.kernel_size, self.init, self.bias)

    def departures(self) -> list[Departure]:
        """Mini-batches, and zero padding."""
        if self.padding == "circular":
            return super().departures()
        text = "circular boundary assumed, images padded with zeros used"
        return [*super().departures(), Departure(text, affects_clock=False)]
