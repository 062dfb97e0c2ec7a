"""Images and patches: what is computed for the page, on tables whose order is known."""

import numpy as np
import pytest
from scipy import stats

from studies import orders
from studies.store import STORE, load
from studies.trainings import NAMES, STUDIES
from tests.support.stored_orders import (
    START,
    arrays,
    check_law,
    emergence_by_law,
    half_plane,
    history,
    passages,
    rewritten,
    store,
)


def test_against_its_own_end_a_mode_that_stops_half_way_crosses():
    variance = np.geomspace(0.4, 0.004, 20)
    stopped = np.sqrt(START * variance) * 1.1  # just short of the geometric threshold
    table = history(variance, np.full(20, 50.0), end=stopped)
    assert not orders.ended(table, table.fixed_point)[1].found.crossed("falling").any()
    own, far = orders.ended(table)[1].found, 2 * stopped < START
    assert (own.crossed("falling") == far).all()
    assert own.time[far] == pytest.approx(50.0, rel=0.02)


def test_progress_counts_modes_that_move_and_modes_that_go_back(tmp_path):
    """Half of the modes are late, and go back over their threshold once; the others never do."""
    variance, back = np.geomspace(0.4, 0.004, 20), np.arange(20) % 2 == 0
    table = history(variance, np.where(back, 200.0, 20.0))
    found, rows = orders.ended(table, variance)[1].found, table.variance.copy()
    i = int(np.flatnonzero(table.steps > 500)[0])
    rows[i] = np.where(back, 2 * found.threshold, rows[i])
    other = rewritten(table, rows)
    last = orders.last_passage(other, orders.ended(other, variance)[1].found)
    assert last.time[~back] == pytest.approx(found.time[~back], rel=1e-12)
    # Between the measurement that finds it back and the next.
    a, b = np.log(2 * found.threshold), np.log(rows[i + 1])
    share = ((a - np.log(found.threshold)) / (a - b))[back]
    step = np.log(table.steps[[i, i + 1]])
    assert last.time[back] == pytest.approx(np.exp(step[0] + share * (step[1] - step[0])), rel=1e-12)
    result = orders.progress(store(tmp_path / "a", {"spectral": other, "fourier": other}), "a")
    left = [np.sqrt(np.mean(np.log(other.variance[row] / variance) ** 2)) for row in (0, -1)]
    assert result["distance"] == pytest.approx(left, rel=1e-6)
    assert (result["returned"], result["moving"], result["last"].count) == (0.5, 0.5, 20)
    rows[-1] = np.where(back, 2 * found.threshold, rows[-1])
    final = rewritten(table, rows)
    assert (orders.last_passage(final, orders.ended(final, variance)[1].found).crossed("falling") == ~back).all()


def test_rates_are_compared_at_equal_learning_rate(tmp_path):
    variance = np.geomspace(0.4, 0.004, 30)
    tables = [history(variance, factor * emergence_by_law(variance, 0.5, 4.0)) for factor in (8, 4, 1)]
    slow = store(tmp_path / "slow", {"spectral": tables[0]}, {"spectral": tables[1]})["slow"]
    fast = store(tmp_path / "fast", {"spectral": tables[2]}, {"spectral": tables[2]})["fast"]
    assert orders.rate_ratio(slow, fast).value == pytest.approx(8, rel=0.03)
    assert orders.rate_ratio(slow, fast, predicted=True).value == pytest.approx(4, rel=0.03)


@pytest.mark.parametrize("token", [2, 4])
def test_share_constant_in_tokens_is_that_of_block_means(token):
    waves, pixels = half_plane(16)[1], np.arange(16)
    for wave, share in zip(waves, orders.constant_share(waves, 16, token), strict=True):
        phase = 2j * np.pi * (wave[0] * pixels[:, None] + wave[1] * pixels[None]) / 16
        means = np.exp(phase).reshape(16 // token, token, 16 // token, token).mean((1, 3))
        assert share == pytest.approx(np.mean(np.abs(means) ** 2), abs=1e-12)


def test_correlations_are_those_of_residuals(tmp_path):
    """Ranks regressed on the other quantity's ranks, and the residuals correlated."""
    labels, waves = half_plane(16)
    variance = 0.3 / (1 + (np.minimum(waves, 16 - waves) ** 2).sum(1)) ** 0.8
    share, rng = orders.constant_share(waves, 16, 2), np.random.default_rng(4)
    time = 20 * np.exp(1.5 * share + 0.3 * np.log(variance) + 0.1 * rng.normal(size=len(variance)))
    order = orders.orders(store(tmp_path / "a", {"spectral": history(variance, time, labels=labels)})["a"])[1]
    kept = order.found.crossed("falling")
    ranks = [stats.rankdata(values[kept]) for values in (order.found.time, variance, share)]

    def left(values, other):
        line = stats.linregress(other, values)
        return values - line.intercept - line.slope * other

    expected = [stats.spearmanr(ranks[0], ranks[k]).statistic for k in (1, 2)]
    for k, other in ((1, 2), (2, 1)):
        expected.append(np.corrcoef(left(ranks[0], ranks[other]), left(ranks[k], ranks[other]))[0, 1])
    found = orders.correlations(order, share)
    assert [one.value for one in found] == pytest.approx(expected, abs=1e-12)


def naive_limit(power, levels, kernel):
    """Kernel by least squares on a dense covariance of circular patches, then Heun by hand, frequency by frequency."""
    side = len(power)
    auto = np.zeros((side, side))
    cycles = np.arange(side)
    for a in range(side):
        for b in range(side):
            wave = np.cos(2 * np.pi * (a * cycles[:, None] + b * cycles[None]) / side)
            auto[a, b] = (power * wave).sum() / side**2
    half = kernel // 2
    taps = [(a, b) for a in range(-half, half + 1) for b in range(-half, half + 1)]
    patch = np.array([[auto[(a - c) % side, (b - d) % side] for c, d in taps] for a, b in taps])
    centre = np.array([tap == (0, 0) for tap in taps], float)
    gains = []
    for sigma in levels:
        weights = np.linalg.solve(patch + sigma**2 * np.eye(len(taps)), patch @ centre)
        gain = np.zeros((side, side))
        for weight, (a, b) in zip(weights, taps, strict=True):
            gain += weight * np.cos(2 * np.pi * (a * cycles[:, None] + b * cycles[None]) / side)
        gains.append(gain)
    z = np.full((side, side), levels[0])
    for i, sigma in enumerate(levels):
        following = levels[i + 1] if i + 1 < len(levels) else 0.0
        slope = (z - gains[i] * z) / sigma
        euler = z + (following - sigma) * slope
        z = euler if following == 0 else z + (following - sigma) * (slope + (1 - gains[i + 1]) * euler / following) / 2
    return z**2


@pytest.mark.parametrize("side", [4, 8])
def test_the_limit_of_a_local_kernel_is_that_of_least_squares(side):
    labels, waves = half_plane(side)
    variance = 5 / (0.2 + (np.minimum(waves, side - waves) ** 2).sum(1))
    table = history(variance, np.full(len(variance), 10.0), labels=labels)
    assert (orders.circular_modes(table) % side == waves).all()
    power = np.zeros((side, side))
    for (a, b), value in zip(waves, variance, strict=True):
        power[a, b] = power[-a % side, -b % side] = value
    expected = naive_limit(power, table["levels"], 3)[tuple(waves.T)]
    assert orders.local_limit(table, side, 3) == pytest.approx(expected, rel=1e-8)


# What is stored, by NumPy and SciPy alone.

CLAIMS = [*(("patches", run, *claim) for run, claim in NAMES["claimed"].items())]
CLAIMS += [
    ("images", f"{data}_{network}", *NAMES["claimed"][network])
    for data in NAMES["images"]
    for network in ("mlp", "unet")
]


@pytest.fixture(scope="module")
def found():
    results = {study: load(STORE / study, [run.name for run in STUDIES[study]]) for study in ("patches", "images")}
    return {"patches": orders.patches(results["patches"]), "images": orders.images(results["images"])}


@pytest.mark.parametrize(("study", "run", "basis", "claimed"), CLAIMS)
def test_stored_orders_by_another_route(found, study, run, basis, claimed):
    stored, claim = arrays(study, run, basis), found[study]["claims"][run]
    start, end = stored["variance"][0], stored["fixed_point"]
    for one in claim["found"]:
        far = (end > 2 * start if one.way == "rising" else (2 * end < start)) & ~stored["null"].astype(bool)
        time, variance = passages(stored["step"], stored["variance"][:, far], end[far]), stored["target"][far]
        good = np.isfinite(time)
        check_law(one.law, variance, time)
        if one.law.never == 0 and one.law.count == good.sum() > 10:
            waits = np.where(good, time, np.inf)
            assert one.rank.value == pytest.approx(stats.spearmanr(waits, variance).statistic, abs=0.05)
    verdicts = {one.verdict for one in claim["found"] if one.known}
    assert (claim["verdict"] == "confirmed") == (verdicts == {claimed})


def test_the_stored_rate_of_sharing_by_another_route(found):
    times = []
    for run in ("linear_descent", "full_width_descent"):
        stored = arrays("patches", run, "fourier")
        far = np.abs(np.log(stored["fixed_point"] / stored["variance"][0])) > np.log(2)
        time = passages(stored["step"], stored["variance"], stored["fixed_point"])
        rate = stored["cumulative_learning_rate"][-1] / stored["step"][-1]
        times.append(np.where(far, rate * time, np.nan))
    assert found["patches"]["rate"].value == pytest.approx(np.nanmedian(times[0] / times[1]), rel=1e-6)


@pytest.mark.parametrize("study", ["patches", "images"])
def test_networks_on_one_data_set_differ_in_nothing_else(study):
    """Data, steps, schedule and sampler are one; a sampler of the network's own has the tracker's levels."""
    groups = {}
    for run in STUDIES[study]:
        one = run.configuration()
        model = one.pop("model")["init_args"]
        steps = {c["init_args"]["sampling"]["sampler"]["num_steps"] for c in one["trainer"]["callbacks"][::2]}
        assert steps == {model.get("sampler", {}).get("num_steps", 12)}
        one["trainer"].pop("logger")
        data = run.name.partition("_")[0] if study == "images" else "descent" if "descent" in run.name else "patches"
        trainer = {key: one["trainer"][key] for key in ("max_steps", "callbacks")}
        groups.setdefault(data, []).append((one["data"], trainer))
    assert all(other == group[0] for group in groups.values() for other in group)
