"""What explains the exponent: the statistics by other routes, on synthetic tables and on what is stored."""

import math

import numpy as np
import pytest

from spectral_lightning.datamodules import GaussianDataModule
from spectral_lightning.sampling import heun
from spectral_lightning.spectra import SpectralHistory
from studies.catalogue import STUDIES
from studies.exponents import CHANGES, LADDER, change, exponent, placed, rungs
from studies.store import STORE, load
from tests.support.stored_orders import store

STEPS = (*LADDER, *CHANGES)
RUNS = [run.name for run in STUDIES["exponent"]]


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


def test_steps_are_trainings_and_parents_are_steps():
    keys = [step.key for step in STEPS]
    assert {step.name for step in STEPS} == {*RUNS, "mlp"}
    assert len(set(keys)) == len(keys)
    assert all(step.parent in keys[:i] for i, step in enumerate(STEPS) if i)


def made(directory, alpha, factor=1.0, seed=0, trackers=("spectral",)):
    """A training whose modes pass their geometric threshold at ``100 lambda^-alpha``, and a prediction that is later."""
    lam, start = np.geomspace(10, 0.02, 128), np.full(128, 0.25)
    passed = 100 * lam**-alpha * np.exp(0.05 * np.random.default_rng(seed).standard_normal(128))
    tables = []
    for when in (passed, passed * factor):
        history = SpectralHistory({"target": lam, "fixed_point": lam, "null": np.zeros(128, bool)})
        for step in [0, *np.unique(np.geomspace(1, 30_000, 90).round())]:
            share = (step / when) ** 2 / (1 + (step / when) ** 2)
            history.append(step=int(step), variance=start ** (1 - share) * lam**share)
        tables.append(history)
    return store(directory, dict.fromkeys(trackers, tables[0]), dict.fromkeys(trackers, tables[1]))


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    place, alphas = tmp_path_factory.mktemp("store"), {"linear": 1.0, "linear_edm": 0.5, "shared_adam": 0.9}
    trackers = {"mlp_samplers": ("spectral", "open_end")}
    results = {
        name: made(place / name, alphas.get(name, 0.7), seed=seed, trackers=trackers.get(name, ("spectral",)))
        for seed, name in enumerate(RUNS)
    }
    seeds = {f"d128_seed{seed}": made(place / str(seed), 0.7, 2.0, 100 + seed) for seed in range(3)}
    return exponent(results, seeds)


def test_the_page_says_what_was_put_in(synthetic):
    assert synthetic["edm_verdict"] == "confirmed"
    first = synthetic["way"][0]
    assert (first.key, synthetic["way_apart"]) == ("linear_edm_unweighted", True)
    assert synthetic["by"]["geometric"]["moved"][first.key].value == pytest.approx(-0.3, abs=0.05)
    assert synthetic["rungs"]["mlp"].measured("geometric").exponent == pytest.approx(0.7, abs=0.03)
    assert synthetic["rungs"]["mlp"].overlay("geometric").exponent == pytest.approx(0.7, abs=0.03)
    assert "shared_adam" in synthetic["by"]["geometric"]["raised"]
    assert {"linear_edm_unweighted", "linear_edm", "deep_linear"} <= set(synthetic["by"]["geometric"]["lowered"])
    assert synthetic["by"]["geometric"]["spread"] < 0.05


def test_a_value_is_placed_by_the_intervals(synthetic):
    laws = [synthetic["rungs"][key].measured("geometric") for key in ("linear", "linear_edm")]
    assert [placed(laws[:1], value) for value in (0.5, 1.0, 1.5)] == ["above", "agrees with", "below"]
    assert [placed(laws, value) for value in (0.5, 0.75)] == ["scatters about", "about"]


# What is stored, by NumPy alone.


@pytest.fixture(scope="module")
def results():
    return load(STORE / "exponent", RUNS)


@pytest.fixture(scope="module")
def found(results):
    return rungs(results, load(STORE / "gaussian", ["d128_seed0"])["d128_seed0"])


def crossing(steps, table, level):
    """First passage of a rising trajectory, straight in log-log between records."""
    for i in range(1, len(steps)):
        if table[i - 1] < level <= table[i]:
            part = math.log(level / table[i - 1]) / math.log(table[i] / table[i - 1])
            return steps[i - 1] * (steps[i] / steps[i - 1]) ** part if steps[i - 1] else part * steps[i]
    return math.nan


@pytest.mark.parametrize("criterion", ["geometric", "harmonic"])
@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.key)
def test_stored_exponents_by_another_route(found, step, criterion):
    rung = found[step.key]
    with np.load(rung.stored.directory / f"{step.tracker}.npz") as arrays:
        steps, table = arrays["step"], arrays["variance"].astype(float)
        start, end, lam = table[0], arrays["fixed_point"], arrays["target"]
    far = end > 2 * start
    level = np.sqrt(start * end) if criterion == "geometric" else 2 / (1 / start + 1 / end)
    time = np.array([crossing(steps, table[:, k], level[k]) for k in np.flatnonzero(far)])
    good, law = np.isfinite(time), rung.measured(criterion)
    slope = np.polyfit(np.log(lam[far][good]), np.log(time[good]), 1)[0]
    back = sum(
        bool((table[steps >= t, k] < level[k]).any()) for t, k in zip(time, np.flatnonzero(far), strict=True) if t > 0
    )
    determinable = step.name != "mlp_x0"  # its modes go back
    assert (back > 0.05 * good.sum()) is not determinable
    assert (law.count, law.total, law.determinable) == (good.sum(), far.sum(), determinable)
    assert law.exponent == pytest.approx(-slope if determinable else math.nan, abs=1e-6, nan_ok=True)


@pytest.mark.parametrize("step", [step for step in STEPS if step.name != "mlp"], ids=lambda step: step.key)
def test_stored_errors_of_the_overlay_by_another_route(found, step):
    with np.load(found[step.key].stored.directory / f"{step.tracker}.npz") as arrays:
        measured, theory = (arrays[name].astype(float) for name in ("variance", "predicted_variance"))
        end = arrays["fixed_point"]
    far = (end > 2 * measured[0]) | (measured[0] > 2 * end)
    error = np.log(measured[1:, far] / theory[1:, far])  # step 0 is not predicted
    # Both tables are rounded to single precision, by 6e-8 at most.
    assert found[step.key].about["goodness_of_fit"]["rms"] == pytest.approx(
        np.sqrt((error**2).mean()), rel=1e-6, abs=1e-7
    )


def test_the_exact_steps_lie_on_their_theory_put_together_anew(found):
    for name in ("linear", "linear_edm_unweighted", "linear_edm", "linear_edm_zero", "linear_density"):
        assert found[name].share < 1e-3
        measured, theory = found[name].measured("geometric"), found[name].theory("geometric")
        assert theory.exponent == pytest.approx(measured.exponent, abs=0.02)


def test_what_the_linear_step_misses_is_the_mean_of_the_samples():
    """Descent of ``[W b]`` with the samples' own mean, written out, where the theory of zero mean is farthest off."""
    rows = GaussianDataModule(dim=128, seed=0).train_rows.data.double().numpy()
    lam, modes = np.linalg.eigh(np.cov(rows.T, bias=True))
    mean = modes.T @ rows.mean(0)
    with np.load(STORE / "exponent" / "linear" / "spectral.npz") as file:
        arrays = dict(file)
    wrong = np.log(arrays["variance"] / arrays["predicted_variance"])
    row = int((wrong**2).sum(1).argmax())
    maps = {}
    for sigma in arrays["levels"]:
        corner = np.diag(lam + sigma**2) + np.outer(mean, mean)
        second = np.block([[corner, mean[:, None]], [mean[None], np.ones((1, 1))]])
        values, vectors = np.linalg.eigh(second)
        best = np.hstack([np.diag(lam) + np.outer(mean, mean), mean[:, None]]) @ vectors / values
        start = np.hstack([0.1 * np.eye(128), np.zeros((128, 1))]) @ vectors
        left = (1 - 2 * 1.5e-4 * values) ** int(arrays["step"][row])
        maps[float(sigma)] = (best + (start - best) * left) @ vectors.T

    def denoise(z, sigma):
        return z @ maps[sigma][:, :128].T + maps[sigma][:, 128]

    out = heun(denoise, np.vstack([80 * np.eye(128), np.zeros(128)]), [*map(float, arrays["levels"]), 0.0])
    variance = ((out[:-1] - out[-1]) ** 2).sum(0)[::-1]
    right = np.log(arrays["variance"][row] / variance)
    assert np.sqrt((right**2).mean()) < 1e-4 < np.sqrt((wrong[row] ** 2).mean())
