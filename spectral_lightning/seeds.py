"""Generators in domains: no two draws of this package meet each other or the training, whatever the user's seeds."""

from __future__ import annotations

from hashlib import blake2b
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["Domain", "haar_directions", "numpy_generator", "torch_generator"]

Domain = Literal[
    "latents", "check", "reading", "eigenmodes", "spectrum", "rotation", "means", "train", "val", "split", "floor"
]
"""What is drawn."""


def numpy_generator(domain: Domain, *key: int) -> np.random.Generator:
    """A generator for one use; keys that differ give independent streams, up to a collision of 128-bit hashes.

    Args:
        domain: what is drawn.
        key: the user's seed, and whatever distinguishes parts that are drawn separately.
    """
    return np.random.default_rng(_entropy(domain, key))


def torch_generator(domain: Domain, *key: int) -> torch.Generator:
    """As :func:`numpy_generator`, on the CPU; torch's generator keeps only 32 bits of its seed."""
    return torch.Generator().manual_seed(_entropy(domain, key) % 2**32)


def haar_directions(generator: np.random.Generator, dim: int, count: int) -> NDArray[np.float64]:
    """The first ``count`` columns of a Haar-distributed orthogonal matrix, ``[count, dim]``."""
    q, r = np.linalg.qr(generator.standard_normal((dim, count)))
    # Without the signs of R's diagonal, Q is not Haar-distributed.
    return np.asarray((q * np.sign(np.diagonal(r))).T)


def _entropy(domain: Domain, key: tuple[int, ...]) -> int:
    text = "/".join(["spectral_lightning", domain, *map(str, key)])
    return int.from_bytes(blake2b(text.encode(), digest_size=16).digest(), "big")
