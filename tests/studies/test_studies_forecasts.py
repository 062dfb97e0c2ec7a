"""The back-test sees nothing after the cut; constants and page follow from the stored tables."""

from dataclasses import replace

import numpy as np
import pytest

from spectral_lightning.emergence.forecasting import calibration
from studies import forecasts
from studies.store import STORE


@pytest.fixture(scope="module")
def case():
    return next(one for one in forecasts.cases(["predictions"]) if one.training == "predictions/plain_seed0")


def test_a_forecast_sees_nothing_after_its_cut(case):
    for number, cut in enumerate(case.cuts):
        variance = case.variance.copy()
        variance[cut.row + 1 :] = np.nan
        blind = replace(case, variance=variance).cuts[number]
        assert blind.forecast.step.tolist() == cut.forecast.step.tolist()
        assert blind.forecast.learnt.tolist() == (~cut.open).tolist()


def test_cuts_and_errors_are_those_of_the_rules(case):
    for cut in case.cuts:
        crossed = np.mean(case.actual <= cut.now)
        before = np.mean(case.actual <= case.steps[cut.row - 1])
        assert before < cut.share <= crossed
        assert cut.errors["now"] == pytest.approx(np.median(np.log(case.actual[case.actual > cut.now] / cut.now)))
    assert cut.error(case.actual * 2) == pytest.approx(np.log(2))
    assert cut.error(np.full_like(case.actual, np.inf)) > 2


def test_quantiles_of_bounds_are_those_of_kaplan_and_meier():
    """Without bounds, those of the sample; with one, by hand: survival 3/4, then 3/4 * 1/2 once the bound has left."""
    values = np.random.default_rng(0).standard_normal(101)
    found = forecasts.weighted_quantiles(values, np.ones(101), np.ones(101, bool), [0.1, 0.5, 0.9])
    assert found == np.quantile(values, [0.1, 0.5, 0.9], method="inverted_cdf").tolist()
    censored = np.array([True, False, True, False])
    found = forecasts.weighted_quantiles(np.arange(4.0), np.ones(4), censored, [0.25, 0.26, 0.625, 0.63])
    assert found == [0, 2, 2, np.inf]


@pytest.fixture(scope="module")
def runs():
    return {"tuned": forecasts.cases(forecasts.TUNED), "judged": forecasts.cases(forecasts.JUDGED)}


@pytest.mark.slow
def test_the_constants_of_the_package_are_those_tuned(runs):
    found = forecasts.tuned(runs["tuned"])
    assert found["TYPICAL"] == pytest.approx(calibration.TYPICAL, abs=6e-4)
    assert [*found["SPREAD"], found["UNTESTED"]] == pytest.approx([*calibration.SPREAD, calibration.UNTESTED], abs=6e-3)
    for confidence, ends in found["QUANTILES"].items():
        assert ends == pytest.approx(calibration.QUANTILES[confidence], abs=6e-3)


@pytest.mark.slow
def test_the_page_says_what_the_stored_tables_say(runs):
    assert forecasts.rendered("forecasts.md.j2", forecasts.forecasts(runs)) == (STORE / "forecasts.md").read_text()
