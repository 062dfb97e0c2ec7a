"""Moments of data that are not stationary, and every kind of basis made from them."""

import functools
import math

import numpy as np
import torch

from spectral_lightning.spectra import FourierBasis, PatchBasis, PCABasis

SHAPE = (2, 3, 4)
NAMES = ("pca", "leading", "fourier", "bands", "patch", "valid")


def moments(shape=SHAPE, seed=0, mean=1.0):
    d = math.prod(shape)
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((d, d)) * np.linspace(0.3, 2, d)
    return mean * torch.from_numpy(rng.standard_normal(d)), torch.from_numpy(root @ root.T)


@functools.cache
def bases(shape=SHAPE, seed=0, mean=1.0):
    given = moments(shape, seed, mean)
    return {
        "pca": PCABasis.from_moments(*given, shape=shape),
        "leading": PCABasis.from_moments(*given, 4, shape),
        "fourier": FourierBasis.from_moments(*given, shape),
        "bands": FourierBasis.from_moments(*given, shape, bands=2),
        "patch": PatchBasis.from_moments(*given, shape, 2),
        "valid": PatchBasis.from_moments(*given, shape, 2, 2, "valid", 3),
    }


def directions(basis):
    """The vector of every observable, ``[d, R * M]``, and its mode, from the projection of the unit vectors."""
    unit = torch.eye(basis.dim, dtype=torch.float64) + basis.mean
    vectors = basis.project(unit.reshape(-1, *basis.shape)).numpy()
    return vectors, np.tile(basis.mode_of.numpy(), basis.replicates)


def pixels_of(shape):
    """Channels and pixels of a shape, written apart from the package."""
    return (1, shape) if len(shape) == 1 else (shape[0], shape[1:])
