"""Images and patches: what is computed for the page, on tables whose order is known."""

import numpy as np
import pytest
from scipy import stats

from studies import orders
from studies.catalogue import STUDIES
from tests.support.stored_orders import START, emergence_by_law, half_plane, history, passages, rewritten, store

PATCHES = dict(zip([run.name for run in STUDIES["patches"]], (0.03, 0.3, 0.45, 0.6, 0.05, 0.5, 0.5, 0.04), strict=True))
IMAGES = {"faces_mlp": 0.4, "faces_unet": 0.02, "mnist_mlp": 0.02, "mnist_unet": 0.4}


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


def alpha(table, way):
    """By scipy's regression on passages by a loop."""
    far = table.target > 2 * START if way == "rising" else (table.target < START / 2) & (table.target > 0)
    time = passages(table.steps.astype(float), table.variance[:, far], table.target[far])
    crossed = np.isfinite(time)
    return -stats.linregress(np.log(table.target[far][crossed]), np.log(time[crossed])).slope, crossed.sum()


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    """The trainings of the study with known exponents in every basis."""
    place, (labels, waves) = tmp_path_factory.mktemp("patches"), half_plane(16)
    fourier = 30 / (0.2 + (np.minimum(waves, 16 - waves) ** 2).sum(1)) ** 1.7
    variances = {"spectral": np.geomspace(180, 0.008, 60), "fourier": fourier, "patch": np.geomspace(20, 0.01, 25)}
    results = {}
    for run, exponent in PATCHES.items():
        tables = {}
        for seed, (basis, variance) in enumerate(variances.items()):
            time = emergence_by_law(variance, exponent, 30, 0.05, seed)
            tables[basis] = history(variance, time, labels=labels if basis == "fourier" else None)
        predicted = {name: table for name, table in tables.items() if name != "patch"}
        results |= store(place / run, tables, predicted)
    return results, orders.patches(results)


@pytest.mark.parametrize("run", ["mlp", "full_width_conv", "local_conv", "unet", "dit"])
def test_exponents_of_patches_are_those_of_the_tables(patches, run):
    results, found = patches
    expected, count = alpha(results[f"{run}/fourier" if run.endswith("conv") else run].history, "falling")
    law = found["claims"][run]["found"][1].law
    assert (law.exponent, law.count) == (pytest.approx(expected, abs=1e-5), count)
    assert expected == pytest.approx(PATCHES[run], abs=0.05)
    assert found["claims"][run]["theory"]["falling"].exponent == pytest.approx(expected, abs=1e-5)


def test_claims_about_patches_are_judged(patches):
    verdicts = {run: claim["verdict"] for run, claim in patches[1]["claims"].items()}
    assert verdicts.pop("dit") == "not confirmed"  # nothing was claimed
    assert set(verdicts.values()) == {"confirmed"}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    place, variance = tmp_path_factory.mktemp("images"), np.append(np.geomspace(40, 0.004, 60), 0.0)
    results = {}
    for seed, (run, exponent) in enumerate(IMAGES.items()):
        time = emergence_by_law(np.maximum(variance, 1e-3), exponent, 30, 0.05, seed)
        table = history(np.maximum(variance, 1e-12), time)
        table.static["target"], table.static["null"] = variance, variance <= 0  # and a mode without variance
        both = {"spectral": table, "fourier": table}
        results |= store(place / run, both, both)
    return results, orders.images(results)


@pytest.mark.parametrize("run", IMAGES)
def test_exponents_of_images_are_those_of_the_tables(images, run):
    results, found = images
    for one in found["claims"][run]["found"]:
        expected, count = alpha(results[run].history, one.way)
        assert (one.law.exponent, one.law.count) == (pytest.approx(expected, abs=1e-5), count)
        assert (one.found.status == found["null"]).sum() == 1
    # Digits are the wrong way round.
    assert found["claims"][run]["verdict"] == ("confirmed" if run.startswith("faces") else "not confirmed")


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
