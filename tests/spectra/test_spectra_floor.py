"""Loss over its linear floor: against dense filters, known mixtures, and repeated draws."""

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from spectral_lightning.spectra import Examples, FourierModes, LinearFloor, PCABasis, Ranks, RunningFloor, WienerFilter
from spectral_lightning.spectra.measurement.floor import paired_ratio
from tests.support.ideal_networks import COVARIANCE, DIM, F64, MEAN, draw, wiener

LEVELS = (20.0, 1.0, 0.1, 0.01)
BASIS = PCABasis.from_moments(MEAN, COVARIANCE)


def floor_of(points=None, **options):
    return LinearFloor(BASIS, LEVELS, draw(9) if points is None else points, dtype=F64, **options)


def row_of(found, denoiser):
    return found.fields(*found.measure(denoiser))


def test_the_best_linear_denoiser_is_on_the_floor():
    found = floor_of()
    row = row_of(found, wiener)
    np.testing.assert_allclose(row["over_floor"], 1, rtol=1e-9)
    np.testing.assert_allclose(row["over_floor_error"], 0, atol=1e-9)
    np.testing.assert_allclose(row["held_out_error"], found.static()["linear_error"], rtol=1e-9)
    gain = BASIS.variance / (BASIS.variance + torch.tensor(LEVELS, dtype=F64)[:, None] ** 2)
    np.testing.assert_allclose(row["data_gain"], gain, rtol=1e-8)
    assert (row_of(found, lambda z, sigma: 0 * z)["over_floor"][1:] > 1).all()


@pytest.mark.parametrize("sigma", [0.05, 0.7, 30.0])
def test_the_closed_floor_is_the_loss_of_the_filter_on_many_draws(sigma):
    floor = WienerFilter(BASIS).floor(sigma)
    eye = torch.eye(DIM, dtype=F64)
    dense = COVARIANCE - COVARIANCE @ torch.linalg.solve(COVARIANCE + sigma**2 * eye, COVARIANCE)
    assert floor == pytest.approx(float(dense.trace()), rel=1e-10)
    found = LinearFloor(BASIS, (sigma,), draw(4000), dtype=F64)
    error = found.linear.std() / 4000**0.5
    assert abs(found.linear.mean() - floor) < 4 * error < 0.1 * floor


@pytest.mark.parametrize("rest", [0.0, 0.3])
def test_directions_without_a_mode_share_a_variance(rest):
    """The dense filter of the covariance with its small eigenvalues replaced."""
    few = PCABasis.from_moments(MEAN, COVARIANCE, num_modes=2)
    u, s = few.modes, torch.tensor([0.6, 0.6], dtype=F64)
    covariance = (u * few.variance) @ u.T + rest * (torch.eye(DIM, dtype=F64) - u @ u.T)
    few = PCABasis(u, few.variance, few.mean, few.shape, rest=rest)
    z = draw(2, seed=4)
    dense = MEAN + (z - MEAN) @ torch.linalg.solve(covariance + 0.36 * torch.eye(DIM, dtype=F64), covariance)
    torch.testing.assert_close(WienerFilter(few)(z, s), dense, rtol=1e-10, atol=1e-10)
    variance = torch.linalg.eigvalsh(covariance)
    assert WienerFilter(few).floor(0.6) == pytest.approx(float((variance * 0.36 / (variance + 0.36)).sum()))


def signs(count, dim=4, seed=0):
    """Data of two values in every coordinate, of which the covariance says little."""
    return torch.randint(0, 2, (count, dim), generator=torch.Generator().manual_seed(seed)).double() * 2 - 1


def knows_signs(z, sigma):
    return torch.tanh(z / sigma[:, None] ** 2)


def test_a_denoiser_that_knows_the_mixture_is_below_one():
    """By as much as an integral over one coordinate says."""
    levels = (2.0, 0.7, 0.4)
    basis = PCABasis.from_moments(torch.zeros(4), torch.eye(4))
    found = LinearFloor(basis, levels, signs(3000), dtype=F64)
    row = row_of(found, knows_signs)
    for sigma, ratio, error in zip(levels, row["over_floor"], row["over_floor_error"], strict=True):
        loss = quad(lambda e, s=sigma: (np.tanh((1 + s * e) / s**2) - 1) ** 2 * norm.pdf(e), -12, 12)[0]
        exact = loss / (sigma**2 / (1 + sigma**2))
        assert abs(ratio - exact) < 4 * error < 0.1
        assert ratio + 4 * error < 1


def test_the_standard_error_is_the_scatter_of_repetitions():
    basis = PCABasis.from_moments(torch.zeros(4), torch.eye(4))
    rows = [row_of(LinearFloor(basis, (0.7,), signs(64, seed=s), seed=s, dtype=F64), knows_signs) for s in range(400)]
    ratios, errors = (np.concatenate([row[name] for row in rows]) for name in ("over_floor", "over_floor_error"))
    assert ratios.std() == pytest.approx(np.sqrt((errors**2).mean()), rel=0.12)  # 3.5 % is one standard error of it
    assert paired_ratio(torch.ones(1), torch.ones(1))[1].isnan()


def test_within_classes_the_floor_is_that_of_the_class():
    shift = torch.zeros(DIM, dtype=F64).index_fill(0, torch.tensor([0]), 5.0)
    pooled = PCABasis.from_moments(MEAN + shift / 2, COVARIANCE + torch.outer(shift, shift) / 4)
    classes = [PCABasis.from_moments(MEAN + c * shift, COVARIANCE) for c in (0, 1)]
    label = torch.tensor([0, 1, 1, 0, 1, 0, 1])
    found = LinearFloor(pooled, LEVELS, draw(7) + label[:, None] * shift, label, classes, dtype=F64)
    row = row_of(found, lambda z, s, c: wiener(z - c[:, None] * shift, s) + c[:, None] * shift)
    np.testing.assert_allclose(row["over_class_floor"], 1, rtol=1e-9)
    static = found.static()
    np.testing.assert_allclose(row["over_floor"], static["class_error"] / static["linear_error"], rtol=1e-9)
    assert (static["class_floor"] < static["linear_floor"]).all()


class Share(Ranks):
    def __init__(self, rank):
        self.rank, self.size = rank, 2


def test_ranks_share_the_points():
    calls = {0: 0, 1: 0, None: 0}

    def counting(rank):
        def denoiser(z, sigma):
            calls[rank] += 1
            return wiener(z, sigma) * 0.9

        return denoiser

    whole = floor_of(draw(5)).measure(counting(None))
    parts = [floor_of(draw(5), ranks=Share(r), batch_size=2).measure(counting(r)) for r in (0, 1)]
    for name, one, both in zip(("errors", "sums"), whole, zip(*parts, strict=True), strict=True):
        torch.testing.assert_close(sum(both), one, rtol=1e-12, atol=1e-12, msg=name)
    assert calls[0] == calls[1] == 2 * len(LEVELS)


def passes(count, batch=300, scale=0.9, seed=2):
    generator = torch.Generator().manual_seed(seed)
    for i in range(count):
        x = draw(batch, seed=seed + i)
        sigma = 10 ** (4 * torch.rand(batch, generator=generator, dtype=F64) - 2.5)
        z = x + sigma[:, None] * torch.randn(batch, DIM, generator=generator, dtype=F64)
        yield x, z, sigma, scale * wiener(z, sigma)


def test_training_passes_are_summed_in_bins_of_sigma():
    running, seen = RunningFloor(BASIS), []
    for i, one in enumerate(passes(80), start=1):
        if running.due():
            assert i <= 64 or i % 8 == 0
            running.add(*one)
            seen.append([part[::3] for part in one])
    assert len(seen) == 66
    x, z, sigma, out = (torch.cat(part) for part in zip(*seen, strict=True))
    found, fit = running.fields(Ranks())
    assert fit
    edges = 10 ** np.linspace(-3, 2.5, 23)
    np.testing.assert_allclose(running.centres(), np.sqrt(edges[1:] * edges[:-1]))
    where = np.digitize(sigma, edges) - 1
    assert found["training_count"].tolist() == np.bincount(where, minlength=22).tolist()
    for name, denoised in (("training_error", out), ("training_linear_error", wiener(z, sigma))):
        size = (denoised - x).square().sum(1).numpy()
        mean = [size[where == k].mean() if (where == k).any() else np.nan for k in range(22)]
        np.testing.assert_allclose(found[name], mean, rtol=1e-3)
    again = RunningFloor(BASIS)
    again.load_state_dict(running.state_dict())
    np.testing.assert_array_equal(again.fields(Ranks())[0]["training_error"], found["training_error"])
    again.clear()
    assert again.fields(Ranks())[0]["training_count"].sum() == 0
    assert again.passes == 80


def test_passes_that_do_not_belong_to_their_data_are_refused():
    running = RunningFloor(BASIS)
    for x, z, sigma, out in passes(2):
        out[0] = torch.nan
        running.add(x.flip(0), z, sigma, out)
    found, fit = running.fields(Ranks())
    assert not fit
    assert found["training_count"].sum() == 0
    assert np.isnan(found["training_error"]).all()
    for one in passes(1):
        running.clear()
        one[3][::3] = torch.inf
        running.add(*one)
    assert running.fields(Ranks())[0]["training_count"].sum() == 0


def test_the_filter_of_fourier_modes_is_that_of_the_stationary_field():
    rows = torch.randn(40, 6, generator=torch.Generator().manual_seed(0), dtype=F64).cumsum(1)
    basis = FourierModes().make_from(Examples(lambda: rows.split(16).__iter__()))
    covariance = (basis.vectors * basis.variance[basis.mode_of]) @ basis.vectors.T
    z, s = rows[:3] + 1, torch.tensor([0.6, 0.6, 0.6], dtype=F64)
    dense = basis.mean + (z - basis.mean) @ torch.linalg.solve(covariance + 0.36 * torch.eye(6, dtype=F64), covariance)
    torch.testing.assert_close(WienerFilter(basis)(z, s), dense, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(WienerFilter(basis, torch.float32)(z.float(), s).double(), dense, rtol=1e-4, atol=1e-4)
