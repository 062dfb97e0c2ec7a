"""Steps and cumulative learning rates under what Trainers and modules do with optimizers, and with time and batches."""

import itertools
from datetime import timedelta

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from spectral_lightning.callbacks import EmergenceFitter
from tests.support.tiny_training import OwnModule, loader, tracker, trainer, without_drawing


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    without_drawing(monkeypatch)


class Manual(OwnModule):
    """Steps two optimizers itself: the first every batch on a schedule, the second every other batch at 0.5."""

    def __init__(self, clip=None, second=True):
        super().__init__()
        self.automatic_optimization = False
        self.other = torch.nn.Linear(8, 8)
        self.clip, self.second = clip, second

    def configure_optimizers(self):
        first = torch.optim.SGD(self.body.parameters(), lr=0.01)
        schedule = torch.optim.lr_scheduler.LambdaLR(first, lambda update: 1 / (1 + update))
        second = torch.optim.SGD(self.other.parameters(), lr=0.5)
        return ([first, second] if self.second else [first]), [schedule]

    def training_step(self, batch, batch_idx):
        optimizers = self.optimizers()
        optimizers = optimizers if self.second else [optimizers]
        loss = super().training_step(batch, batch_idx) + self.other(batch).square().mean()
        for optimizer in optimizers:
            optimizer.zero_grad()
        self.manual_backward(loss)
        if self.clip is not None:
            self.clip_gradients(optimizers[0], gradient_clip_val=self.clip, gradient_clip_algorithm="norm")
        optimizers[0].step()
        if self.second and batch_idx % 2:
            optimizers[1].step()
        self.lr_schedulers().step()


def fit(path, module, callbacks, data=None, **options):
    pl.seed_everything(0)
    run = trainer(path, callbacks, **options)
    run.fit(module, loader() if data is None else data)
    return run


@pytest.mark.parametrize("clip", [None, 0.1])
def test_two_optimizers_stepped_by_hand(tmp_path, clip):
    """Lightning counts the steps of both; the learning rate is that of the first, which was stepped two times of three."""
    own = tracker(per_decade=20)
    run = fit(tmp_path, Manual(clip), [own, EmergenceFitter()], max_steps=-1, max_epochs=3)
    assert run.global_step == 36
    steps = own.history.steps
    assert steps[-1] == 36
    # The updates go first, first and second, first, first and second: after n of them the first had ceil(2 n / 3) or so.
    updates = {0: 0}
    for batch in range(24):
        updates[max(updates) + 1 + batch % 2] = batch + 1
    rates = np.concatenate([[0.0], np.cumsum(0.01 / np.arange(1, 25))])
    wanted = [rates[updates[step]] for step in steps]
    assert len(steps) > 10
    np.testing.assert_allclose(own.history["cumulative_learning_rate"], wanted, rtol=1e-12)


def test_one_optimizer_stepped_by_hand(tmp_path):
    own = tracker()
    fit(tmp_path, Manual(second=False), [own], max_steps=10)
    wanted = np.concatenate([[0.0], np.cumsum(0.01 / np.arange(1, 11))])[own.history.steps]
    assert own.history.steps.tolist() == [0, 1, 2, 5, 10]
    np.testing.assert_allclose(own.history["cumulative_learning_rate"], wanted, rtol=1e-12)


def test_an_optimizer_that_evaluates_the_loss_several_times_makes_one_update(tmp_path):
    class Searching(OwnModule):
        evaluations = 0

        def configure_optimizers(self):
            return torch.optim.LBFGS(self.parameters(), lr=0.01, max_iter=4)

        def training_step(self, batch, batch_idx):
            self.evaluations += 1
            return super().training_step(batch, batch_idx)

    own, module = tracker(), Searching()
    fit(tmp_path, module, [own], max_steps=5)
    assert module.evaluations > 10
    np.testing.assert_allclose(own.history["cumulative_learning_rate"], 0.01 * own.history.steps, rtol=1e-12)
    again = tracker()
    fit(tmp_path / "1", OwnModule(), [again], max_steps=1)
    fit(tmp_path / "2", OwnModule(), [again], max_steps=1)  # the same tracker in a training that begins at step 0 again
    np.testing.assert_allclose(again.history["cumulative_learning_rate"], [0.0, 0.01], rtol=1e-12)


def test_an_optimizer_that_lightning_does_not_see_leaves_one_measurement(tmp_path):
    """Its updates are not in ``global_step``, which is what loggers and checkpoints go by too."""

    class Around(Manual):
        def training_step(self, batch, batch_idx):
            optimizer, _ = self.optimizers(use_pl_optimizer=False)
            optimizer.zero_grad()
            self.manual_backward(OwnModule.training_step(self, batch, batch_idx))
            optimizer.step()

    own = tracker()
    fit(tmp_path, Around(), [own], max_steps=-1, max_epochs=1)
    assert own.history.steps.tolist() == [0]


CASES = {
    # options, updates
    "clipping by norm": ({"gradient_clip_val": 0.01}, 10),
    "clipping by value": ({"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"}, 10),
    "overfitting on batches": ({"overfit_batches": 2, "max_steps": -1, "max_epochs": 3}, 6),
    "a share of the batches": ({"limit_train_batches": 0.5, "max_steps": -1, "max_epochs": 2}, 8),
    "batches and accumulation": ({"limit_train_batches": 5, "accumulate_grad_batches": 2, "max_epochs": 2}, 6),
    "time enough": ({"max_time": timedelta(hours=1)}, 10),
}


@pytest.mark.parametrize("case", CASES)
def test_steps_and_rates(tmp_path, case):
    options, updates = CASES[case]
    own = tracker()
    run = fit(tmp_path, OwnModule(), [own, EmergenceFitter()], **{"max_steps": 10, **options})
    assert run.global_step == updates
    grid = sorted({round(10 ** (i / 3)) for i in range(5)})
    wanted = [0, *itertools.takewhile(lambda step: step <= updates, grid)]
    wanted += [updates] * (wanted[-1] < updates)
    assert own.history.steps.tolist() == wanted
    np.testing.assert_allclose(own.history["cumulative_learning_rate"], 0.01 * np.array(wanted), rtol=1e-12)


def test_clipping_is_measured_after_the_update(tmp_path):
    """The history is of the clipped training, not of another one."""
    histories = []
    for clip in (None, 1e-6):
        own = tracker()
        torch.manual_seed(0)
        fit(tmp_path / str(clip), OwnModule(), [own], gradient_clip_val=clip)
        histories.append(own.history.variance)
    np.testing.assert_array_equal(histories[0][0], histories[1][0])
    np.testing.assert_allclose(histories[1][-1], histories[1][0], rtol=1e-3)
    assert np.abs(histories[0][-1] / histories[0][0] - 1).max() > 0.01
