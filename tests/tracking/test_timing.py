"""When to measure: the grid of steps, and how it is thinned to keep within a share of the training's time."""

import math
import re

import numpy as np
import pytest
import torch

from spectral_lightning.spectra import Ranks
from spectral_lightning.tracking import Schedule
from spectral_lightning.tracking.timing import Budget, Cost

SHARE = 0.1


@pytest.mark.parametrize("per_decade", [1, 3, 7])
def test_the_grid_is_even_on_a_logarithmic_axis(per_decade):
    schedule = Schedule(per_decade)
    found = [step for step in range(1, 2001) if schedule.due(step - 1, step)]
    naive = sorted({round(10 ** (i / per_decade)) for i in range(4 * per_decade)})
    assert found == [step for step in naive if step <= 2000]
    for last, end in ((0, 2000), (5, 46), (46, 46), (0, 0)):
        assert schedule.count(last, end) == len([step for step in found if last < step <= end])


def test_a_step_that_jumps_over_the_grid_is_due_once():
    schedule = Schedule(3)
    assert schedule.due(4, 7)
    assert not schedule.due(7, 9)
    assert [schedule.floor(step) for step in (0, 1, 3, 9, 10, 99)] == [0, 1, 2, 5, 10, 46]


class Clock:
    """A training by a fake clock, in seconds: per measurement, per update, to start up and for the first of each."""

    def __init__(self, cost, steps=10_000, startup=0.0, first_update=0.0, first_cost=1.0, later_pace=1.0):
        self.cost, self.steps, self.startup = cost, steps, startup
        self.first_update, self.first_cost, self.later_pace = first_update, first_cost, later_pace

    def run(self, share=SHARE, known=True):
        """Steps of the measurements, those that were due, and the share of time they took."""
        schedule, budget = Schedule(10), Budget(share)
        training, spent, taken, due, last = self.startup, self.cost * self.first_cost, [0], [], 0
        for step in range(1, self.steps + 1):
            training += 0.01 * (self.later_pace if step > self.steps // 2 else 1.0) + self.first_update * (step == 1)
            if not schedule.due(last, step):
                continue
            last = step
            due.append(step)
            left = 1 + schedule.count(step, self.steps - 1 if known else step)
            if budget.due(step, self.steps if known else None, left, spent, spent / len(taken), training):
                spent += self.cost
                taken.append(step)
        if taken[-1] != self.steps:
            taken.append(self.steps)
            spent += self.cost
        return taken, due, spent / training


CLOCKS = {
    "few": Clock(1.0),
    "half": Clock(0.5),
    "nearly all": Clock(0.3),
    "a slow start": Clock(1.0, startup=5.0),
    "a first update that compiles": Clock(1.0, startup=5.0, first_update=10.0),
    "a first measurement that compiles": Clock(1.0, first_cost=2.0),
    "slower in the end": Clock(1.0, later_pace=2.0),
    "no grid step at the end": Clock(1.0, steps=9_000),
}


@pytest.mark.parametrize("clock", CLOCKS.values(), ids=CLOCKS)
def test_the_whole_takes_its_share_spread_over_the_schedule(clock):
    taken, due, share = clock.run()
    # A measurement is a whole second of 10 to 20: the last that would not fit is not taken.
    assert 0.75 * SHARE <= share <= 1.01 * SHARE
    assert (taken[0], taken[-1]) == (0, clock.steps)
    at = [due.index(step) for step in taken[1:] if step in due]
    assert len(at) >= 6
    # No stretch of the schedule stays empty for more than two and a half times the mean.
    assert np.diff([-1, *at, len(due)]).max() <= 2.5 * len(due) / len(at) + 1
    # As many in its first half as in its second, up to the two that the estimate of the cost may be wrong by.
    assert abs(2 * sum(i < len(due) / 2 for i in at) - len(at)) <= 0.25 * len(at) + 2


def test_nothing_is_left_out_where_all_fit():
    taken, due, share = Clock(0.2).run()
    assert taken == Clock(0.01).run()[0] == [0, *due[1:]]  # before the second update there is no pace
    assert share < SHARE
    assert all(Budget().due(step, 10, 1, 1e9, 1e9, 1e-9) for step in range(20))


def test_the_first_and_the_last_are_always_taken():
    assert Clock(10.0).run()[0] == Clock(30.0).run()[0] == [0, 10_000]


def test_without_an_end_it_stays_within_its_share_so_far():
    taken, _, share = Clock(1.0).run(known=False)
    assert share <= SHARE
    assert [step for step in taken if step and 0.01 * step * SHARE < 2] == []


def test_a_restart_finds_its_own_pace():
    """The pace is that of this process: seconds before it, on another machine, count as time but not as pace."""
    budget = Budget(0.1)
    assert not budget.due(5000, 10_000, 4, spent=50.0, cost=1.0, training=500.0)  # all of its share is spent
    # 1 s an update from here: 4998 more seconds of training, a share of 550 s in all.
    assert budget.due(5002, 10_000, 3, spent=50.0, cost=1.0, training=502.0)
    assert budget.every == 1


@pytest.mark.parametrize("share", [0, -0.1, math.inf, float("nan")])
def test_a_share_that_is_none(share):
    with pytest.raises(ValueError, match="`max_overhead`"):
        Schedule(max_overhead=share)


class Second(Ranks):
    """Another rank, which hears what rank 0 decided."""

    rank, size = 1, 2

    def __init__(self, *heard):
        self.heard = [torch.tensor(values) for values in heard]

    def copy_from_first(self, tensor):
        self.heard.append(tensor)
        return self.heard[0]


def spent(measuring, training):
    cost = Cost()
    cost.load_state_dict({"seconds": {"sampling": measuring}, "count": 1, "total": training + measuring})
    return cost


@pytest.mark.parametrize("decided", [True, False])
def test_the_clock_of_rank_zero_decides(decided):
    # This rank would decide otherwise: its clock ran a thousand times faster, or slower.
    budget, ranks = Budget(0.1), Second([float(decided), 3.0])
    own = spent(1e3, 1e-3) if decided else spent(1e-3, 1e3)
    assert budget.affords(1, 100, Schedule(10), own, ranks, print) is decided
    assert bool(ranks.heard[1][0]) is not decided
    assert budget.every == 3
    alone = Second()
    assert Budget().affords(5, 100, Schedule(10), spent(1.0, 1.0), alone, print)
    assert alone.heard == []  # no collective if there is nothing to decide


def test_what_changes_is_said_once():
    budget, schedule, cost, said = Budget(0.1), Schedule(10), spent(0.5, 0.0), []
    for step in (s for s in range(1, 100) if schedule.due(s - 1, s)):
        cost._before = 0.4 * step + cost.measuring
        if budget.affords(step, 100, schedule, cost, Ranks(), said.append):
            cost.seconds["sampling"] += 0.5 * (1 + 0.1 * (-1) ** cost.count)  # noise of 10 %
            cost.count += 1
    assert cost.count == 7
    (line,) = said
    assert re.search(r"step 2: .* 0\.5 s; .* max_overhead=0\.1, one .* 2\.7 ", line)
