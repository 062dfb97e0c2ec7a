"""The measurement against closed forms, brute-force propagation and simulation."""

import functools

import numpy as np
import pytest
import torch
from scipy import stats

from spectral_lightning.diffusion import Latents
from spectral_lightning.sampling import Sampler
from spectral_lightning.spectra import PCABasis, Ranks, SpectralProbe
from spectral_lightning.spectra.measurement.scatter import Scatter
from tests.support.bases import NAMES, bases, directions, moments
from tests.support.ranks import Meeting

F64 = torch.float64
SHORT = Sampler(num_steps=6)


def population(d, seed=0, mean=1.0):
    generator = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=F64))[0]
    variance = torch.logspace(1, -3, d, dtype=F64)
    covariance = (rotation * variance) @ rotation.T
    return mean * torch.randn(d, generator=generator, dtype=F64), (covariance + covariance.T) / 2


def basis_of(d, num_modes=None, shape=None, seed=0, mean=1.0):
    return PCABasis.from_moments(*population(d, seed, mean), num_modes, shape)


def wiener(mean, covariance):
    """The exact denoiser by a dense solve, in the form of the protocol."""

    def denoiser(z, sigma):
        flat = z.flatten(1).double()
        eye = torch.eye(len(mean), dtype=F64)
        out = [
            mean + covariance @ torch.linalg.solve(covariance + s**2 * eye, x - mean)
            for x, s in zip(flat, sigma.double(), strict=True)
        ]
        return torch.stack(out).reshape(z.shape).to(z.dtype)

    return denoiser


def nonlinear(z, sigma):
    """Bounded, coupled and biased: nothing about it is Gaussian."""
    flat = z.flatten(1)
    mixed = flat + 0.5 * flat.roll(1, 1)
    s = sigma[:, None].to(z.dtype)
    return (torch.tanh(mixed / (1 + s)) + 0.3 * torch.cos(flat) + 0.2).reshape(z.shape)


def naive_heun(matrix, offset, levels, z):
    """Algorithm 1 of Karras et al., on one vector at a time."""

    def slope(x, s):
        return (x - (matrix(s) @ x + offset(s))) / s

    for s, t in zip(levels[:-1], levels[1:], strict=True):
        here = slope(z, s)
        ahead = z + (t - s) * here
        z = z + (t - s) * (here + slope(ahead, t)) / 2 if t > 0 else ahead
    return z


@pytest.mark.parametrize(
    "sampler", [Sampler("euler", num_steps=10), Sampler(num_steps=8, final="sigma_min")], ids=Sampler.describe
)
@pytest.mark.parametrize("shape", [(8,), (1, 4, 4)])
@pytest.mark.parametrize("multiple", [1, 3])
def test_exact_denoiser_gives_the_fixed_point(sampler, shape, multiple):
    d = int(np.prod(shape))
    basis = basis_of(d, shape=shape)
    probe = SpectralProbe(basis, sampler, num_samples=2 * d * multiple)
    row = probe.measure(wiener(*population(d)), 7, dtype=F64)
    # 2d orthogonal latents leave rounding only, of the sampler's 10 steps from 80
    np.testing.assert_allclose(row["variance"], probe.fixed_point, rtol=1e-10)
    # Sampling starts from N(0, 80^2), not from N(mean, 80^2): what is left of that shift is part of the flow
    remains = -basis.modes.numpy().T @ basis.mean.numpy() * np.sqrt(probe.fixed_point) / 80
    np.testing.assert_allclose(row["mean_deviation"], remains, rtol=1e-9, atol=1e-12)
    assert row["alignment"] == pytest.approx(1.0, abs=1e-12)
    assert (row["step"], row["num_samples"], row["non_finite"]) == (7, 2 * d * multiple, 0)
    assert row["variance"].dtype == np.float64


def test_a_cycle_of_slices_gives_the_fixed_point():
    basis, slices = basis_of(16), {}
    probe = SpectralProbe(basis, SHORT, num_samples=8, sample_batch_size=3)
    for index in range(9):
        probe.rotate(index)
        row = probe.measure(wiener(*population(16)), index, dtype=F64)
        slices[row["slice"]] = row["variance"]
    assert sorted(slices) == [0, 4, 8, 12]
    np.testing.assert_allclose(np.mean(list(slices.values()), axis=0), probe.fixed_point, rtol=1e-9)
    assert np.std(list(slices.values()), axis=0).min() > 0.01 * probe.fixed_point.min()
    assert len(probe.chunks._drawn) == len(probe.chunks.parts)  # rows of the last slice alone are kept
    assert probe.history().metadata["slices"] == {"directions": 16, "width": 4}


def test_independent_latents_do_not_give_the_fixed_point():
    probe = SpectralProbe(basis_of(8), SHORT, 48, latents="independent")
    row = probe.measure(wiener(*population(8)), 0, dtype=F64)
    assert np.abs(row["variance"] / probe.fixed_point - 1).max() > 0.05


@pytest.mark.parametrize("size", [1, 7, 16, 64, 1000])
@pytest.mark.parametrize(("kind", "count"), [("orthogonal", 60), ("orthogonal", 34), ("independent", 45)])
def test_chunks_change_nothing(size, kind, count):
    basis = basis_of(5)
    largest = []

    def watched(z, sigma):
        largest.append(len(z))
        return nonlinear(z, sigma)

    reference = SpectralProbe(basis, SHORT, count, kind, seed=2, sample_batch_size=count)
    probe = SpectralProbe(basis, SHORT, count, kind, seed=2, sample_batch_size=size)
    assert_rows_equal(probe.measure(watched, 0, dtype=F64), reference.measure(nonlinear, 0, dtype=F64))
    assert max(largest) <= size
    assert sum(largest) == count * SHORT.evaluations
    np.testing.assert_allclose(
        probe.gain(nonlinear, dtype=F64), reference.gain(nonlinear, dtype=F64), rtol=1e-12, atol=1e-13
    )


def assert_rows_equal(row, other):
    assert set(row) == set(other)
    for name, value in row.items():
        # The error is a difference of moments up to the fourth, which takes digits away where the mean is far.
        rtol = 1e-9 if name == "standard_error" else 1e-12
        np.testing.assert_allclose(value, other[name], rtol=rtol, atol=1e-13, err_msg=name)


@pytest.mark.parametrize(
    ("basis", "size", "count"),
    [
        *((basis_of(5), size, count) for size in (2, 3) for count in (60, 10, 4)),
        *((bases()[name], 2, 60) for name in ("fourier", "patch")),
    ],
)
def test_ranks_share_the_work_and_get_the_result_of_one(basis, size, count):
    evaluated, calls = {}, {}
    one = SpectralProbe(basis, SHORT, count)
    one.rotate(3)

    def work(rank):
        def counted(z, sigma):
            evaluated[rank.rank] = evaluated.get(rank.rank, 0) + len(z)
            calls[rank.rank] = calls.get(rank.rank, 0) + 1
            return nonlinear(z, sigma)

        probe = SpectralProbe(basis, SHORT, count, sample_batch_size=5, ranks=rank)
        probe.rotate(3)
        return probe.measure(counted, 3, dtype=F64), probe.gain(nonlinear, dtype=F64)

    for row, gain in Meeting(size).run(work):
        assert_rows_equal(row, one.measure(nonlinear, 3, dtype=F64))
        np.testing.assert_allclose(gain, one.gain(nonlinear, dtype=F64), rtol=1e-12, atol=1e-13)
    chunks = len(SpectralProbe(basis, SHORT, count, sample_batch_size=5).chunks.parts)
    # Equally often on every rank, so that a denoiser may gather its parameters from all of them; shared all the same.
    assert calls == dict.fromkeys(range(size), -(-chunks // size) * SHORT.evaluations)
    assert max(evaluated.values()) < count * SHORT.evaluations or chunks == 1


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_samples_that_are_not_finite_are_counted_and_left_out(value):
    basis, count = basis_of(5), 40
    start = Latents(count, 5).rows(0, count)

    def denoiser(z, sigma):
        bad = (z[:, :1] > 60) & (sigma[:, None] == 80.0)
        return torch.where(bad, torch.full_like(z, value), nonlinear(z, sigma))

    bad = start[:, 0] * 80 > 60
    assert 0 < bad.sum() < count
    row = SpectralProbe(basis, SHORT, count, sample_batch_size=7).measure(denoiser, 0, dtype=F64)
    assert row["non_finite"] == bad.sum()
    with torch.no_grad():
        samples = SHORT(lambda z, s: nonlinear(z, torch.full((len(z),), s, dtype=F64)), start[~bad] * 80)
    x = (samples - basis.mean).numpy() @ basis.modes.numpy()
    np.testing.assert_allclose(row["variance"], x.var(0), rtol=1e-11)
    np.testing.assert_allclose(row["mean_deviation"], x.mean(0), rtol=1e-11)


def test_no_finite_sample_is_counted_and_has_no_variance():
    row = SpectralProbe(basis_of(5), SHORT, 20).measure(lambda z, s: z * torch.nan, 12)
    assert row["non_finite"] == row["num_samples"] == 20
    assert all(np.isnan(row[name]).all() for name in ("variance", "standard_error", "mean_deviation", "alignment"))


@pytest.mark.parametrize("method", ["generate", "gain"])
def test_another_shape_is_an_error(method):
    probe = SpectralProbe(basis_of(4, shape=(1, 2, 2)), SHORT, 8)
    with pytest.raises(ValueError, match=r"`denoiser` .* got \(8, 4\)"):
        getattr(probe, method)(lambda z, s: z.flatten(1))


def test_the_denoiser_may_write_into_its_sigma_and_answer_in_another_precision():
    def rude(z, sigma):
        out = nonlinear(z, sigma).float()
        sigma.mul_(0)
        return out

    probe = SpectralProbe(basis_of(5), SHORT, 20)
    row, exact = probe.measure(rude, 0, dtype=F64), probe.measure(nonlinear, 0, dtype=F64)
    np.testing.assert_allclose(row["variance"], exact["variance"], rtol=1e-4)  # float32 outputs times sigma = 80


@pytest.mark.parametrize(
    ("count", "words"), [(20, "2 blocks"), (80, "8 blocks"), (26, "fourth"), (10, "upper"), (8, "part")]
)
def test_error_from_blocks_needs_two_whole_ones(count, words):
    probe = SpectralProbe(basis_of(5), SHORT, count)
    assert probe.error_from_blocks is (words[2:] == "blocks")
    assert words in probe.history().metadata["standard_error"]


@functools.cache
def truth(denoiser, basis):
    torch.manual_seed(0)
    z = torch.randn(60_000, basis.dim, dtype=F64) * SHORT.start
    samples = SHORT(lambda x, s: denoiser(x, torch.full((len(x),), s, dtype=F64)), z)
    return basis.project(samples).numpy().var(0)


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("orthogonal", 20),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (("orthogonal", 30), ("orthogonal", 120), ("independent", 120))
        ),
    ],
)
def test_standard_error_covers_the_truth(kind, count):
    basis = basis_of(5)
    exact = truth(nonlinear, basis)
    rows = [SpectralProbe(basis, SHORT, count, kind, seed=s).measure(nonlinear, 0, dtype=F64) for s in range(200)]
    values, errors = (np.array([row[name] for row in rows]) for name in ("variance", "standard_error"))
    freedom = count // 10 - 1 if kind == "orthogonal" else count - 1
    inside = np.mean(np.abs(values - exact) < stats.t.ppf(0.975, freedom) * errors)
    assert inside == pytest.approx(0.95, abs=0.035)  # of 1000 correlated trials
    ratio = np.sqrt((errors**2).mean(0)) / values.std(0)
    np.testing.assert_allclose(ratio, 1, atol=0.2)


@pytest.mark.parametrize("count", [8, *(pytest.param(n, marks=pytest.mark.slow) for n in (4, 14))])
def test_error_of_a_part_of_a_block(count):
    """16 dimensions, so that most directions are left out; linear denoisers have the factor exactly, others about."""
    basis = basis_of(16)
    rows = [SpectralProbe(basis, SHORT, count, seed=s).measure(nonlinear, 0, dtype=F64) for s in range(400)]
    values, errors = (np.array([row[name] for row in rows]) for name in ("variance", "standard_error"))
    ratio = np.sqrt((errors**2).mean(0)) / values.std(0)
    assert np.median(ratio) == pytest.approx(1, abs=0.15)


def test_scatter_of_repetitions_is_the_error_of_one_block():
    basis, scatter = basis_of(24), Scatter()
    rows = [SpectralProbe(basis, SHORT, 48, seed=s).measure(nonlinear, 0, dtype=F64)["variance"] for s in range(80)]
    true = np.std(np.log(rows), axis=0, ddof=1)
    assert scatter.relative() is None
    estimates = []
    for seed in range(40):
        pair = [
            SpectralProbe(basis, SHORT, 48, seed=1000 + seed, part=part).measure(nonlinear, 0, dtype=F64)["variance"]
            for part in (0, 1)
        ]
        one = Scatter()
        for found in (one, scatter):
            found.add(*map(torch.from_numpy, pair))
        estimates.append(one.relative().numpy())
    window = np.array([np.sqrt(np.mean(true[max(k - 8, 0) : k + 9] ** 2)) for k in range(24)])
    np.testing.assert_allclose(scatter.relative(), window, rtol=0.2)
    # One pair already, from 9 to 17 modes at a time
    assert np.exp(np.abs(np.log(np.array(estimates) / window)).mean()) < 1.4
    again = Scatter()
    again.load_state_dict(scatter.state_dict())
    assert torch.equal(again.relative(), scatter.relative())
    again.add(torch.tensor([0.0] * 24), torch.ones(24))
    assert torch.equal(again.relative(), scatter.relative())  # what is not positive says nothing


def test_measuring_again_gives_the_same_and_no_gradient_is_kept():
    net = torch.nn.Linear(5, 5).double()
    probe = SpectralProbe(basis_of(5), SHORT, 20)
    before = torch.get_rng_state()
    first, second = (probe.measure(lambda z, s: net(z) / (1 + s[:, None]), 0, dtype=F64) for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert torch.equal(torch.get_rng_state(), before)
    assert net.weight.grad is None


def test_history_takes_rows_and_says_how_they_came_about():
    probe = SpectralProbe(basis_of(5, num_modes=4), SHORT, 20, seed=4)
    gain = probe.gain(nonlinear)
    table = probe.history(gain, weights="raw")
    table.append(**probe.measure(nonlinear, 5, cumulative_learning_rate=0.5))
    about = {"sampler": SHORT.describe(), "fingerprint": probe.basis.fingerprint, "latents": "20 orthogonal, seed 4"}
    assert table.metadata.items() >= {**about, "weights": "raw"}.items()
    np.testing.assert_array_equal(table["levels"], SHORT.levels)
    np.testing.assert_array_equal(table["initial_gain"], gain)
    assert table["cumulative_learning_rate"].tolist() == [0.5]
    np.testing.assert_array_equal(table.target, probe.basis.variance)


def test_bad_arguments():
    with pytest.raises(ValueError, match="`sample_batch_size`"):
        SpectralProbe(basis_of(5), SHORT, sample_batch_size=0)
    with pytest.raises(ValueError, match="`num_samples`"):
        SpectralProbe(basis_of(5), SHORT, 9)


# Bases of which a mode has several observables, on data that are not stationary.


@pytest.mark.parametrize("name", NAMES)
def test_exact_denoiser_gives_the_fixed_point_in_every_basis(name):
    basis = bases()[name]
    probe = SpectralProbe(basis, Sampler(num_steps=10), num_samples=48)
    row = probe.measure(wiener(*moments()), 0, dtype=F64)
    np.testing.assert_allclose(row["variance"], probe.fixed_point, rtol=1e-6)
    # Neither the data's variances nor the sampler's bias at them: the exact denoiser mixes these modes
    assert np.abs(probe.fixed_point / basis.variance.numpy() - 1).max() > 0.01


@pytest.mark.parametrize("name", NAMES)
def test_any_affine_denoiser_is_a_product_of_matrices_in_every_basis(name):
    rng, basis = np.random.default_rng(0), bases()[name]
    a, b, c = rng.standard_normal((24, 24)) / 2, rng.standard_normal((24, 24)) / 2, rng.standard_normal(24)

    def matrix(s):
        return 0.3 * a / (1 + s) + 0.4 * b / (1 + s) ** 2 + 0.2 * np.eye(24)

    def offset(s):
        return c / (1 + s)

    def denoiser(z, sigma):
        s = float(sigma[0])
        return (z.flatten(1) @ torch.from_numpy(matrix(s)).T + torch.from_numpy(offset(s))).reshape(z.shape)

    row = SpectralProbe(basis, SHORT, 96).measure(denoiser, 0, dtype=F64)
    centre = naive_heun(matrix, offset, SHORT.sigmas, np.zeros(24))
    ends = [naive_heun(matrix, offset, SHORT.sigmas, e) - centre for e in 80.0 * np.eye(24)]
    vectors, mode = directions(basis)
    along = vectors.T @ np.stack(ends, axis=1)
    covariance, off = along @ along.T, vectors.T @ (centre - basis.mean.numpy())
    modes = range(len(basis.variance))
    np.testing.assert_allclose(row["variance"], [covariance.diagonal()[mode == k].mean() for k in modes], rtol=1e-9)
    size = off if name in ("pca", "leading") else [np.sqrt((off[mode == k] ** 2).mean()) for k in modes]
    np.testing.assert_allclose(row["mean_deviation"], size, rtol=1e-8, atol=1e-9)
    each = len(mode) // basis.replicates  # coordinates of one replicate
    mean = np.mean([covariance[i : i + each, i : i + each] for i in range(0, len(mode), each)], axis=0)
    assert row["alignment"] == pytest.approx((mean.diagonal() ** 2).sum() / (mean**2).sum(), rel=1e-9)
    assert row["alignment"] < 0.95


@pytest.mark.parametrize("name", NAMES)
def test_gain_of_an_affine_network_is_exact_in_every_basis(name):
    rng, basis = np.random.default_rng(1), bases()[name]
    w, b = (torch.from_numpy(rng.standard_normal(n) / 5) for n in ((24, 24), 24))
    gain = SpectralProbe(basis, SHORT, 48).gain(lambda z, s: (z.flatten(1) @ w.T + b).reshape(z.shape), dtype=F64)
    u, (vectors, mode) = basis.data.vectors.numpy(), directions(basis)
    for level, row in zip(SHORT.levels, gain.numpy(), strict=True):
        noisy = (u * basis.data.variance.numpy()) @ u.T + level**2 * np.eye(24)
        both = (vectors.T @ w.numpy() @ noisy @ vectors).diagonal(), (vectors.T @ noisy @ vectors).diagonal()
        expected = [both[0][mode == k].mean() / both[1][mode == k].mean() for k in range(len(row))]
        # The bias and the mean of the data drop out of antithetic latents, and so do the other modes of orthogonal ones
        np.testing.assert_allclose(row, expected, atol=1e-10)


def odd(z, sigma):
    """Nonlinear and coupled, with samples of mean zero: about another mean the fourth moment's error is too large."""
    flat = z.flatten(1)
    s = sigma[:, None].to(z.dtype)
    return (flat / (1 + s**2) + torch.tanh(0.3 * (flat + flat.roll(1, 1)) / (1 + s))).reshape(z.shape)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fourier", "bands", "patch"])
@pytest.mark.parametrize(("kind", "count"), [("orthogonal", 192), ("independent", 90)])
def test_standard_errors_are_those_of_simulation_in_every_basis(name, kind, count):
    basis, sampler = bases((2, 6), mean=0.0)[name], Sampler("euler", num_steps=4)
    rows = [SpectralProbe(basis, sampler, count, kind, seed=s).measure(odd, 0, dtype=F64) for s in range(200)]
    values, errors = (np.array([row[key] for row in rows]) for key in ("variance", "standard_error"))
    ratio = np.sqrt((errors**2).mean(0)) / values.std(0)
    np.testing.assert_allclose(ratio, 1, atol=0.2)  # 200 runs know it to 5 %


def test_probes_of_one_key_share_their_samples():
    probes = {name: SpectralProbe(basis, SHORT, 50, sample_batch_size=16) for name, basis in bases().items()}
    assert len({probe.sampling_key for probe in probes.values()}) == 1
    samples = probes["pca"].generate(nonlinear)
    assert sum(map(len, samples.chunks.values())) == 50
    assert {(chunk.dtype, chunk.device.type) for chunk in samples.chunks.values()} == {(torch.float32, "cpu")}
    for probe in probes.values():
        row, alone = probe.row(samples, 4, seconds=1.0), probe.measure(nonlinear, 4, seconds=1.0)
        assert row.keys() == alone.keys()
        assert all(np.array_equal(row[name], alone[name]) for name in row)


@pytest.mark.parametrize(
    "change",
    [
        {"num_samples": 48},
        {"latents": "independent"},
        {"seed": 1},
        {"sample_batch_size": 10},
        {"sampler": Sampler(num_steps=7)},
        {"basis": basis_of(24)},
    ],
)
def test_another_key_is_refused(change):
    given = {"basis": bases()["pca"], "sampler": SHORT, "num_samples": 50}
    probe, other = SpectralProbe(**given), SpectralProbe(**{**given, **change})
    assert probe.sampling_key != other.sampling_key
    with pytest.raises(ValueError, match="`samples`"):
        probe.row(other.generate(nonlinear), 0)


def test_another_slice_is_another_key():
    probe, other = (SpectralProbe(basis_of(24), SHORT, 16) for _ in range(2))
    assert probe.sampling_key == other.sampling_key
    other.rotate(1)
    assert probe.sampling_key != other.sampling_key
    with pytest.raises(ValueError, match="`samples`"):
        probe.row(other.generate(nonlinear), 0)
    probe.rotate(1)
    assert probe.row(other.generate(nonlinear), 0)["slice"] == other.latents.first == 8


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("batch", [2, 3, 8, 512])
def test_a_latent_is_always_sampled_under_the_same_condition(size, batch):
    condition, seen = torch.tensor([10, 20, 30]), {}
    basis = PCABasis.from_moments(torch.zeros(4), torch.eye(4))

    def sample(latents, rows):
        for latent, row in zip(latents, rows, strict=True):
            seen.setdefault(latent.numpy().tobytes(), set()).add(row.item())
        return latents

    for rank in range(size):
        ranks = Ranks()
        ranks.rank, ranks.size = rank, size
        probe = SpectralProbe(basis, "given", num_samples=30, sample_batch_size=batch, ranks=ranks)
        probe.generate(sample, condition=condition)
    assert len(seen) == 30
    for i, latent in enumerate(probe.latents.rows(0, 30).float()):
        # Both of an antithetic pair under one row.
        assert seen[latent.numpy().tobytes()] == {condition[i // 2 % 3].item()}
