"""Statistics along modes against brute force, and their error bars against simulation."""

import numpy as np
import pytest
import torch

from spectral_lightning.spectra import ModeStatistics, Observables, Ranks
from spectral_lightning.spectra.measurement import alignment
from spectral_lightning.spectra.measurement.alignment import Alignment


def observations(n=90, k=4, seed=0, mean=0.6):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, k)) @ rng.standard_normal((k, k)) + mean


def plain(k):
    return Observables(torch.arange(k))


MODE_OF = [1, 0, 1, 2, 2, 2]


def members(replicates):
    """Observables of every mode: coordinates 0 and 2 are mode 1, coordinate 1 mode 0, coordinates 3 to 5 mode 2."""
    return [[r * 6 + m for r in range(replicates) for m in range(6) if MODE_OF[m] == k] for k in range(3)]


def gathered(x, blocks=3, parts=1, observables=None):
    statistics, first = ModeStatistics.empty(blocks, observables or plain(x.shape[1]), len(x)), 0
    for b, block in enumerate(np.array_split(x, blocks)):
        for part in np.array_split(block, parts):
            statistics.add(b, torch.from_numpy(part), first=first)
            first += len(part)
    return statistics


@pytest.mark.parametrize("parts", [1, 7])
@pytest.mark.parametrize("blocks", [3, 9])
@pytest.mark.parametrize("replicates", [0, 1, 4])
def test_moments_and_errors_are_brute_force(replicates, blocks, parts):
    """Without replicates each mode has one observable: its deviation has a sign, its fourth moment is central."""
    single = not replicates
    x = observations(k=6 * replicates or 4, mean=-0.6)
    own = [[k] for k in range(4)] if single else members(replicates)
    statistics = gathered(x, blocks, parts, None if single else Observables(torch.tensor(MODE_OF), replicates))
    assert statistics.count.tolist() == [90 // blocks] * blocks
    # Sums of 90 numbers of order ten in float64
    np.testing.assert_allclose(statistics.mean, x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(statistics.variance(), [x[:, o].var(0).mean() for o in own], rtol=1e-12)
    np.testing.assert_allclose(statistics.variance(True), [x[:, o].var(0, ddof=1).mean() for o in own], rtol=1e-12)
    about = np.stack([((x - x.mean(0))[:, o] ** 2).mean(1) for o in own], 1)
    pooled = about if single else np.stack([(x[:, o] ** 2).mean(1) for o in own], 1)
    np.testing.assert_allclose(statistics.moment_error(45), pooled.std(0) / 45**0.5, rtol=1e-9)
    of_blocks = np.stack([part.mean(0) for part in np.array_split(about, blocks)])
    np.testing.assert_allclose(statistics.block_error(), of_blocks.std(0, ddof=1) / blocks**0.5, rtol=1e-10)
    deviation = x.mean(0) if single else [(x[:, o].mean(0) ** 2).mean() ** 0.5 for o in own]
    np.testing.assert_allclose(statistics.deviation, deviation, rtol=1e-12)
    covariance = np.mean([np.cov(part.T, ddof=0) for part in np.split(x, replicates or 1, axis=1)], 0)
    share = (np.diag(covariance) ** 2).sum() / (covariance**2).sum()
    np.testing.assert_allclose(statistics.alignment(), share, rtol=1e-11)


@pytest.mark.parametrize("mean", [0.0, 3.0])
def test_block_error_covers_the_truth(mean):
    rng = np.random.default_rng(1)
    # 16 blocks of 20 observations of e^g, skewed: its variance is (e^(s^2) - 1) e^(s^2)
    spread = 0.4
    truth = (np.exp(spread**2) - 1) * np.exp(spread**2)
    x = np.exp(spread * rng.standard_normal((320, 2000))) + mean
    statistics = gathered(x, 16)
    z = (statistics.variance().numpy() - truth) / statistics.block_error().numpy()
    inside = np.mean(np.abs(z) < 2.13)  # Student's 95 % with 15 degrees of freedom
    assert 0.88 < inside < 0.97  # below 95 % because the variance of skewed data is itself skewed
    true_error = statistics.variance().numpy().std()
    # A shifted mean must not inflate the error; 2000 columns give the mean error to 2 %
    np.testing.assert_allclose(statistics.block_error().numpy().mean(), true_error, rtol=0.08)


def test_empty_blocks_change_nothing():
    x = observations()
    full, holed = gathered(x, 3), ModeStatistics.empty(5, plain(4))
    for into, block in zip((0, 2, 4), np.array_split(x, 3), strict=True):
        holed.add(into, torch.from_numpy(block))
    holed.add(1, torch.zeros(0, 4, dtype=torch.float64), non_finite=2)
    assert full.total == holed.total
    # Sums of three and of five terms are rounded in another order
    np.testing.assert_allclose(holed.mean, full.mean, rtol=1e-14)
    np.testing.assert_allclose(holed.variance(), full.variance(), rtol=1e-13)
    np.testing.assert_allclose(holed.block_error(), full.block_error(), rtol=1e-13)
    assert holed.non_finite == 2


def test_a_constant_has_variance_zero_not_below():
    assert (gathered(np.full((30, 2), 0.1), 3).variance() >= 0).all()


class Doubling(Ranks):
    size = 2

    def sum(self, tensor):
        return 2 * tensor


def test_reduce_adds_every_field():
    x = observations()
    statistics, twice = gathered(x), gathered(x)
    statistics.non_finite += 4
    statistics.reduce(Doubling())
    for block, part in enumerate(np.array_split(x, 3)):
        twice.add(block, torch.from_numpy(part))
    for name in ("count", "sums", "second", "third", "fourth"):
        np.testing.assert_allclose(getattr(statistics, name), getattr(twice, name), rtol=1e-14)
    assert statistics.non_finite == 8
    assert statistics.alignment() == pytest.approx(twice.alignment(), rel=1e-12)


@pytest.mark.parametrize("replicates", [1, 4])
def test_pooling_is_the_average_over_a_modes_observables(replicates):
    observables = Observables(torch.tensor(MODE_OF), replicates)
    x = np.random.default_rng(0).standard_normal((5, 2, 6 * replicates))
    expected = np.stack([x[..., own].mean(-1) for own in members(replicates)], axis=-1)
    np.testing.assert_allclose(observables.pool(torch.from_numpy(x)), expected, rtol=1e-13, atol=1e-15)
    assert observables.multiplicity.tolist() == [replicates, 2 * replicates, 3 * replicates]
    assert (observables.num_modes, observables.count, observables.single) == (3, 6 * replicates, False)


def test_one_observable_each_is_not_touched():
    values = torch.randn(3, 4)
    assert plain(4).single
    assert plain(4).pool(values) is values
    assert not Observables(torch.tensor([1, 0])).single
    assert Observables(torch.tensor([1, 0])).pool(torch.tensor([5.0, 7.0])).tolist() == [7.0, 5.0]


@pytest.mark.parametrize(
    ("mode_of", "replicates", "argument"),
    [
        ([0, 2], 1, "mode_of"),
        ([], 1, "mode_of"),
        ([[0, 1]], 1, "mode_of"),
        ([-1, 0], 1, "mode_of"),
        ([0, 1], 0, "replicates"),
    ],
)
def test_bad_observables(mode_of, replicates, argument):
    with pytest.raises(ValueError, match=f"`{argument}`"):
        Observables(torch.tensor(mode_of), replicates)


@pytest.mark.parametrize("replicates", [1, 2])
@pytest.mark.parametrize(("n", "kept"), [(7, 7), (200, 200), (7, 3)])
def test_alignment_by_either_matrix_and_of_mixtures(n, kept, replicates, monkeypatch):
    """With fewer rows than the 30 coordinates by the matrix of samples; of those that fit in memory."""
    monkeypatch.setattr(alignment, "_NUMBERS_KEPT", 30 * replicates * kept)
    rng, observables = np.random.default_rng(0), Observables(torch.arange(30), replicates)
    x = rng.standard_normal((n, 30 * replicates)) @ rng.standard_normal((30 * replicates,) * 2) + 2
    whole, parts = Alignment(observables, n), [Alignment(observables, n) for _ in range(2)]
    for first in range(0, n, 2):
        rows = torch.from_numpy(x[first : first + 2])
        whole.add(rows, first)
        parts[first // 2 % 2].add(rows, first)
    weight = np.where(np.arange(n) // 2 % 2, 3.0, 1.0)
    for found, w in ((whole, np.ones(n)), (Alignment.mixture(parts, [1.0, 3.0]), weight)):
        rows = np.split(x[:kept], replicates, axis=1)
        covariance = np.mean([np.cov(part.T, ddof=0, aweights=w[:kept]) for part in rows], 0)
        expected = (np.diag(covariance) ** 2).sum() / (covariance**2).sum()
        np.testing.assert_allclose(found.value(), expected, rtol=1e-10)
