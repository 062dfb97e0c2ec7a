"""Small trainings of the solvable denoisers, and their modes and gains by routes that import nothing from the theory."""

import functools

import numpy as np
import torch

from spectral_lightning.models import (
    DeepLinearDenoiser,
    FullWidthConvDenoiser,
    LinearDenoiser,
    LocalConvDenoiser,
)
from spectral_lightning.sampling import Sampler
from spectral_lightning.theory import GaussianData, Preconditioning

F64 = torch.float64
SAMPLER = Sampler(num_steps=6, sigma_min=0.05, sigma_max=2.0)
LEVELS = SAMPLER.levels
SHAPE = (2, 4)  # two channels on a line of four pixels
EDM, PLAIN = Preconditioning("edm", sigma_data=0.4), Preconditioning("none")

FAMILIES = {
    "linear": LinearDenoiser,
    "deep": DeepLinearDenoiser,
    "deep_3": functools.partial(DeepLinearDenoiser, depth=3),
    "tied": functools.partial(DeepLinearDenoiser, tied=True),
    "full_width": FullWidthConvDenoiser,
    "local": LocalConvDenoiser,
}
CONVOLUTIONS = ("full_width", "local")


def descent(lr):
    return functools.partial(torch.optim.SGD, lr=lr)


def covariance_of(shape=SHAPE, seed=0):
    """Random, hence not stationary and with cross-covariances of channels that differ by direction; variances 0.2 to 4."""
    d = int(np.prod(shape))
    generator = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=F64))[0]
    covariance = (rotation * torch.logspace(0.6, -0.7, d, dtype=F64)) @ rotation.T
    return (covariance + covariance.T) / 2


def lagged_covariance(shape=SHAPE):
    """The same with the first channel, moved by a pixel, added to the others: a mirrored kernel is far from right."""
    matrix = covariance_of(shape)
    if len(shape) == 1:
        return matrix
    mixing = torch.eye(len(matrix), dtype=F64)
    pixels = int(np.prod(shape[1:]))
    step = torch.eye(pixels, dtype=F64).reshape(pixels, *shape[1:]).roll(1, dims=-1).reshape(pixels, pixels)
    for c in range(1, shape[0]):
        mixing[c * pixels : (c + 1) * pixels, :pixels] = step
    lagged = mixing @ matrix @ mixing.T
    return (lagged + lagged.T) / 2


def made(family, shape=SHAPE, mean=None, covariance=None, relative=None, **arguments):
    """A module in double precision; ``relative`` is its learning rate in units of the largest stable one."""
    torch.set_default_dtype(F64)  # an initial gain of 0.1 is another number in float32
    try:
        build = functools.partial(FAMILIES[family], list(shape), sampler=SAMPLER)
        module = build(**arguments)
        d = int(np.prod(shape))
        moments = torch.zeros(d) if mean is None else mean, covariance_of(shape) if covariance is None else covariance
        module.set_moments(*moments)
        if relative is not None:
            module = build(**arguments, optimizer=descent(relative * module.stable_learning_rate()))
            module.set_moments(*moments)
    finally:
        torch.set_default_dtype(torch.float32)
    return module


def perturb(module, size=0.3, seed=5):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=F64), alpha=size)
    return module


def maps(module):
    """The affine denoisers at all levels, ``[L, d, d]`` and ``[L, d]``, from images of the axes and of the origin."""
    d = int(np.prod(module.shape))
    points = torch.cat([torch.eye(d, dtype=F64), torch.zeros(1, d, dtype=F64)]).reshape(-1, *module.shape)
    matrices, shifts = [], []
    for sigma in module.sigma_grid:
        with torch.no_grad():
            out = module.denoise(points, torch.full((d + 1,), sigma, dtype=F64)).reshape(d + 1, d)
        matrices.append((out[:-1] - out[-1]).T.numpy())
        shifts.append(out[-1].numpy())
    return np.array(matrices), np.array(shifts)


def generated(module):
    """Covariance of the samples: the sampler on the images of the latents' axes and of the origin."""
    d = int(np.prod(module.shape))
    points = torch.cat([SAMPLER.start * torch.eye(d, dtype=F64), torch.zeros(1, d, dtype=F64)])

    def denoiser(z, sigma):
        with torch.no_grad():
            return module.denoise(z.reshape(-1, *module.shape), torch.full((len(z),), sigma, dtype=F64)).reshape(
                z.shape
            )

    out = SAMPLER(denoiser, points).numpy()
    axes = out[:-1] - out[-1]
    return axes.T @ axes


def fourier_modes(covariance, channels, size):
    """Columns: every plane wave times the eigenvectors of its C x C spectral matrix, largest first; and their variances."""
    pixels = int(np.prod(size))
    places = np.array(list(np.ndindex(*size)))
    folded = np.asarray(covariance).reshape(channels, pixels, channels, pixels)
    modes, variances = [], []
    for k in np.ndindex(*size):
        wave = np.exp(2j * np.pi * (places / np.array(size)) @ np.array(k)) / np.sqrt(pixels)
        values, vectors = np.linalg.eigh(np.einsum("p,ipjq,q->ij", wave.conj(), folded, wave))
        for c in range(channels)[::-1]:
            modes.append(np.kron(vectors[:, c], wave))
            variances.append(values[c])
    return np.array(modes).T, np.array(variances)


def basis(family, shape=SHAPE, covariance=None):
    """Modes of a family on data, and their variances."""
    matrix = np.asarray(covariance_of(shape) if covariance is None else covariance)
    if family in CONVOLUTIONS:
        channels, size = (1, shape) if len(shape) == 1 else (shape[0], tuple(shape[1:]))
        return fourier_modes(matrix, channels, size)
    variance, modes = np.linalg.eigh(matrix)
    return modes, variance


def along(modes, matrix):
    """Real part of ``u' A u`` for every mode, ``[.., d, d]`` to ``[.., mode]``."""
    return np.einsum("ik,...ij,jk->...k", modes.conj(), matrix, modes, optimize=True).real


def theory_of(module, covariance=None):
    """The curves of the module's own theory on data of zero mean, in the order of :func:`basis`."""
    dynamics = module.dynamics()
    matrix = (covariance_of(module.shape) if covariance is None else covariance).numpy()
    if not dynamics.needs_moments:
        return dynamics.on(np.linalg.eigvalsh(matrix).clip(min=0))
    return dynamics.on(GaussianData(matrix, None, module.size, module.channels))


def descend(module, steps, measure):
    """Results of ``measure(module)`` at each of ``steps`` of the optimizer on the exact objective."""
    optimizer, done, seen = module.configure_optimizers(), 0, []
    for wanted in steps:
        for _ in range(wanted - done):
            optimizer.zero_grad()
            module.expected_loss().backward()
            optimizer.step()
        done = wanted
        seen.append(measure(module))
    return seen
