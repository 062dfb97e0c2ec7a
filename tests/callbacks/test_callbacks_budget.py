"""Measuring within a share of the training's time: how many are taken, where they lie, and who decides."""

import logging
import math
import re
import time

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning_utilities.core import rank_zero

from spectral_lightning.callbacks.training import LightningTraining
from spectral_lightning.sampling import Sampler
from spectral_lightning.spectra import Ranks
from spectral_lightning.tracking import Schedule
from spectral_lightning.tracking.timing import Budget, Cost
from tests.support.tiny_training import OwnModule, loader, tracker, trainer

SHARE = 0.1


def last_step(run):
    return LightningTraining("SpectralTracker", run, run.lightning_module).last_step()


class Clock:
    """A training by a fake clock, in seconds: per measurement, per update, to start up and for the first of each."""

    def __init__(self, cost, steps=10_000, pace=0.01, startup=0.0, first_update=0.0, first_cost=1.0, later_pace=1.0):
        self.cost, self.steps, self.pace = cost, steps, pace
        self.startup, self.first_update, self.first_cost, self.later_pace = (
            startup,
            first_update,
            first_cost,
            later_pace,
        )

    def run(self, share=SHARE, known=True):
        """Steps of the measurements, those that were due, and the share of time they took."""
        schedule, budget = Schedule(10), Budget(share)
        training, spent, taken, due, last = self.startup, self.cost * self.first_cost, [0], [], 0
        for step in range(1, self.steps + 1):
            late = self.later_pace if step > self.steps // 2 else 1.0
            training += self.pace * late + self.first_update * (step == 1)
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


@pytest.mark.parametrize("name", CLOCKS)
def test_the_whole_takes_about_its_share(name):
    taken, _, share = CLOCKS[name].run()
    # A measurement is a whole second of 10 to 20: the last that would not fit is not taken.
    assert 0.75 * SHARE <= share <= 1.01 * SHARE
    assert taken[0] == 0
    assert taken[-1] == CLOCKS[name].steps


@pytest.mark.parametrize("name", CLOCKS)
def test_measurements_are_spread_over_the_schedule_to_its_end(name):
    taken, due, _ = CLOCKS[name].run()
    at = [due.index(step) for step in taken[1:] if step in due]
    gaps = np.diff([-1, *at, len(due)])
    assert len(at) >= 6
    # Evenly spread: no stretch of the schedule stays empty for more than two and a half times the mean.
    assert gaps.max() <= 2.5 * len(due) / len(at) + 1
    # As many in its first half as in its second, up to the two that the estimate of the cost may be wrong by.
    half = sum(i < len(due) / 2 for i in at)
    assert abs(2 * half - len(at)) <= 0.25 * len(at) + 2


def test_nothing_is_left_out_where_all_fit():
    taken, due, share = Clock(0.2).run()
    assert taken == [0, *due[1:]]  # before the second update there is no pace
    assert share < SHARE
    assert Clock(0.01).run()[0] == taken


@pytest.mark.parametrize("cost", [10.0, 30.0])
def test_the_first_and_the_last_are_always_taken(cost):
    assert Clock(cost).run()[0] == [0, 10_000]


def test_without_an_end_it_stays_within_its_share_so_far():
    taken, _, share = Clock(1.0).run(known=False)
    assert share <= SHARE
    assert [step for step in taken if step and 0.01 * step * SHARE < 2] == []


def test_without_a_share_everything_is_due():
    budget = Budget()
    assert all(budget.due(step, 10, 1, 1e9, 1e9, 1e-9) for step in range(20))


def test_a_restart_finds_its_own_pace():
    """The pace is that of this process: seconds before it, on another machine, count as time but not as pace."""
    budget = Budget(0.1)
    assert not budget.due(5000, 10_000, 4, spent=50.0, cost=1.0, training=500.0)  # all of its share is spent
    # 1 s an update from here: 4998 more seconds of training, a share of 550 s in all.
    assert budget.due(5002, 10_000, 3, spent=50.0, cost=1.0, training=502.0)
    assert budget.every == 1


@pytest.mark.parametrize("share", [0, -0.1, math.inf, float("nan")])
def test_a_share_that_is_none(share):
    with pytest.raises(ValueError, match="`max_overhead` must be"):
        Budget(share)


class Second(Ranks):
    """Another rank, which hears what rank 0 decided."""

    rank, size = 1, 2

    def __init__(self, heard):
        self.heard = heard

    def copy_from_first(self, tensor):
        self.heard.append(tensor)
        return self.heard[0]


def fake_cost(measuring, training, count=1):
    cost = Cost()
    cost.seconds, cost.count, cost._before = {"sampling": measuring}, count, training + measuring
    return cost


@pytest.mark.parametrize("decided", [True, False])
def test_the_clock_of_rank_zero_decides(decided):
    # This rank would decide otherwise: its clock ran a thousand times faster, or slower.
    budget, schedule = Budget(0.1), Schedule(10)
    own = fake_cost(1e-3, 1e3) if not decided else fake_cost(1e3, 1e-3)
    heard = [torch.tensor([float(decided), 3.0])]
    assert budget.affords(1, 100, schedule, own, Second(heard), print) is decided
    assert bool(heard[1][0]) is not decided
    assert budget.every == 3


def test_every_rank_takes_part_in_the_decision():
    heard = [torch.tensor([1.0, 1.0])]
    Budget(0.1).affords(5, 100, Schedule(10), fake_cost(1.0, 1.0), Second(heard), print)
    assert len(heard) == 2
    heard = []
    assert Budget().affords(5, 100, Schedule(10), fake_cost(1.0, 1.0), Second(heard), print)
    assert heard == []  # no collective where there is nothing to decide


class Pace(pl.Callback):
    """Every update takes as long as the last, whatever the machine does."""

    def __init__(self, seconds):
        self.seconds = seconds

    def on_train_batch_start(self, *_args):
        time.sleep(self.seconds)


class SlowModule(OwnModule):
    def denoise(self, z, sigma):
        if not self.training:  # of a measurement
            time.sleep(2e-5 * len(z))
        return super().denoise(z, sigma)


@pytest.mark.slow
def test_a_training_keeps_its_budget(tmp_path, caplog):
    own = tracker(max_overhead=0.2, per_decade=10, num_samples=256, sampler=Sampler())
    with caplog.at_level(logging.INFO, logger=rank_zero.log.name):
        trainer(tmp_path, [own, Pace(0.02)], max_steps=400).fit(SlowModule(), loader(batch_size=4))
    assert 5 < len(own.history) < 1 + Schedule(10).count(0, 400)
    assert own.history.last_step == 400
    # One measurement of ten more or less, on a machine that others use and whose speed changes meanwhile.
    assert 0.05 < own.session.cost.measuring / own.session.cost.training < 0.3
    steps = own.history.steps[1:]
    assert (steps < 20).sum() <= (steps > 20).sum() + 1
    said = [r.message for r in caplog.records if "max_overhead" in r.message]
    assert "max_overhead=0.2, one " in said[0]


def test_what_changes_is_said_once():
    budget, schedule, cost = Budget(0.1), Schedule(10), fake_cost(0.5, 0.0)
    said = []
    for step in (s for s in range(1, 100) if schedule.due(s - 1, s)):
        cost._before = 0.4 * step + cost.measuring
        if budget.affords(step, 100, schedule, cost, Ranks(), said.append):
            # Noise of 10 % in what a measurement takes.
            cost.seconds["sampling"] += 0.5 * (1 + 0.1 * (-1) ** cost.count)
            cost.count += 1
    assert cost.count == 7
    (line,) = said
    assert re.search(r"step 2: .* 0\.5 s; .* max_overhead=0\.1, one .* 2\.7 ", line)


@pytest.mark.parametrize(
    ("options", "ends"),
    [
        ({"max_steps": 6}, 6),
        ({"max_steps": -1, "max_epochs": 2}, 16),
        ({"max_steps": 100, "max_epochs": 1}, 8),
        ({"max_steps": 5, "max_epochs": 3}, 5),
        ({"max_steps": -1, "max_epochs": 2, "accumulate_grad_batches": 4}, 4),
        ({"max_steps": -1, "max_epochs": 2, "limit_train_batches": 3}, 6),
        ({"max_steps": -1, "max_epochs": 2, "max_time": "01:00:00:00"}, 16),
    ],
    ids=str,
)
def test_the_end_is_what_comes_first(tmp_path, options, ends):
    class Reader(pl.Callback):
        def __init__(self):
            self.seen = {}

        def on_train_batch_end(self, run, *_args):
            self.seen.setdefault(run.global_step, last_step(run))  # as it is when an update was just made

    reader = Reader()
    run = trainer(tmp_path, [reader], **options)
    run.fit(OwnModule(), loader())
    assert run.global_step == ends
    reader.seen.pop(0, None)  # before the first update nothing tells how many a batch makes
    assert set(reader.seen.values()) == {ends}


class TwoOptimizers(OwnModule):
    """Manual optimization with two updates a batch, as a discriminator makes them."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        for optimizer in self.optimizers():
            optimizer.zero_grad()
            self.manual_backward(super().training_step(batch, batch_idx))
            optimizer.step()

    def configure_optimizers(self):
        return [torch.optim.SGD(self.parameters(), 1e-3), torch.optim.SGD(self.parameters(), 1e-4)]


def test_the_end_of_a_training_with_two_updates_a_batch(tmp_path):
    own = tracker(max_overhead=1e3)
    run = trainer(tmp_path, [own], max_steps=-1, max_epochs=2)
    run.fit(TwoOptimizers(), loader())
    assert run.global_step == last_step(run) == 32
    assert own.history.last_step == 32


def test_an_end_by_time_alone(tmp_path):
    class Reader(pl.Callback):
        seen = ()

        def on_train_batch_end(self, run, *_args):
            self.seen = (*self.seen, (run.global_step, last_step(run)))

    reader = Reader()
    trainer(tmp_path, [reader, Pace(0.01)], max_steps=-1, max_epochs=-1, max_time={"seconds": 1}).fit(
        OwnModule(), loader()
    )
    final, _ = reader.seen[-1]
    halfway = [end for step, end in reader.seen if step > final / 2]
    # A pace of 10 ms, on a machine that others use.
    assert all(0.6 * final < end < 1.6 * final for end in halfway)
