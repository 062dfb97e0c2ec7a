"""What explains the exponent: the statistics by other routes, the networks between, and the theory of a shared layer."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer

from spectral_lightning.datamodules import GaussianDataModule
from spectral_lightning.diffusion import GridNoise, LogNormalNoise
from spectral_lightning.models import ResidualMLP
from spectral_lightning.sampling import Sampler, heun
from spectral_lightning.spectra import SpectralHistory
from spectral_lightning.theory import OneLayer, Preconditioning
from studies.exponent import RUNS
from studies.exponent_report import report
from studies.ladder import changes, rungs
from studies.networks import (
    EmpiricalLinearDenoiser,
    LogUniformNoise,
    RescaledNoiseMLP,
    ResidualLinear,
    SharedLinearDenoiser,
)
from studies.results import Stored
from studies.rungs import CHANGES, LADDER, change
from studies.running import STORE
from studies.shared_layer import SharedLayer, features

F64 = torch.float64
CPU = torch.device("cpu")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# The statistics.


def test_a_change_is_the_difference_of_two_fits_and_its_interval_that_of_a_naive_bootstrap():
    rng = np.random.default_rng(3)
    lam = np.geomspace(0.1, 10, 40)
    parent = 100 * lam**-0.5 * np.exp(0.2 * rng.standard_normal(40))
    child = 50 * lam**-0.9 * np.exp(0.1 * rng.standard_normal(40))
    child[3], parent[7] = np.nan, np.nan
    both = np.isfinite(child) & np.isfinite(parent)
    x = np.log(lam[both])

    def difference(rows):
        slopes = [np.polyfit(x[rows], np.log(times[both])[rows], 1)[0] for times in (child, parent)]
        return slopes[1] - slopes[0]

    found = change(lam, child, parent)
    assert found.count == 38
    assert found.value == pytest.approx(difference(np.arange(38)), rel=1e-10)
    draws = [difference(rng.integers(38, size=38)) for _ in range(1500)]
    # Percentiles of 1,500 and 2,000 draws: 5 % of the interval's width
    width = found.high - found.low
    np.testing.assert_allclose([found.low, found.high], np.quantile(draws, [0.025, 0.975]), atol=0.12 * width)
    assert found.shown
    same = change(lam, parent * 2, parent)
    assert (same.count, same.shown) == (39, False)
    assert same.value == pytest.approx(0, abs=1e-12)


def test_no_change_from_few_modes_or_a_narrow_range():
    lam = np.geomspace(0.1, 10, 40)
    few = np.where(np.arange(40) % 5 == 0, 1 / lam, np.nan)
    assert (change(lam, few, 1 / lam).count, change(lam, few, 1 / lam).determinable) == (8, False)
    assert not change(np.geomspace(1, 5, 40), 1 / lam, 1 / lam).determinable


# The theory of a shared layer.


@pytest.mark.parametrize("share", [0.0, 0.65, 1.0])
def test_features_of_one_level_have_norm_one_and_those_of_distant_levels_share(share):
    phi = features(np.log([0.002, 0.37, 80.0]), 8, share)
    expected = np.array([[1, share, share], [share, 1, share], [share, share, 1]])
    np.testing.assert_allclose(phi @ phi.T, expected, atol=0.01)


def naive_gain(steps, rate, lam, sigma, levels, probability, share):
    """Descent on the expected loss of one mode over noise levels, gradients by central differences; EDM written out."""

    def denoiser(q, s):
        phi = features(np.log(s), 8, share)
        root = s**2 + 0.25
        return 0.25 / root + 0.5 * s / root * (phi @ q)

    def loss(q):
        gain = denoiser(q, levels)
        weight = (levels**2 + 0.25) / (0.5 * levels) ** 2
        return (probability * weight * ((1 - gain) ** 2 * lam + gain**2 * levels**2)).sum()

    q, h = np.zeros(9), 1e-4
    for _ in range(steps):
        gradient = [(loss(q + h * e) - loss(q - h * e)) / (2 * h) for e in np.eye(9)]
        q = q - rate * np.array(gradient)
    return denoiser(q, np.asarray(sigma))


@pytest.mark.parametrize("grid", [True, False])
def test_the_shared_layer_is_descent_on_the_expected_loss(grid):
    if grid:
        levels, probability = np.array([10.0, 1.0, 0.3, 0.05]), np.array([0.1, 0.4, 0.3, 0.2])
        noise = GridNoise(levels.tolist(), probability.tolist())
    else:
        u = np.linspace(-1.2 - 8 * 1.2, -1.2 + 8 * 1.2, 1201)
        density = np.exp(-((u + 1.2) ** 2) / (2 * 1.44))
        levels, probability, noise = np.exp(u), density / density.sum(), LogNormalNoise()
    theory = SharedLayer(0.02, noise, share=0.5)
    for lam in (4.0, 0.2):
        expected = naive_gain(30, 0.02, lam, [5.0, 0.4], levels, probability, 0.5)
        # Gauss and Hermite with 100 nodes
        np.testing.assert_allclose(theory.weight(30, [5.0, 0.4], lam), expected, rtol=1e-5)


def test_levels_that_share_nothing_are_independent_layers():
    """Two levels at two centres far apart: each is the one layer, at the rate of its probability."""
    levels, share = [80.0, 0.002], [0.3, 0.7]
    theory = SharedLayer(0.05, GridNoise(levels, share), share=0.0)
    often = dict(zip(levels, share, strict=True))
    density = np.vectorize(lambda s: often[float(s)])
    single = OneLayer(0.05, 0.0, Preconditioning("edm"), noise_density=density, discrete=True)
    variance = np.array([3.0, 0.5])
    np.testing.assert_allclose(theory.weight(9, levels, variance), single.weight(9, levels, variance), rtol=1e-6)


@pytest.mark.parametrize("levels", [True, False])
def test_a_step_of_the_shared_network_on_many_samples_is_the_theorys(levels):
    sampler = Sampler(num_steps=5, sigma_min=0.1, sigma_max=5.0) if levels else None
    module = SharedLinearDenoiser(3, sampler=sampler).double()
    theory, variance = module.dynamics(), np.array([4.0, 1.0, 0.2])
    torch.manual_seed(0)
    data = torch.randn(200_000, 3, dtype=F64) * torch.tensor(variance).sqrt()
    optimizer = module.configure_optimizers()
    module.loss(data).backward()
    optimizer.step()
    for sigma in (5.0, 0.5):
        out = module.denoise(torch.eye(3, dtype=F64), torch.full((3,), sigma, dtype=F64)).diag().detach().numpy()
        before = theory.weight(0, sigma, variance)
        moved = theory.weight(1, sigma, variance) - before
        np.testing.assert_allclose(out - before, moved, atol=0.03 * np.abs(moved).max())  # 200,000 samples


def test_distant_noise_levels_share_two_thirds_of_the_mlps_gradients():
    """The share that the shared networks are given: cosine of the gradients of one output at two noise levels."""
    cosines = []
    for seed in range(3):
        torch.manual_seed(seed)
        network, x = ResidualMLP(128, 256, 5, 256), torch.randn(1, 128)
        gradients = []
        for sigma in (80.0, 2.0, 0.05):
            network.zero_grad()
            network(x, torch.tensor([sigma]).log() / 4)[0, seed].backward()
            gradients.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
        unit = torch.stack([g / g.norm() for g in gradients])
        cosines += (unit @ unit.T)[np.triu_indices(3, 1)].tolist()
    assert np.mean(cosines) == pytest.approx(0.65, abs=0.06)


# The networks between.


def test_the_residual_network_without_nonlinearities_is_affine():
    torch.manual_seed(0)
    network, noise = ResidualLinear(6, 10, 3, 8).double(), torch.tensor([0.3, -1.0], dtype=F64)
    x, y = torch.randn(2, 2, 6, dtype=F64)
    zero = network(torch.zeros(2, 6, dtype=F64), noise)
    torch.testing.assert_close(
        network(2 * x - 3 * y, noise) - zero, 2 * (network(x, noise) - zero) - 3 * (network(y, noise) - zero)
    )
    one, other = (network(x[:1], n[None]) for n in noise)
    assert not torch.allclose(one, other)


def test_the_noise_level_is_hidden_from_the_blind_network_only():
    torch.manual_seed(0)
    blind, same = RescaledNoiseMLP(4, 8, 2, 6, factor=0.0), RescaledNoiseMLP(4, 8, 2, 6)
    plain = ResidualMLP(4, 8, 2, 6)
    plain.load_state_dict(same.state_dict())
    x, noise = torch.randn(3, 4), torch.tensor([-1.0, 0.0, 1.0])
    assert torch.equal(same(x, noise), plain(x, noise))
    assert torch.equal(blind(x, noise), blind(x, noise.flip(0)))
    assert not torch.equal(same(x, noise), same(x, noise.flip(0)))


def test_the_exact_objective_is_that_of_the_training_samples():
    data = GaussianDataModule(dim=3, num_samples=20, num_val_samples=0, batch_size=4)
    module = EmpiricalLinearDenoiser(3, sigmas=[1.0, 0.5])
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    Trainer(accelerator="cpu", max_steps=1, enable_model_summary=False, **quiet).fit(module, datamodule=data)
    rows = data.train_rows.data.double().numpy()
    mean, covariance = module._moments
    np.testing.assert_allclose(mean, rows.mean(0), atol=1e-12)
    np.testing.assert_allclose(covariance, np.cov(rows.T, bias=True), rtol=1e-10, atol=1e-12)


def test_log_uniform_noise_is_even_in_log_sigma():
    torch.manual_seed(0)
    noise = LogUniformNoise()
    log = noise.sample(20_000, CPU).log().double().numpy()
    low, high = math.log(0.002), math.log(80)
    assert low <= log.min() < low + 0.01
    assert high - 0.01 < log.max() <= high
    assert np.mean(log) == pytest.approx((low + high) / 2, abs=4 * (high - low) / math.sqrt(12 * 20_000))
    assert float(noise.density(1.0)) == pytest.approx(1 / (high - low))
    assert float(noise.density(100.0)) == 0


# The report.


def made(directory, steps, alpha, factor=1.0, seed=0):
    """A training whose modes pass their geometric threshold at ``100 lambda^-alpha``, and a prediction that is later."""
    lam = np.geomspace(10, 0.02, 128)
    start = np.full(128, 0.25)
    rng = np.random.default_rng(seed)
    passed = 100 * lam**-alpha * np.exp(0.05 * rng.standard_normal(128))
    for name, when in (("spectral", passed), ("spectral_theory", passed * factor)):
        history = SpectralHistory({"target": lam, "fixed_point": lam, "null": np.zeros(128, bool)})
        for step in steps:
            share = (step / when) ** 2 / (1 + (step / when) ** 2)
            history.append(step=int(step), variance=start ** (1 - share) * lam**share)
        directory.mkdir(parents=True, exist_ok=True)
        history.save(directory / f"{name}.npz")
    about = {
        "theory": "OneLayer(learning_rate=1)",
        "scale": 1.0,
        "goodness_of_fit": {"rms": 0.1 * factor, "baseline": 1.0, "cells": 10},
    }
    document = {"configuration": "", "seconds": 1.0, "tracking_seconds": 0.5}
    (directory / "run.json").write_text(json.dumps({**document, "overlay": {"spectral": about, "open_end": about}}))


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    store = tmp_path_factory.mktemp("store")
    steps = [0, *np.unique(np.geomspace(1, 30_000, 90).round())]
    alpha = {"linear": 1.0, "linear_edm": 0.5, "shared_adam": 0.9}
    for number, name in enumerate(sorted({step.name for step in (*LADDER, *CHANGES)})):
        place = store / ("gaussian/d128_seed0" if name == "mlp" else f"exponent/{name}")
        made(place, steps, alpha.get(name, 0.7), 1.0 + (name == "mlp"), number)
    for suffix in ("", "_theory"):
        whole = (store / "exponent/mlp_samplers" / f"spectral{suffix}.npz").read_bytes()
        (store / "exponent/mlp_samplers" / f"open_end{suffix}.npz").write_bytes(whole)
    return {run.name: Stored(store / "exponent" / run.name) for run in RUNS}


def test_the_report_says_what_was_put_in(synthetic):
    found = report(synthetic)
    by = {row.claim.partition(" (")[0]: row for row in found.rows}
    assert len(found.rows) == len(by) == 6
    preconditioning = found.rows[0]
    assert preconditioning.verdict == "confirmed"
    assert preconditioning.measured.startswith("1.0")
    way = by["Which single change on the way from the linear network to the MLP moves the exponent most"]
    assert float(way.measured.removeprefix("EDM coefficients ").split()[0]) == pytest.approx(-0.3, abs=0.05)
    assert way.verdict == "EDM coefficients, apart from the next"
    criterion = next(row for row in found.rows if row.claim.startswith("The exponent depends on the criterion"))
    assert criterion.measured.startswith("0.7")
    assert all(f"`{step.key}`" in found.text for step in (*LADDER, *CHANGES))
    assert "nan" not in found.text.lower()
    assert len(found.figure.axes) == 2


def test_steps_are_runs_and_parents_are_steps():
    names = {run.name for run in RUNS}
    assert {step.name for step in (*LADDER, *CHANGES)} == names | {"mlp"}
    keys = [step.key for step in (*LADDER, *CHANGES)]
    assert len(set(keys)) == len(keys)
    assert all(step.parent in keys[:i] for i, step in enumerate((*LADDER, *CHANGES)) if i)


# What is stored, by NumPy alone.


def crossing(steps, table, level):
    """First passage of a rising trajectory, straight in log-log between records."""
    for i in range(1, len(steps)):
        if table[i - 1] < level <= table[i]:
            if steps[i - 1] == 0:
                part = math.log(level / table[0]) / math.log(table[i] / table[0])
                return part * steps[i]
            part = math.log(level / table[i - 1]) / math.log(table[i] / table[i - 1])
            return steps[i - 1] * (steps[i] / steps[i - 1]) ** part
    return math.nan


def exponent(file, criterion):
    """Of the rising modes outside the gray zone."""
    arrays = np.load(file)
    table, lam, end = arrays["variance"], arrays["target"], arrays["fixed_point"]
    start, x, y = table[0], [], []
    for k in range(len(lam)):
        if end[k] > 2 * start[k]:
            mean = math.sqrt(start[k] * end[k]) if criterion == "geometric" else 2 / (1 / start[k] + 1 / end[k])
            x.append(lam[k])
            y.append(crossing(arrays["step"], table[:, k], mean))
    good = np.isfinite(y)
    return -np.polyfit(np.log(x)[good], np.log(y)[good], 1)[0], int(good.sum()), len(x)


STORED = [step for step in (*LADDER, *CHANGES) if step.name != "mlp"]
there = pytest.mark.skipif(
    not all((STORE / "exponent" / run.name / "run.json").is_file() for run in RUNS), reason="not all trained yet"
)


@there
@pytest.mark.parametrize("step", STORED, ids=lambda step: step.key)
@pytest.mark.parametrize("criterion", ["geometric", "harmonic"])
def test_stored_exponents_by_another_route(step, criterion):
    results = {run.name: Stored(STORE / "exponent" / run.name) for run in RUNS}
    law = rungs(results)[step.key].measured(criterion)
    alpha, count, total = exponent(Path(STORE / "exponent" / step.name / f"{step.tracker}.npz"), criterion)
    assert (law.count, law.total) == (count, total)
    if law.determinable:
        assert law.exponent == pytest.approx(alpha, abs=1e-6)


@there
def test_stored_errors_of_the_overlay_by_another_route():
    results = {run.name: Stored(STORE / "exponent" / run.name) for run in RUNS}
    for step in STORED:
        files = STORE / "exponent" / step.name
        measured, theory = (np.load(files / f"{step.tracker}{end}.npz") for end in ("", "_theory"))
        start, end = measured["variance"][0], measured["fixed_point"]
        far = (end > 2 * start) | (start > 2 * end)
        error = np.log(measured["variance"][1:, far] / theory["variance"][1:, far])  # step 0 is not predicted
        stored = results[step.name].goodness(step.tracker)
        assert stored["rms"] == pytest.approx(float(np.sqrt((error**2).mean())), rel=1e-6)


@there
def test_the_exact_steps_lie_on_their_theory_put_together_anew():
    results = {run.name: Stored(STORE / "exponent" / run.name) for run in RUNS}
    found = rungs(results)
    for name in ("linear", "linear_edm_unweighted", "linear_edm", "linear_edm_zero", "linear_density"):
        fit = results[name].goodness()
        assert fit["rms"] < 1e-3 * fit["baseline"]
        measured, theory = found[name].measured("geometric"), found[name].theory("geometric")
        assert theory.exponent == pytest.approx(measured.exponent, abs=0.02)
    assert changes(found, "geometric").keys() == {step.key for step in (*LADDER[1:], *CHANGES)}


@there
def test_what_the_linear_step_misses_is_the_mean_of_the_samples():
    """Descent of ``[W b]`` with the samples' own mean, written out, where the theory of zero mean is farthest off."""
    rows = GaussianDataModule(dim=128, seed=0).train_rows.data.double().numpy()
    lam, modes = np.linalg.eigh(np.cov(rows.T, bias=True))
    mean = modes.T @ rows.mean(0)
    measured, theory = (np.load(STORE / "exponent" / "linear" / f"spectral{end}.npz") for end in ("", "_theory"))
    wrong = np.log(measured["variance"] / theory["variance"])
    row = int((wrong**2).sum(1).argmax())
    maps = {}
    for sigma in measured["levels"]:
        second = np.block(
            [[np.diag(lam + sigma**2) + np.outer(mean, mean), mean[:, None]], [mean[None], np.ones((1, 1))]]
        )
        values, vectors = np.linalg.eigh(second)
        best = np.hstack([np.diag(lam) + np.outer(mean, mean), mean[:, None]]) @ vectors / values
        start = np.hstack([0.1 * np.eye(128), np.zeros((128, 1))]) @ vectors
        maps[float(sigma)] = (
            best + (start - best) * (1 - 2 * 1.5e-4 * values) ** int(measured["step"][row])
        ) @ vectors.T

    def denoise(z, sigma):
        return z @ maps[sigma][:, :128].T + maps[sigma][:, 128]

    grid = [*map(float, measured["levels"]), 0.0]
    out = heun(denoise, np.vstack([80 * np.eye(128), np.zeros(128)]), grid)
    variance = ((out[:-1] - out[-1]) ** 2).sum(0)[::-1]
    right = np.log(measured["variance"][row] / variance)
    assert np.sqrt((right**2).mean()) < 1e-4 < np.sqrt((wrong[row] ** 2).mean())
