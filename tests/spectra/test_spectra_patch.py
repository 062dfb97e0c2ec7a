"""Patch components against loops over positions and the autocovariance of stationary fields."""

import itertools
import math

import numpy as np
import pytest
import torch

from spectral_lightning.spectra import PatchBasis
from spectral_lightning.theory import GaussianData, LocalConvolution, Objective
from tests.support.bases import SHAPE, moments, pixels_of

CASES = [
    ((7,), 3, 1, "circular"),
    ((8,), 3, 2, "circular"),
    ((8,), 3, 3, "circular"),
    ((8,), 3, 2, "valid"),
    ((2, 6), 6, 1, "circular"),
    ((2, 6), 4, 1, "valid"),
    ((1, 4, 5), 3, 1, "circular"),
    ((1, 4, 5), 3, 1, "valid"),
    ((3, 4, 4), 2, 2, "valid"),
    ((2, 5, 4), 2, 3, "circular"),
]


def naive_patches(field, size, stride, boundary):
    """All patches of one field [C, *pixels], each flattened as [C, size(, size)], by a loop over corners."""
    pixels = field.shape[1:]
    corners = [range(0, n if boundary == "circular" else n - size + 1, stride) for n in pixels]
    out = []
    for corner in itertools.product(*corners):
        out.append(
            [
                field[(c, *((a + b) % n for a, b, n in zip(corner, offset, pixels, strict=True)))]
                for c in range(len(field))
                for offset in itertools.product(range(size), repeat=len(pixels))
            ]
        )
    return np.array(out)


def as_field(x, shape):
    return np.asarray(x).reshape((1, *shape) if len(shape) == 1 else shape)


@pytest.mark.parametrize(("shape", "size", "stride", "boundary"), CASES)
def test_components_are_those_of_the_position_average(shape, size, stride, boundary):
    mean, covariance = moments(shape)
    basis = PatchBasis.from_moments(mean, covariance, shape, size, stride, boundary)
    # Patches of the field of coordinates' own numbers say which coordinates each patch holds
    numbers = naive_patches(as_field(np.arange(math.prod(shape)), shape), size, stride, boundary)
    average = np.mean([covariance.numpy()[np.ix_(place, place)] for place in numbers], 0)
    np.testing.assert_allclose(basis.variance, np.linalg.eigvalsh(average)[::-1], rtol=1e-9, atol=1e-11)
    v = basis.vectors.numpy()
    np.testing.assert_allclose(v.T @ average @ v, np.diag(basis.variance), atol=1e-10)
    np.testing.assert_allclose(v.T @ v, np.eye(len(v)), atol=1e-13)
    assert basis.replicates == len(numbers)
    assert basis.multiplicity.tolist() == [len(numbers)] * numbers.shape[1]


@pytest.mark.parametrize(("shape", "size", "stride", "boundary"), CASES)
def test_project_is_the_naive_projection_position_by_position(shape, size, stride, boundary):
    mean, covariance = moments(shape)
    basis = PatchBasis.from_moments(mean, covariance, shape, size, stride, boundary, num_modes=2)
    x = np.random.default_rng(1).standard_normal((3, *shape))
    expected = [
        naive_patches(as_field(one.reshape(-1) - mean.numpy(), shape), size, stride, boundary) @ basis.vectors.numpy()
        for one in x
    ]
    np.testing.assert_allclose(basis.project(torch.from_numpy(x)), np.reshape(expected, (3, -1)), atol=1e-12)
    pooled = (np.array(expected) ** 2).mean(1)
    np.testing.assert_allclose(basis.pool(basis.project(torch.from_numpy(x)).square()), pooled, rtol=1e-11)


@pytest.mark.parametrize("shape", [(8,), (2, 7), (1, 4, 5), (2, 4, 3)])
def test_patch_covariance_is_that_of_the_local_convolution(shape):
    covariance, sigma = moments(shape)[1], 0.8
    basis = PatchBasis.from_moments(torch.zeros(len(covariance)), covariance, shape, 3)
    channels, pixels = pixels_of(shape)
    theory = LocalConvolution(Objective(1e-3), 3).on(GaussianData(covariance.numpy(), None, pixels, channels))
    # w* = (S + sigma^2 I)^-1 S e0, e0 the centre of each channel
    v, variance = basis.vectors.numpy(), basis.variance.numpy()
    centres = [3 ** len(pixels) * c + 3 ** len(pixels) // 2 for c in range(channels)]
    expected = ((v * (variance / (variance + sigma**2))) @ v.T)[centres]
    np.testing.assert_allclose(theory.kernel(np.inf, sigma).reshape(channels, -1), expected, atol=1e-10)


def test_labels_and_description():
    basis = PatchBasis.from_moments(*moments(), SHAPE, 2, 2, "valid", 5, source="60 photographs")
    assert basis.labels[0] == "component 1"
    assert basis.describe() == (
        "5 patch components (size 2, stride 2, valid, 2 positions) of 60 photographs, dimension 24"
    )


def test_fingerprint_tells_stride_boundary_and_data_apart():
    options = [{}, {"stride": 2}, {"boundary": "valid"}, {"size": 3}, {"num_modes": 1}]
    prints = {PatchBasis.from_moments(*moments((6,)), (6,), **{"size": 2, **option}).fingerprint for option in options}
    prints.add(PatchBasis.from_moments(*moments((6,), 1), (6,), 2).fingerprint)
    assert len(prints) == 6


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"size": 5}, "size"),
        ({"size": 0}, "size"),
        ({"stride": 0}, "stride"),
        ({"boundary": "reflect"}, "boundary"),
        ({"num_modes": 5}, "num_modes"),
        ({"axes": 1}, "shape"),
        ({"shape": (1, 4, 5)}, "modes"),
    ],
)
def test_bad_arguments(options, argument):
    mean, covariance = moments((16,))
    with pytest.raises(ValueError, match=f"`{argument}`"):
        PatchBasis.from_moments(mean, covariance, **{"shape": (1, 4, 4), "size": 2, **options})


def test_vectors_must_fit():
    basis = PatchBasis.from_moments(*moments((6,)), (6,), 3)
    with pytest.raises(ValueError, match="`vectors`"):
        PatchBasis(basis.data, basis.vectors, basis.variance, 2)
