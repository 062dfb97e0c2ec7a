"""Moments of a stream: against numpy.cov, in any split, across ranks, checkpoints and offsets."""

import pickle

import mpmath
import numpy as np
import pytest
import torch

from spectral_lightning.spectra import PCABasis, Ranks, SpectralMoments
from spectral_lightning.spectra.moments import MAX_DIM


def data(n=60, d=5, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=generator, dtype=torch.float64)
    return (torch.randn(n, d, generator=generator, dtype=torch.float64) @ mix + 0.7).to(dtype)


def moments_of(*batches, dim=5):
    metric = SpectralMoments(dim)
    for batch in batches:
        metric.update(batch)
    return metric


@pytest.mark.parametrize("sizes", [[60], [1] * 60, [7, 53], [30, 0, 30]])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_moments_are_numpys_in_any_split(sizes, dtype):
    x = data(dtype=dtype)
    mean, covariance = moments_of(*x.split(sizes)).compute()
    exact = x.double().numpy()
    # Sums of 60 numbers of order one in float64, whatever the type of the input
    np.testing.assert_allclose(mean, exact.mean(0), rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(covariance, np.cov(exact.T, ddof=0), rtol=1e-12, atol=1e-13)
    assert mean.dtype == covariance.dtype == torch.float64
    assert torch.equal(covariance, covariance.T)


def test_images_are_flattened_and_integers_taken():
    images = torch.randint(0, 256, (40, 2, 3, 2), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    mean, covariance = moments_of(images, dim=12).compute()
    flat = images.numpy().reshape(40, 12).astype(np.float64)
    np.testing.assert_allclose(mean, flat.mean(0), rtol=1e-14)
    np.testing.assert_allclose(covariance, np.cov(flat.T, ddof=0), rtol=1e-11, atol=1e-9)


def test_numbers_are_one_dimensional_examples():
    basis = PCABasis.from_moments(*moments_of(torch.tensor([1.0, 5.0]), dim=1).compute())
    assert (basis.mean.tolist(), basis.variance.tolist(), basis.shape) == ([3.0], [4.0], (1,))


@pytest.mark.parametrize("offset", [10.0, 1e3, 1e5])
def test_a_large_mean_costs_the_digits_that_are_stated(offset):
    x = data(200, 3) + offset
    _, covariance = moments_of(*x.split(37), dim=3).compute()
    with mpmath.workdps(50):
        rows = [[mpmath.mpf(v) for v in row] for row in x.tolist()]
        mean = [mpmath.fsum(column) / 200 for column in zip(*rows, strict=True)]
        exact = [
            [float(mpmath.fsum((r[i] - mean[i]) * (r[j] - mean[j]) for r in rows) / 200) for j in range(3)]
            for i in range(3)
        ]
    # Rounding of a sum of squares of size offset^2, a few units in its last place
    assert np.abs(covariance.numpy() - exact).max() < 20 * 2.2e-16 * offset**2 + 1e-13


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_values_that_are_not_finite_are_refused_and_leave_no_trace(bad):
    x = data()
    metric = moments_of(x)
    poisoned = x.clone()
    poisoned[[3, 8], 2] = bad
    with pytest.raises(ValueError, match="`batch` must be finite, got 2 of 60"):
        metric.update(poisoned)
    assert metric.count == 60
    np.testing.assert_allclose(metric.compute()[1], np.cov(x.numpy().T, ddof=0), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    "batch", [torch.zeros(4, 6), torch.zeros(4), torch.zeros(4, 1, 2, 2), {"x": torch.zeros(2, 5)}]
)
def test_other_batches_are_refused(batch):
    with pytest.raises(TypeError if isinstance(batch, dict) else ValueError, match="`batch`"):
        moments_of(batch)


@pytest.mark.parametrize("dim", [0, -1, 2.0, True, MAX_DIM + 1])
def test_dimension_must_be_a_positive_integer_within_the_limit(dim):
    with pytest.raises(ValueError, match="`dim`"):
        SpectralMoments(dim)


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric:UserWarning")
def test_nothing_seen():
    with pytest.raises(ValueError, match="`SpectralMoments`"):
        SpectralMoments(5).compute()


def test_state_is_saved_and_restored():
    x = data()
    first = moments_of(x[:20])
    state = first.state_dict()
    assert set(state) == {"count", "total", "outer"}
    second = SpectralMoments(5)
    second.load_state_dict(state)
    second.update(x[20:])
    assert_moments(second, x)


def assert_moments(metric, x):
    mean, covariance = metric.compute()
    np.testing.assert_allclose(mean, x.numpy().mean(0), rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(covariance, np.cov(x.numpy().T, ddof=0), rtol=1e-12, atol=1e-13)


def test_torchmetrics_merge_pickle_and_reset():
    x = data()
    first, second = moments_of(x[:20]), moments_of(x[20:])
    first.merge_state(second)
    assert_moments(pickle.loads(pickle.dumps(first)), x)
    first.reset()
    assert first.count == 0
    first.update(x[:30])
    assert_moments(first, x[:30])


class Three(Ranks):
    """Two other ranks saw the same as this one."""

    size = 3

    def sum(self, tensor):
        return 3 * tensor


def test_reduce_adds_every_state_up():
    metric = moments_of(data())
    metric.reduce(Three())
    assert metric.count == 180
    assert_moments(metric, data().repeat(3, 1))
