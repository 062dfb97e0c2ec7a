"""Brute force for the data-bound families: the actual parameters trained on the exact loss. Nothing from the package."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.integrate import solve_ivp
from scipy.linalg import expm

Network = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""From a flat vector of parameters to the dense matrix A [d, d] and the bias a [d] of F."""

# c_skip, c_out, c_in and loss weight, by hand; sigma_data of EDM is 0.7.
COEFFICIENTS = {
    "none": lambda s: (0.0, 1.0, 1.0, 1.0),
    "edm": lambda s: (
        0.49 / (s**2 + 0.49),
        0.7 * s / np.sqrt(s**2 + 0.49),
        1 / np.sqrt(s**2 + 0.49),
        (s**2 + 0.49) / (0.7 * s) ** 2,
    ),
}


def denoiser(network: Network, parameters: torch.Tensor, sigma: float, kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    skip, out, scale, _ = COEFFICIENTS[kind](sigma)
    matrix, bias = network(parameters)
    return skip * torch.eye(len(bias), dtype=torch.float64) + out * scale * matrix, out * bias


def expected_loss(network: Network, mean: np.ndarray, covariance: np.ndarray, sigma: float, kind: str):
    """The weighted loss summed over coordinates, averaged over data and noise exactly."""
    m, c = torch.tensor(mean), torch.tensor(covariance)

    def loss(parameters: torch.Tensor) -> torch.Tensor:
        weight, bias = denoiser(network, parameters, sigma, kind)
        off = weight - torch.eye(len(m), dtype=torch.float64)
        miss = weight @ m + bias - m
        error = torch.trace(off @ c @ off.T) + sigma**2 * (weight**2).sum() + (miss**2).sum()
        return COEFFICIENTS[kind](sigma)[3] * error

    return loss


def train_by_ode(loss, start: np.ndarray, time: float, rate: float) -> np.ndarray:
    """Gradient flow of the parameters with gradients from autograd."""

    def slope(_: float, y: np.ndarray) -> np.ndarray:
        parameters = torch.tensor(y, requires_grad=True)
        return -rate * torch.autograd.grad(loss(parameters), parameters)[0].numpy()

    return solve_ivp(slope, (0, time), start, method="DOP853", rtol=1e-11, atol=1e-12).y[:, -1]


def _quadratic(loss, size: int) -> tuple[np.ndarray, np.ndarray]:
    zero = torch.zeros(size, dtype=torch.float64, requires_grad=True)
    gradient = torch.autograd.grad(loss(zero), zero)[0].numpy()
    return torch.autograd.functional.hessian(loss, zero.detach(), vectorize=True).numpy(), gradient


def train_by_expm(loss, start: np.ndarray, time: float, rate: float) -> np.ndarray:
    """The same by the dense matrix exponential of the Hessian."""
    return _relaxed(*_quadratic(loss, len(start)), start, time, rate)


def _relaxed(hessian: np.ndarray, gradient: np.ndarray, start: np.ndarray, time: float, rate: float) -> np.ndarray:
    """Gradient flow on a quadratic with this gradient at 0; infinite time is the minimum nearest to the start."""
    if np.isinf(time):
        return start - np.linalg.pinv(hessian, rcond=1e-14, hermitian=True) @ (hessian @ start + gradient)
    generator = np.zeros((len(start) + 1,) * 2)
    generator[:-1, :-1], generator[:-1, -1] = -rate * time * hessian, -rate * time * gradient
    return (expm(generator) @ np.append(start, 1.0))[:-1]


def train_by_steps(loss, start: np.ndarray, steps: int, rate: float) -> np.ndarray:
    """Plain gradient descent."""
    parameters = torch.tensor(start)
    for _ in range(steps):
        parameters.requires_grad_(True)
        parameters = (parameters - rate * torch.autograd.grad(loss(parameters), parameters)[0]).detach()
    return parameters.numpy()


class Problem:
    """A network on given data: weights and bias of its denoiser after training, by any of the routes."""

    def __init__(self, network: Network, start: np.ndarray, mean: np.ndarray, covariance: np.ndarray, rate: float):
        self.network, self.start, self.mean, self.covariance, self.rate = network, start, mean, covariance, rate
        images = [network(unit) for unit in torch.eye(len(start), dtype=torch.float64)]
        self.matrices = np.stack([matrix.numpy() for matrix, _ in images], axis=-1)  # [d, d, parameter]
        self.biases = np.stack([bias.numpy() for _, bias in images], axis=-1)  # [d, parameter]

    def trained(self, time: float, sigma: float, kind: str = "none", route=train_by_expm):
        loss = expected_loss(self.network, self.mean, self.covariance, sigma, kind)
        parameters = route(loss, self.start, time, self.rate)
        weight, bias = denoiser(self.network, torch.tensor(parameters), sigma, kind)
        return weight.numpy(), bias.numpy()

    def trained_fast(self, time: float, sigma: float, kind: str = "none"):
        """By the normal equations of the parameters, without autograd: for the many noise levels of a flow."""
        d = len(self.mean)
        skip, out, scale, weight = COEFFICIENTS[kind](sigma)
        second = self.covariance + np.outer(self.mean, self.mean)
        noisy = second + sigma**2 * np.eye(d)
        maps, shifts = out * scale * self.matrices, out * self.biases
        cross = np.einsum("aip,i,aq->pq", maps, self.mean, shifts)
        hessian = np.einsum("aip,ij,ajq->pq", maps, noisy, maps, optimize=True) + shifts.T @ shifts + cross + cross.T
        gradient = np.einsum("aip,ai->p", maps, skip * noisy - second) + shifts.T @ (skip * self.mean - self.mean)
        found = _relaxed(2 * weight * hessian, 2 * weight * gradient, self.start, time, self.rate)
        return skip * np.eye(d) + maps @ found, shifts @ found

    def loss(self, time: float, sigma: float, kind: str = "none") -> float:
        """The unweighted loss."""
        value = expected_loss(self.network, self.mean, self.covariance, sigma, kind)
        return (
            float(value(torch.tensor(train_by_expm(value, self.start, time, self.rate)))) / COEFFICIENTS[kind](sigma)[3]
        )

    def generated(self, time: float, kind: str = "none", top: float = 80.0, bottom: float = 0.002):
        """Mean and covariance of the exact flow, the weights trained anew at every noise level the solver asks for."""
        d = len(self.mean)

        def slope(u: float, y: np.ndarray) -> np.ndarray:
            state = y.reshape(d, d + 1)
            weight, bias = self.trained_fast(time, np.exp(u), kind)
            change = state - weight @ state
            change[:, -1] -= bias
            return change.ravel()

        span = (np.log(top), np.log(bottom))
        end = solve_ivp(slope, span, np.eye(d, d + 1).ravel(), method="DOP853", rtol=1e-10, atol=1e-12).y[:, -1]
        end = end.reshape(d, d + 1)
        return end[:, -1], top**2 * end[:, :-1] @ end[:, :-1].T

    def sampled(self, time: float, sigmas, kind: str = "none"):
        """Mean and covariance after Heun's method with an Euler step to zero, written out on points."""
        d = len(self.mean)
        points = np.concatenate([sigmas[0] * np.eye(d), np.zeros((1, d))])  # images of the axes, and of the origin

        def slope(z: np.ndarray, sigma: float) -> np.ndarray:
            weight, bias = self.trained_fast(time, sigma, kind)
            return (z - z @ weight.T - bias) / sigma

        for now, then in zip(sigmas[:-1], sigmas[1:], strict=True):
            first = slope(points, now)
            ahead = points + (then - now) * first
            points = ahead if then == 0 else points + (then - now) * (first + slope(ahead, then)) / 2
        linear = (points[:-1] - points[-1]).T
        return points[-1], linear @ linear.T


def dense_network(d: int) -> Network:
    def network(parameters: torch.Tensor):
        folded = parameters.reshape(d, d + 1)
        return folded[:, :d], folded[:, d]

    return network


def convolution_network(size: tuple[int, ...], channels: int, kernel: int | None, bias: str | None) -> Network:
    """Kernel entries written into a dense matrix one by one; ``kernel`` None is full width, offsets from 0 upwards."""
    pixels = list(np.ndindex(*size))
    taps = list(np.ndindex(*(size if kernel is None else (kernel,) * len(size))))
    shift = 0 if kernel is None else kernel // 2
    rows, columns, source = [], [], []
    for (o, i), (x, place), (a, tap) in (
        (pair, pixel, offset)
        for pair in np.ndindex(channels, channels)
        for pixel in enumerate(pixels)
        for offset in enumerate(taps)
    ):
        other = tuple((p + t - shift) % n for p, t, n in zip(place, tap, size, strict=True))
        rows.append(o * len(pixels) + x)
        columns.append(i * len(pixels) + pixels.index(other))
        source.append((o * channels + i) * len(taps) + a)
    d, weights = channels * len(pixels), channels**2 * len(taps)
    index = torch.tensor(rows), torch.tensor(columns)

    def network(parameters: torch.Tensor):
        empty = torch.zeros(d, d, dtype=torch.float64)
        matrix = empty.index_put(index, parameters[torch.tensor(source)], accumulate=True)
        rest = parameters[weights:]
        if bias is None:
            return matrix, torch.zeros(d, dtype=torch.float64)
        return matrix, rest.repeat_interleave(len(pixels)) if bias == "shared" else rest

    return network


def convolution_problem(
    size: tuple[int, ...],
    channels: int,
    kernel: int | None,
    bias: str | None,
    mean: np.ndarray,
    covariance: np.ndarray,
    rate: float,
    gain: float = 0.0,
    start_bias: float = 0.0,
) -> Problem:
    shape = size if kernel is None else (kernel,) * len(size)
    centre = tuple(0 if kernel is None else k // 2 for k in shape)
    weights = np.zeros((channels, channels, *shape))
    for c in range(channels):
        weights[(c, c, *centre)] = gain
    count = {None: 0, "shared": channels, "per_pixel": channels * int(np.prod(size))}[bias]
    start = np.concatenate([weights.ravel(), np.full(count, start_bias)])
    return Problem(convolution_network(size, channels, kernel, bias), start, mean, covariance, rate)


def random_moments(seed: int, d: int, channels: int = 1, uniform: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """A mean and a covariance, neither stationary nor diagonal; ``uniform`` makes the mean one number per channel."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(d, d)) / np.sqrt(d)
    mean = np.repeat(rng.normal(size=channels), d // channels) if uniform else rng.normal(size=d)
    return mean, root @ root.T


def power_law_spectrum(pixels: int, exponent: float = 2.0) -> np.ndarray:
    """Variances of the Fourier modes of a stationary field on a circle, ``A / max(k, 1)^exponent``."""
    k = np.abs(np.fft.fftfreq(pixels) * pixels)
    return 10.0 / np.maximum(k, 1.0) ** exponent


def circulant(spectrum: np.ndarray) -> np.ndarray:
    """Covariance of the stationary field with these mode variances, by the sum over its Fourier modes."""
    n = len(spectrum)
    waves = np.exp(2j * np.pi * np.outer(np.arange(n), np.arange(n)) / n) / np.sqrt(n)
    return (waves * spectrum @ waves.conj().T).real
