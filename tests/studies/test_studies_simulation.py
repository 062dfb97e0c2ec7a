"""The simulation of the law, and that its page says what is stored."""

import pytest

from studies import simulation
from studies.simulation import CASES, stored
from studies.store import STORE


def test_the_page_says_what_is_stored():
    found = stored()
    assert [one.case for one in found] == list(CASES)
    assert (STORE / "simulation.md").read_text() == simulation.page(found)


@pytest.mark.parametrize("name", ["60 % censored", "neighbours correlated, 0.85"])
@pytest.mark.filterwarnings("ignore:Mean of empty slice")  # of no curvature
def test_a_stored_row_is_that_of_other_replicates(name, monkeypatch):
    monkeypatch.setattr(simulation, "CASES", [case for case in CASES if case.name == name])
    monkeypatch.setattr(simulation, "_AT_ONCE", 50)
    monkeypatch.setattr(simulation, "_BENT", 0)
    (few,) = simulation.simulated(50)
    whole = next(one for one in stored() if one.case.name == name)
    assert few.bias == pytest.approx(whole.bias, abs=3.5 * few.bias_error)
    assert few.coverage == pytest.approx(whole.coverage, abs=3.5 * (0.95 * 0.05 / 50) ** 0.5)
    assert few.coverage > few.plain_coverage + 0.1
