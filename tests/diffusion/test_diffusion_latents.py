"""Latents: exact second moment, the same in any parts and order, from separate generators."""

import numpy as np
import pytest
import torch
from scipy import stats

from spectral_lightning.diffusion import Latents

KINDS = ("orthogonal", "independent")


@pytest.mark.parametrize(("count", "dim"), [(2, 1), (6, 1), (28, 7), (128, 64), (6, 4), (22, 4), (2, 50)])
def test_blocks_are_antithetic_orthonormal_pairs(count, dim):
    rows = Latents(count, dim, seed=3).rows(0, count)
    assert rows.shape == (count, dim)
    assert torch.equal(rows[0::2], -rows[1::2])
    for block in rows.split(2 * dim):
        directions = block[::2].numpy() / dim**0.5
        np.testing.assert_allclose(directions @ directions.T, np.eye(len(directions)), atol=1e-14)  # rounding of QR
    if count % (2 * dim) == 0:  # whole blocks have the second moment of the distribution
        np.testing.assert_allclose(rows.T @ rows / count, np.eye(dim), atol=1e-14)


@pytest.mark.parametrize("dim", [5, 63, 64, 75])
def test_slices_are_parts_of_one_block(dim):
    block = np.concatenate([Latents(2, dim, first=k).rows(0, 1).numpy() for k in range(dim)])
    np.testing.assert_allclose(block @ block.T, dim * np.eye(dim), atol=1e-12 * dim)
    for first in (0, 2, dim - 2):
        latents = Latents(8, dim, seed=0, first=first)
        np.testing.assert_allclose(latents.rows(0, 8)[::2], np.roll(block, -first, axis=0)[:4], atol=1e-13)
        np.testing.assert_allclose(latents.rows(3, 6), latents.rows(0, 8)[3:6], atol=1e-13)


@pytest.mark.parametrize("every", range(1, 13))
def test_rotation_covers_the_block_however_thinned(every):
    """In 64 dimensions, slices of 8 directions; consecutive ones would not at every 2nd, 4th, 6th, 8th measurement."""
    latents = Latents(16, 64)
    seen = [latents.rotated(every * i).first for i in range(32)]
    assert set(seen) == set(range(0, 64, 8))
    assert max(map(seen.count, seen)) <= 8  # of 4 on average


def test_what_holds_a_block_does_not_rotate():
    for latents in (Latents(8, 4), Latents(10, 4), Latents(6, 4, "independent")):
        assert latents.rotated(5) == latents


@pytest.mark.parametrize("dim", [64, 128])
def test_structured_directions_are_like_haar_ones(dim):
    """Moments of projections on eight pixels, cosines, random directions, and the error of a variance by a slice."""
    waves = np.cos(np.pi * np.outer(np.arange(1, 9), np.arange(dim) + 0.5) / dim)
    kinds = np.stack([np.eye(dim)[:8], waves, np.random.default_rng(0).standard_normal((8, dim))])
    kinds = np.swapaxes(kinds / np.linalg.norm(kinds, axis=-1, keepdims=True), 1, 2)
    slices = np.stack([Latents(dim // 2, dim, seed=s).rows(0, dim // 2)[::2].numpy() @ kinds for s in range(500)])
    fourth = 3 * dim / (dim + 2)
    # Four to five standard errors of 500 slices
    np.testing.assert_allclose((slices**4).mean((0, 2, 3)), fourth, rtol=0.05)
    np.testing.assert_allclose((slices**6).mean((0, 2, 3)), fourth * 5 * dim / (dim + 4), rtol=0.12)
    spread = (slices**2).mean(2).std(0).mean(1)
    np.testing.assert_allclose(spread, np.sqrt((fourth - 1) / (dim // 4) * (1 - 1 / 4) * dim / (dim - 1)), rtol=0.05)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [6, 20, 26])
def test_any_part_in_any_order_is_the_same(kind, count):
    whole = Latents(count, 5, kind, seed=9).rows(0, count)
    for size in (1, 3, 4, 10, 11):
        latents = Latents(count, 5, kind, seed=9)
        starts = list(range(0, count, size))[::-1]
        parts = {start: latents.rows(start, min(start + size, count)) for start in starts}
        assert torch.equal(torch.cat([parts[start] for start in sorted(parts)]), whole)
    assert whole.dtype == torch.float64


@pytest.mark.parametrize("kind", KINDS)
def test_seeds_and_blocks_differ(kind):
    first, second = Latents(40, 5, kind, seed=0).rows(0, 40), Latents(40, 5, kind, seed=1).rows(0, 40)
    assert not torch.isclose(first, second).any(1).all()
    assert not torch.allclose(first[:10], first[10:20])  # blocks of one set
    assert not torch.allclose(first[10:20], second[:10])  # the next seed does not repeat a block of this one


@pytest.mark.parametrize("kind", KINDS)
def test_global_generators_are_left_alone(kind):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    rows = Latents(30, 5, kind).rows(0, 30)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert torch.equal(Latents(30, 5, kind).rows(0, 30), rows)


def test_independent_latents_are_standard_normal():
    rows = Latents(20_000, 4, "independent").rows(0, 20_000).numpy()
    for column in rows.T:
        assert stats.kstest(column, "norm").pvalue > 0.001
    np.testing.assert_allclose(np.cov(rows.T), np.eye(4), atol=0.04)  # four standard errors, 4 sqrt(2 / 20000)
    assert not np.array_equal(rows[0::2], -rows[1::2])


def test_directions_are_haar_distributed():
    # Without the sign fix of QR the first component of the first direction has one sign only (LAPACK's: negative).
    firsts = np.array([Latents(6, 3, seed=s).rows(0, 6)[0::2].numpy() for s in range(400)]) / 3**0.5
    # Four standard errors of the mean; each component has variance 1/3
    assert np.abs(firsts.mean(0)).max() < 4 * (1 / 3 / 400) ** 0.5
    for k in range(3):  # a component of a uniform direction in three dimensions is uniform on [-1, 1] (Archimedes)
        assert stats.kstest(firsts[:, k, k], stats.uniform(-1, 2).cdf).pvalue > 0.01
    assert 0.4 < (np.linalg.det(firsts) > 0).mean() < 0.6  # rotations and reflections alike


@pytest.mark.parametrize(
    ("arguments", "argument"),
    [
        ({"count": 1}, "num_samples"),
        ({"count": 4.0}, "num_samples"),
        ({"count": 7}, "num_samples"),
        ({"dim": 0}, "dim"),
        ({"seed": -1}, "seed"),
        ({"kind": "sobol"}, "latents"),
        ({"count": 6, "first": 4}, "first"),
        ({"first": 1}, "first"),
    ],
)
def test_bad_arguments(arguments, argument):
    with pytest.raises(ValueError, match=f"`{argument}`"):
        Latents(**{"count": 8, "dim": 4, **arguments})


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (0, 9), (8, 9), (3, 3), (5, 2)])
def test_rows_outside_the_set_are_refused(start, stop):
    with pytest.raises(ValueError, match="`start` and `stop`"):
        Latents(8, 4).rows(start, stop)
