"""Bases from sums over examples against those from the full covariance, and leading eigenmodes against eigh."""

import numpy as np
import pytest
import torch

from spectral_lightning.spectra import Eigenmodes, Examples, FourierModes, PatchComponents, PCABasis, overlap
from spectral_lightning.spectra.bases.lanczos import leading_eigenmodes
from tests.support.bases import SHAPE
from tests.support.ranks import Meeting

RECIPES = [
    Eigenmodes(5),
    FourierModes(),
    FourierModes(bands=2),
    PatchComponents(2),
    PatchComponents(2, num_modes=4),
    PatchComponents(2, stride=2, boundary="valid"),
]


def rows(n=70, d=24, offset=3.0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(d, d, generator=generator) * torch.linspace(0.2, 2, d)
    return (torch.randn(n, d, generator=generator) @ mix + offset).to(dtype)


def reading(x, rank=0, size=1, reads=None):
    """Batches of one rank's share, written down where they are read."""

    def batches():
        for part in x[rank::size].split(13):
            if reads is not None:
                reads.append(len(part))
            yield part

    return batches


def moments(x):
    flat = x.double().flatten(1)
    return flat.mean(0), torch.from_numpy(np.cov(flat.numpy().T, ddof=0))


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("recipe", RECIPES)
def test_bases_from_examples_are_those_from_moments(recipe, ranks):
    x = rows().reshape(-1, *SHAPE)
    expected = recipe.make(*moments(x), SHAPE, "70 training examples")
    made = (
        [recipe.make_from(Examples(reading(x)))]
        if ranks == 1
        else Meeting(2).run(lambda rank: recipe.make_from(Examples(reading(x, rank.rank, 2), rank)))
    )
    for basis in made:
        assert basis.describe() == expected.describe()
        assert torch.equal(basis.multiplicity, expected.multiplicity)
        np.testing.assert_allclose(basis.variance, expected.variance, rtol=1e-9)
        np.testing.assert_allclose(basis.mean, expected.mean, rtol=1e-12)
        # Vectors move by the rounding of the sums over the distance of neighbouring variances
        np.testing.assert_allclose(basis.project(x), expected.project(x), atol=1e-7)
        np.testing.assert_allclose(basis.spectrum.sum(), expected.spectrum.sum(), rtol=1e-10)
        if getattr(basis, "boundary", "circular") == "circular":  # other patches do not see a stationary field
            np.testing.assert_allclose(overlap(basis, basis.data) @ basis.data.variance, basis.variance, rtol=1e-9)
    assert len({basis.fingerprint for basis in made}) == 1


@pytest.mark.parametrize("kept", [True, False])
def test_examples_are_read_once_if_they_fit_in_memory(kept):
    x, reads = rows(), []
    examples = Examples(reading(x, reads=reads), memory=x.nbytes - (not kept))
    mean, covariance = moments(x)
    vectors = torch.randn(24, 3, dtype=torch.float64)
    examples.totals(keep=True)
    for _ in range(3):
        np.testing.assert_allclose(examples.product(vectors), covariance @ vectors, rtol=1e-9, atol=1e-9)
    assert sum(reads) == 70 * (1 if kept else 4)
    np.testing.assert_allclose(examples.mean, mean, rtol=1e-12)
    assert examples.variance == pytest.approx(float(covariance.trace()), rel=1e-12)


@pytest.mark.parametrize(("power", "block"), [(1.0, 8), (2.0, 8), (2.0, 40)])
def test_leading_eigenmodes_are_those_of_eigh(power, block):
    d, k = 300, 20
    q = torch.linalg.qr(torch.randn(d, d, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))[0]
    exact = torch.arange(1, d + 1, dtype=torch.float64) ** -power
    matrix = (q * exact) @ q.T
    values, vectors = leading_eigenmodes(lambda v: matrix @ v, d, k, block)
    np.testing.assert_allclose(values, exact[:k], rtol=1e-6)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(k), atol=1e-12)
    assert ((matrix @ vectors - vectors * values).norm(dim=0) < 2e-5 * values).all()
    assert ((q[:, :k] * vectors).sum(0).abs() > 1 - 1e-6).all()


@pytest.mark.parametrize("k", [3, 12, 30])
def test_leading_eigenmodes_of_a_deficient_matrix_end_in_null_modes(k):
    x = torch.randn(9, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    values, vectors = leading_eigenmodes(lambda v: x.T @ (x @ v), 30, k, 4)
    np.testing.assert_allclose(values, torch.linalg.eigvalsh(x.T @ x).flip(0)[:k], rtol=1e-9, atol=1e-12 * values[0])
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(k), atol=1e-10)


def test_few_modes_of_a_large_covariance_are_those_of_all():
    d = 1024
    q = torch.linalg.qr(torch.randn(d, d, dtype=torch.float64, generator=torch.Generator().manual_seed(2)))[0]
    variance = torch.logspace(1, -2, d, dtype=torch.float64)
    few = PCABasis.from_moments(torch.zeros(d), (q * variance) @ q.T, num_modes=4)
    np.testing.assert_allclose(few.variance, variance[:4], rtol=1e-8)
    assert few.rest == pytest.approx(float(variance[4:].mean()), rel=1e-8)


@pytest.mark.parametrize("offset", [0.0, 20.0])
def test_a_single_precision_product_keeps_six_digits_of_the_variances(offset):
    d, k = 2048, 128
    generator = torch.Generator().manual_seed(3)
    q = torch.linalg.qr(torch.randn(d, k, dtype=torch.float64, generator=generator))[0]
    variance = torch.logspace(1, -2, k, dtype=torch.float64)
    basis = PCABasis(q, variance, torch.full((d,), offset), (d,), rest=0.05)
    x = (torch.randn(128, k, generator=generator) * variance.sqrt() @ q.T).float() + offset
    x += 0.05**0.5 * torch.randn(128, d, generator=generator)
    found, exact = basis.project(x), basis.project(x.double())
    assert not torch.equal(found, exact)
    np.testing.assert_allclose(found.var(0), exact.var(0), rtol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(basis.project(x), exact)


@pytest.mark.parametrize(
    ("batches", "argument"),
    [([], "at least one"), ([torch.zeros(4, 2)], "vary"), ([torch.full((2, 2), torch.nan)], "`batch`")],
)
def test_bad_examples(batches, argument):
    with pytest.raises(ValueError, match=argument):
        Examples(lambda: iter(batches)).totals()
    with pytest.raises(ValueError, match="`num_modes`"):
        PCABasis.from_examples(Examples(reading(rows())), 25)
