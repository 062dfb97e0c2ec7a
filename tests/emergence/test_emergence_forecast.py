"""Forecasts recover laws they assume, by routes of their own; say what is missing; and choose what has predicted best."""

import numpy as np
import pytest
from scipy import optimize, special, stats

from spectral_lightning.emergence import Forecast, forecast
from spectral_lightning.emergence.forecasting import METHODS, Curves
from spectral_lightning.emergence.forecasting.methods import Seen, censored_regression

STEPS = np.r_[0, np.geomspace(1, 100, 31)]
LAM = np.geomspace(10, 0.1, 24)
TAU = 60 * LAM**-0.6


def logistic(tau, steps=STEPS, w=2.0):
    """Progress of modes that pass halfway at tau."""
    with np.errstate(divide="ignore"):
        return 1 / (1 + (steps[:, None] / tau) ** -w)


def arguments(progress, lam=LAM, steps=STEPS, **changes):
    v0 = np.full(len(lam), 1e-3)
    ones = np.ones(len(lam), int)
    return {
        "steps": steps,
        "variance": v0 * (lam / v0) ** progress,
        "initial": v0,
        "target": lam,
        "threshold": np.sqrt(v0 * lam),
        "direction": ones,
        "eligible": ones > 0,
        "mode_variance": lam,
        **changes,
    }


def seen(progress, lam=LAM, theory=None, row=-1):
    given = arguments(progress, lam)
    del given["eligible"]
    theory = np.full(len(lam), np.nan) if theory is None else theory
    curves = Curves.measured(**given, theory=theory)
    return Seen(curves, range(len(curves.log_step))[row])


def negative_log_likelihood(parameters, x, y, censored):
    *b, log_scatter = parameters
    u = (x @ b - y) / np.exp(log_scatter)
    return -np.where(censored, special.log_ndtr(u), -log_scatter - u**2 / 2).sum()


@pytest.mark.parametrize(("seed", "share"), [(0, 0.3), (1, 0.6), (2, 0.9)])
def test_censored_regression_is_the_maximum_of_the_likelihood(seed, share):
    rng = np.random.default_rng(seed)
    x = np.stack([np.ones(80), rng.standard_normal(80)], axis=1)
    y = x @ [1.0, -2.0] + 0.5 * rng.standard_normal(80)
    censored = y > np.quantile(y, 1 - share)
    y = np.minimum(y, np.quantile(y, 1 - share))
    b, scatter, value = censored_regression(x, y, censored)
    best = optimize.minimize(negative_log_likelihood, [0, 0, 0], (x, y, censored), options={"gtol": 1e-8})
    assert [*b, np.log(scatter)] == pytest.approx(best.x, abs=2e-3)
    assert (value[censored] > y[censored]).all()
    assert (value[~censored] == y[~censored]).all()


@pytest.mark.parametrize("method", ["curve", "shift", "pace", "mean"])
def test_methods_of_logistic_progress_are_exact_for_it(method):
    now = seen(logistic(TAU))
    open_ = now.curves.progress[-1] > 0.05
    assert 5 < (open_ & ~now.crossed).sum() < 20
    error = METHODS[method](now)[open_ & ~now.crossed] - np.log(TAU[open_ & ~now.crossed])
    assert np.abs(error).max() < (0.05 if method == "mean" else 1e-6)


def test_a_pace_of_its_own_counts_half():
    """Two modes at the same place, one of which has stopped: z = 0 is as far off as the mean of both paces says."""
    progress = logistic(TAU)
    progress[-12:, -1] = progress[-12, -1] = 0.2
    now = seen(progress)
    assert now.curves.pace[-1, -1] == pytest.approx(0, abs=1e-9)
    left = special.logit(0.5) - special.logit(0.2)
    assert now.pace[-1] - now.now == pytest.approx(left / (now.common_pace / 2))
    assert now.shift[-1] - now.now == pytest.approx(left / now.common_pace)


@pytest.mark.parametrize(("method", "theory"), [("law", None), ("theory", 7 * TAU**0.5)])
def test_lines_find_a_power_of_what_they_go_by(method, theory):
    """Modes jump, so that those still to come show no progress; most are censored. Records are 15 % apart."""
    tau = 3 * TAU
    now = seen(np.where(STEPS[:, None] >= tau, 0.9, 0.0), theory=theory)
    assert now.crossed.sum() == 7
    predicted = METHODS[method](now)[~now.crossed]
    assert np.abs(predicted - np.log(tau[~now.crossed])).max() < 0.3
    assert np.polyfit(np.log(LAM[~now.crossed]), predicted, 1)[0] == pytest.approx(-0.6, abs=0.1)


def test_the_regression_learns_that_every_mode_has_its_own_pace():
    now = seen(logistic(TAU, w=np.random.default_rng(0).permutation(np.linspace(1, 3, 24))))
    chosen = ~now.crossed & (now.curves.progress[-1] > 0.1)
    errors = {name: np.abs(METHODS[name](now) - np.log(TAU))[chosen].max() for name in ("pace", "shift", "regression")}
    assert errors["regression"] < 0.8 * min(errors["pace"], errors["shift"])


def test_the_method_that_predicted_best_is_used_and_the_scores_say_so():
    """Modes jump without notice, at random steps that only the theory knows: nothing else can predict them."""
    tau = np.random.default_rng(0).permutation(np.geomspace(3, 300, 24))
    found = forecast(**arguments(np.where(STEPS[:, None] >= tau, 0.9, 0.06)), theory=5 * tau)
    (course,) = found.courses
    assert course.method == "theory"
    assert course.tests == 4
    assert course.scores["theory"] < 0.1 < min(course.scores[name] for name in ("law", "curve", "pace", "now"))
    assert np.abs(np.log(found.step / tau))[~found.learnt].max() < 0.15


def test_intervals_widen_with_horizon_and_confidence_and_end_at_infinity_for_a_mode_that_stopped():
    progress = logistic(TAU)
    progress[-12:, 20] = progress[-12, 20] = 0.15
    ends = [forecast(**arguments(progress), confidence=c) for c in (0.5, 0.8, 0.9)]
    open_ = ~ends[1].learnt & (np.arange(24) != 20) & np.isfinite(ends[1].step)
    for narrow, wide in zip(ends[:-1], ends[1:], strict=True):
        assert (wide.low <= narrow.low)[open_].all()
        assert (wide.high > narrow.high)[open_].all()
    width = np.log(ends[1].high / ends[1].step)[open_]
    assert (np.diff(width) > 0).all()
    assert np.isinf(ends[1].high[20])
    assert ((ends[1].low <= TAU) & (ends[1].high >= TAU))[open_].all()


def test_both_directions_are_forecast_apart():
    progress, falling = logistic(TAU), np.arange(24) % 2 == 1
    v0 = np.where(falling, 1e3 * LAM, 1e-3 * LAM)
    given = arguments(progress, initial=v0, variance=v0 * (LAM / v0) ** progress, threshold=np.sqrt(v0 * LAM))
    found = forecast(**{**given, "direction": np.where(falling, -1, 1)})
    assert [course.way for course in found.courses] == ["rising", "falling"]
    late = ~found.learnt & (TAU < 400)
    assert found.step[late] == pytest.approx(TAU[late], rel=0.02)


def by_hand(**changes):
    step = np.array([10, 20, 200, np.inf, np.nan])
    given = {
        "now": 50.0,
        "end": 300.0,
        "step": step,
        "low": np.array([10, 20, 150, 400, np.nan]),
        "high": np.array([10, 20, 500, np.inf, np.nan]),
        "learnt": step < 50,
        "eligible": np.array([True, True, True, True, False]),
        "target": np.array([6.0, 2.0, 1.0, 1.0, 90.0]),
        "courses": (),
        "confidence": 0.8,
        "least_variance": 1.0,
    }
    return Forecast(**{**given, **changes})


def test_shares_and_the_step_to_a_share_are_counted_by_hand():
    found = by_hand()
    assert found.share_of_modes() == (0.5, 0.5, 0.5)
    assert found.share_of_modes(300) == (0.75, 0.5, 0.75)
    assert found.share_of_modes(1e9) == (0.75, 0.75, 1.0)
    assert found.share_of_variance() == (0.8, 0.8, 0.8)
    assert found.share_of_variance(300) == (0.9, 0.8, 0.9)
    assert found.reach(0.75) == (200, 150, 500)
    assert found.reach(0.5) == (20, 20, 20)
    assert found.reach(0.9) == (np.inf, 400, np.inf)


@pytest.mark.parametrize(
    ("changes", "late", "said"),
    [
        ({}, [3], "before 1 of the 4 modes with a variance of 1 or more"),
        ({"end": 100.0}, [2, 3], "not in sight"),
        ({"end": 100.0, "least_variance": 2.0}, [], ""),
        ({"end": np.nan}, [], ""),
    ],
)
def test_a_training_that_stops_too_early_is_warned_about(changes, late, said):
    found = by_hand(**changes)
    assert np.flatnonzero(found.late).tolist() == late
    assert said in " ".join(found.warnings)
    assert bool(found.warnings) == bool(late)


def test_an_order_against_variance_is_warned_about():
    for tau, warned in ((TAU, False), (TAU[::-1], True)):
        warnings = forecast(**arguments(logistic(tau))).warnings
        assert any("order of their variance" in why for why in warnings) == warned


def test_modes_that_went_back_are_warned_about():
    progress = logistic(TAU)
    progress[-1] -= 0.2 * (progress[-1] < 0.5) * (progress[-1] > 0.2)
    assert any("gone back" in why for why in forecast(**arguments(progress)).warnings)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("rows", "modes", "value", "said"),
    [
        (0, 5, 0.0, "nothing was measured after step 0"),
        (1, 5, 0.0, "nothing was measured after step 0"),
        (2, 5, 0.0, "only 0 of 5"),
        (32, 5, np.nan, "only 0 of 5"),
        (32, 5, -np.inf, "only 0 of 5"),
        (32, 5, 0.0, "only 0 of 5"),
        (32, 2, 0.2, "only 0 of 2"),
        (32, 1, 0.2, "no forecast of this run can be checked yet"),
    ],
)
def test_what_is_missing_is_said(rows, modes, value, said):
    given = arguments(np.full((rows, modes), value), LAM[:modes], STEPS[:rows])
    found = forecast(**given, end=200)
    assert any(said in why for why in found.warnings)
    assert any("Training ends at step 200" in why for why in found.warnings)
    assert not found.learnt.any()
    assert np.isinf(found.high).all()
    assert np.isinf(found.step).all() or value == 0.2
    assert found.share_of_modes() == (0, 0, 0)


@pytest.mark.filterwarnings("error")
def test_nothing_to_forecast_is_no_reason_to_warn():
    none = forecast(**arguments(np.zeros((32, 0)), LAM[:0]))
    assert np.isnan(none.share_of_modes().value)
    assert np.isnan(none.reach().value)
    everything = forecast(**arguments(np.ones((32, 5)), LAM[:5]), end=200)
    assert everything.learnt.all()
    assert none.warnings == everything.warnings == ()
    never = forecast(**arguments(logistic(TAU[:5]), LAM[:5], eligible=np.zeros(5, bool)))
    assert np.isnan(never.step).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": STEPS[:-1]}, "`variance` must have shape"),
        ({"target": LAM[:-1]}, "`variance` must have shape"),
        ({"steps": STEPS[::-1]}, "`steps` must be finite"),
        ({"confidence": 0.7}, "`confidence` must be one of 0.5, 0.8, 0.9"),
        ({"end": 0}, "`end` must be"),
        ({"least_variance": -1}, "`least_variance` must be"),
    ],
)
def test_bad_arguments_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        forecast(**arguments(logistic(TAU), **changes))


def test_the_order_is_spearmans_rank_correlation():
    tau = np.repeat([13.0, 500.0, 8.0, 5.0], 6)  # many at the same step, the largest variance not first
    found = forecast(**arguments(np.where(STEPS[:, None] >= tau, 0.9, 0.1)))
    crossed = tau < 100
    expected = stats.spearmanr(found.step[crossed], LAM[crossed]).statistic
    assert f"(rank correlation {expected:+.2f})" in found.warnings[0]
