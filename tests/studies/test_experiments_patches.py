"""The order of emergence, its rule, and the limit of a local kernel, each by a route that shares nothing with them."""

import re

import numpy as np
import pytest
from scipy import stats

from spectral_lightning.spectra import SpectralHistory
from studies import patches
from studies.local_limit import circular_modes, local_limit
from studies.ordering import (
    Ordering,
    Orders,
    distance,
    for_good,
    judged,
    rank_correlation,
    rate_ratio,
    returned,
    spread,
    unfinished,
    until_end,
)
from studies.tokens import constant_share, token_order
from tests.support.stored_orders import STEPS, emergence_by_law, half_plane, history, store

RUNS = [run.name for run in patches.EXPERIMENT.runs]
EXPONENTS = dict(zip(RUNS, (0.03, 0.3, 0.45, 0.6, 0.05, 0.5, 0.5, 0.04), strict=True))


def noisy(count, exponent, prefactor=40.0, scatter=0.05, seed=0):
    """Variances below the gray zone and steps about a law."""
    variance = np.geomspace(0.4, 0.004, count)
    noise = np.random.default_rng(seed).normal(size=count)
    return variance, emergence_by_law(variance, exponent, prefactor) * np.exp(scatter * noise)


def falling(directory, variance, time, **changes):
    return Orders({"one": store(directory, {"spectral": history(variance, time, **changes)})})("one")[1]


@pytest.mark.parametrize(
    ("exponent", "scatter", "verdict"),
    [
        (0.45, 0.05, "by variance"),
        (-0.45, 0.05, "against variance"),
        (0.01, 0.1, "together"),
        (0.0, 0.5, "between"),  # 20 modes leave the exponent open
        (0.2, 0.1, "between"),
    ],
)
def test_an_order_is_judged_by_the_intervals(tmp_path, exponent, scatter, verdict):
    variance, time = noisy(20, exponent, 100 if exponent < 0 else 40, scatter)
    assert falling(tmp_path / "a", variance, time).verdict == verdict


def test_modes_of_exponent_zero_that_are_apart_are_not_together(tmp_path):
    variance = np.geomspace(0.4, 0.004, 240)
    time = np.tile([20.0, 40.0, 80.0, 160.0], 60)
    assert falling(tmp_path / "a", variance, time).verdict == "flat, yet spread"


def test_modes_that_wait_keep_an_order_from_being_called_together(tmp_path):
    """The quick half alone would lie together."""
    variance = np.geomspace(0.4, 0.004, 40)
    time = np.where(np.arange(40) < 20, 40.0, 1e9)
    found = falling(tmp_path / "a", variance, time)
    assert found.crossed == "20 of 40"
    assert found.spread.bound
    assert found.verdict != "together"
    assert found.rank.value < -0.8


def test_too_few_modes_decide_nothing(tmp_path):
    found = falling(tmp_path / "a", *noisy(9, 0.5))
    assert found.verdict == "not determinable"
    assert judged("together", [found]) == "not determinable"


def test_a_claim_is_judged_by_every_direction_that_has_an_exponent(tmp_path):
    ordered = falling(tmp_path / "a", *noisy(20, 0.45))
    level = Ordering(falling(tmp_path / "b", *noisy(20, 0.0)).found, "falling", 1000)
    assert judged("by variance", [ordered]) == "confirmed: falling by variance"
    assert judged("together", [ordered, level]).startswith("confirmed: falling together")  # the last one of a direction
    assert judged("together", [ordered]) == "not confirmed: falling by variance"


def test_rank_correlation_is_spearmans_with_ties():
    rng = np.random.default_rng(1)
    variance = rng.lognormal(size=30)
    time = np.where(variance < 0.5, np.inf, np.exp(rng.normal(size=30)) / variance)
    found = rank_correlation(time, variance)
    r = stats.spearmanr(np.where(np.isinf(time), 1e9, time), variance).statistic
    assert found.value == pytest.approx(r, abs=1e-12)
    half = 1.96 * np.sqrt((1 + r**2 / 2) / 27)
    assert np.arctanh([found.low, found.high]) == pytest.approx([np.arctanh(r) - half, np.arctanh(r) + half], rel=1e-3)


def test_the_interval_of_the_rank_correlation_covers_it():
    """Of 400 samples of a bivariate Gaussian of known Spearman correlation, 95 % within the error of counting."""
    rng, pearson = np.random.default_rng(2), -0.6
    truth = 6 / np.pi * np.arcsin(pearson / 2)
    hits = 0
    for _ in range(400):
        x, z = rng.normal(size=(2, 40))
        found = rank_correlation(np.exp(pearson * x + np.sqrt(1 - pearson**2) * z), np.exp(x))
        hits += found.low <= truth <= found.high
    assert hits / 400 == pytest.approx(0.95, abs=0.03)


@pytest.mark.parametrize("count", [5, 8, 30])
def test_a_perfect_order_of_few_modes_has_an_interval(count):
    """As wide as that of an order in which one pair of neighbours is exchanged."""
    variance = np.arange(1.0, count + 1)
    exchanged = 1 / np.concatenate([variance[1::-1], variance[2:]])
    perfect, nearly = rank_correlation(1 / variance, variance), rank_correlation(exchanged, variance)
    assert perfect.value == pytest.approx(-1, abs=1e-12)
    assert perfect.low == pytest.approx(-1, abs=1e-12)
    assert perfect.high == pytest.approx(nearly.high, abs=1e-9)


@pytest.mark.parametrize("token", [2, 4])
def test_share_constant_in_tokens_is_that_of_block_means(token):
    waves, pixels = half_plane(16)[1], np.arange(16)
    for wave, share in zip(waves, constant_share(waves, 16, token), strict=True):
        phase = 2j * np.pi * (wave[0] * pixels[:, None] + wave[1] * pixels[None]) / 16
        means = np.exp(phase).reshape(16 // token, token, 16 // token, token).mean((1, 3))
        assert share == pytest.approx(np.mean(np.abs(means) ** 2), abs=1e-12)


def test_partial_correlations_are_those_of_residuals(tmp_path):
    """Ranks regressed on the other quantity's ranks, and the residuals correlated."""
    labels, waves = half_plane(16)
    variance = 0.3 / (1 + (np.minimum(waves, 16 - waves) ** 2).sum(1)) ** 0.8
    share, rng = constant_share(waves, 16, 2), np.random.default_rng(4)
    time = 20 * np.exp(1.5 * share + 0.3 * np.log(variance) + 0.1 * rng.normal(size=len(variance)))
    order = Orders({"one": store(tmp_path / "a", {"fourier": history(variance, time, labels=labels)})})(
        "one", "fourier"
    )[1]
    kept = order.found.crossed("falling")
    ranks = [stats.rankdata(values[kept]) for values in (order.found.time, variance, share)]
    found = token_order(order, waves, 16, 2)

    def left(values, other):
        line = stats.linregress(other, values)
        return values - line.intercept - line.slope * other

    assert found.variance.value == pytest.approx(stats.spearmanr(ranks[0], ranks[1]).statistic, abs=1e-12)
    assert found.constant.value == pytest.approx(stats.spearmanr(ranks[0], ranks[2]).statistic, abs=1e-12)
    expected = np.corrcoef(left(ranks[0], ranks[1]), left(ranks[2], ranks[1]))[0, 1]
    assert found.constant_alone.value == pytest.approx(expected, abs=1e-12)
    expected = np.corrcoef(left(ranks[0], ranks[2]), left(ranks[1], ranks[2]))[0, 1]
    assert found.variance_alone.value == pytest.approx(expected, abs=1e-12)


def test_spread_is_the_ratio_of_percentiles_and_says_when_it_is_a_bound():
    time = np.exp(np.random.default_rng(3).normal(size=200))
    low, high = np.exp(np.percentile(np.log(time), [10, 90]))
    found = spread(time, 1000)
    assert found.value == pytest.approx(high / low, rel=1e-12)
    assert found.low < found.value < found.high
    assert found.low == pytest.approx(found.value * np.exp(-1.96 * 2 * 0.121), rel=0.15)  # its error for a Gaussian
    assert not found.bound
    assert spread(np.where(time > np.median(time), np.nan, time), 1000).bound


def test_against_its_own_end_a_mode_that_stops_half_way_crosses():
    variance = np.geomspace(0.4, 0.004, 20)
    stopped = np.sqrt(1.2 * variance) * 1.1  # just short of the geometric threshold
    table = history(variance, np.full(20, 50.0), end=stopped)
    towards_data = until_end(table, table.fixed_point)
    assert not towards_data.crossed("falling").any()
    own = until_end(table)
    far = 2 * stopped < 1.2
    assert (own.crossed("falling") == far).all()
    assert own.time[far] == pytest.approx(50.0, rel=0.02)


def test_the_last_passage_is_since_when_a_mode_stays_past():
    """Half of the modes go back over their threshold once; the others never do."""
    variance = np.geomspace(0.4, 0.004, 20)
    table = history(variance, np.full(20, 50.0))
    found = until_end(table, variance)
    back = np.arange(20) % 2 == 0
    rows = [row.copy() for row in table.variance]
    i = int(np.flatnonzero(table.steps > 300)[0])
    rows[i] = np.where(back, 2 * found.threshold, rows[i])
    other = SpectralHistory(table.static, table.metadata)
    for step, row in zip(table.steps, rows, strict=True):
        other.append(step=step, variance=row)
    last = for_good(other, until_end(other, variance))
    assert returned(table, found) == 0
    assert returned(other, found) == 0.5
    assert last.time[~back] == pytest.approx(found.time[~back], rel=1e-12)
    expected = []
    for k in np.flatnonzero(back):  # between the measurement that finds it back and the next
        a, b = np.log(2 * found.threshold[k]), np.log(rows[i + 1][k])
        share = (a - np.log(found.threshold[k])) / (a - b)
        expected.append(np.exp(np.log(table.steps[i]) + share * np.log(table.steps[i + 1] / table.steps[i])))
    assert last.time[back] == pytest.approx(expected, rel=1e-12)
    rows[-1] = np.where(back, 2 * found.threshold, rows[-1])
    final = SpectralHistory(table.static, table.metadata)
    for step, row in zip(table.steps, rows, strict=True):
        final.append(step=step, variance=row)
    assert (for_good(final, until_end(final, variance)).crossed("falling") == ~back).all()


def test_distance_and_unfinished_count_what_is_left():
    variance = np.geomspace(0.4, 0.004, 20)
    table = history(variance, np.array([20.0] * 10 + [900.0] * 10))
    left = np.log(table.variance[-1] / variance)
    assert distance(table, -1) == pytest.approx(np.sqrt(np.mean(left**2)), rel=1e-12)
    assert distance(table, 0) == pytest.approx(np.sqrt(np.mean(np.log(1.2 / variance) ** 2)), rel=1e-12)
    assert unfinished(table, until_end(table, variance)) == 0.5


def test_rates_are_compared_at_equal_learning_rate(tmp_path):
    variance, time = noisy(30, 0.5, 4.0, scatter=0)
    slow = store(tmp_path / "slow", {"fourier": history(variance, 8 * time)}, {"fourier": history(variance, 4 * time)})
    fast = store(tmp_path / "fast", {"fourier": history(variance, time)}, {"fourier": history(variance, time)})
    assert rate_ratio(slow, fast, "fourier").value == pytest.approx(8, rel=0.03)
    assert rate_ratio(slow, fast, "fourier", predicted=True).value == pytest.approx(4, rel=0.03)


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
    assert (circular_modes(table) % side == waves).all()
    power = np.zeros((side, side))
    for (a, b), value in zip(waves, variance, strict=True):
        power[a, b] = power[-a % side, -b % side] = value
    expected = naive_limit(power, table["levels"], 3)[tuple(waves.T)]
    assert local_limit(table, side, 3) == pytest.approx(expected, rel=1e-8)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The runs of the experiment with known exponents in every basis."""
    place, (labels, waves) = tmp_path_factory.mktemp("patches"), half_plane(16)
    fourier = 30 / (0.2 + (np.minimum(waves, 16 - waves) ** 2).sum(1)) ** 1.7
    variances = {"spectral": np.geomspace(180, 0.008, 60), "fourier": fourier, "patch": np.geomspace(20, 0.01, 25)}
    found = {}
    for run, exponent in EXPONENTS.items():
        tables = {}
        for number, (basis, variance) in enumerate(variances.items()):
            noise = np.exp(0.05 * np.random.default_rng(number).normal(size=len(variance)))
            time = emergence_by_law(variance, exponent, 30) * noise
            tables[basis] = history(variance, time, labels=labels if basis == "fourier" else None)
        predicted = {name: table for name, table in tables.items() if name != "patch"}
        found[run] = store(place / run, tables, predicted)
    return found


@pytest.fixture(scope="module")
def report(results):
    return patches.report(results)


def plain_alpha(table):
    """By scipy's regression on passages counted by hand, of the falling modes."""
    middle = np.sqrt(table.variance[0] * table.target)
    chosen, time = [], []
    for k in np.flatnonzero(table.variance[0] > 2 * table.target):
        below = np.flatnonzero(table.variance[:, k] <= middle[k])
        if len(below):
            i = below[0]
            value = np.log(table.variance[[i - 1, i], k])
            share = (value[0] - np.log(middle[k])) / (value[0] - value[1])
            time.append(np.log(table.steps[i - 1]) + share * np.log(table.steps[i] / table.steps[i - 1]))
            chosen.append(np.log(table.target[k]))
    return -stats.linregress(chosen, time).slope, len(chosen)


@pytest.mark.parametrize("run", ["mlp", "full_width_conv", "local_conv", "unet", "dit"])
def test_exponents_of_the_report_are_those_of_the_tables(results, report, run):
    alpha, count = plain_alpha(results[run].history("fourier" if run.endswith("conv") else "spectral"))
    basis, claim = next((basis, said[0]) for name, basis, said, _ in patches._CLAIMS if name == run)
    row = next(row for row in report.rows if row.claim == f"{claim}; {patches._BASES[basis]}")
    said = re.search(r"falling: (-?[\d.]+) \[.*\] \((\d+) of \d+\)", row.measured)
    assert float(said[1]) == pytest.approx(alpha, abs=0.006)
    assert int(said[2]) == count
    assert alpha == pytest.approx(EXPONENTS[run], abs=0.05)
    assert f"{alpha:z.2f}" in report.text


def test_the_claims_are_judged(report):
    verdicts = [row.verdict.split(":")[0] for row in report.rows]
    assert verdicts[:6] == ["confirmed"] * 6
    assert report.rows[-1].verdict == "not confirmed: 0.00 N"  # nothing was made to be quicker by N


def test_the_figure_has_a_panel_for_every_network_and_basis(report):
    assert len(report.figure.axes) == 15
    assert tuple(report.figure.get_size_inches()) <= (10, 6)


def test_the_trainings_differ_in_the_network_alone():
    """Data, steps, schedule and sampler are one; a sampler of the network's own has the tracker's levels."""
    runs = {run.name: run.configuration() for run in patches.EXPERIMENT.runs}
    networks = [runs[name] for name in patches._NETWORKS]
    assert all(one["data"] == networks[0]["data"] for one in networks)
    assert all(one["trainer"]["callbacks"] == networks[0]["trainer"]["callbacks"] for one in networks)
    assert {one["trainer"]["max_steps"] for one in runs.values()} == {patches._STEPS}
    steps = {
        c["init_args"]["sampler"]["num_steps"]
        for one in runs.values()
        for c in one["trainer"]["callbacks"]
        if "sampler" in c["init_args"]
    }
    own = {one["model"]["init_args"].get("sampler", {}).get("num_steps", 12) for one in runs.values()}
    assert steps == own == {12}


def test_the_synthetic_tables_emerge_when_they_shall():
    variance = np.geomspace(0.3, 0.01, 12)
    found = until_end(history(variance, np.full(12, 33.0)), variance)
    assert found.time == pytest.approx(33.0, rel=0.02)
    assert STEPS[-1] == 1000
