"""When the callbacks measure, and what they leave behind however a training goes."""

import copy
import itertools
import json
import pickle
import time
from datetime import timedelta

import lightning.pytorch as pl
import numpy as np
import pytest
import pytorch_lightning as other_pl
import torch
from lightning.pytorch.callbacks import Callback

from spectral_lightning.callbacks import AnalyticOverlay, EmergenceFitter, SpectralTracker
from spectral_lightning.callbacks.training import LightningTraining
from spectral_lightning.datamodules import MixtureDataModule
from spectral_lightning.models import LinearDenoiser
from spectral_lightning.sampling import Sampler
from spectral_lightning.spectra import Eigenmodes, SpectralHistory
from spectral_lightning.theory.solving.generation import tuned_sampler
from tests.support.tiny_training import (
    THEORY,
    OwnModule,
    examples,
    files,
    fit,
    loader,
    own_module,
    three,
    tracker,
)

FILES = {"history.npz", "history.csv", "prediction.npz", "emergence.csv", "emergence.json", "overlay.json", "cost.json"}


class Ends(Callback):
    """When the training will end, as it is seen after every update."""

    def __init__(self):
        self.seen = {}

    def on_train_batch_end(self, run, module, *_):
        self.seen.setdefault(run.global_step, LightningTraining("SpectralTracker", run, module).last_step())


CASES = {
    # options, updates
    "steps": ({"max_steps": 13}, 13),
    "epochs": ({"max_steps": -1, "max_epochs": 2}, 16),
    "epochs before steps": ({"max_steps": 100, "max_epochs": 1}, 8),
    "accumulation": (
        {"max_steps": -1, "max_epochs": 2, "accumulate_grad_batches": 3},
        6,
    ),  # of 8 batches, three updates
    "a share of the batches": ({"limit_train_batches": 0.5, "max_steps": -1, "max_epochs": 2}, 8),
    "batches and accumulation": ({"limit_train_batches": 5, "accumulate_grad_batches": 2, "max_epochs": 2}, 6),
    "overfitting on batches": ({"overfit_batches": 2, "max_steps": -1, "max_epochs": 3}, 6),
    "time enough": ({"max_time": timedelta(hours=1)}, 10),
    "clipping by norm": ({"gradient_clip_val": 0.01}, 10),
    "clipping by value": ({"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"}, 10),
}


@pytest.mark.parametrize(("options", "updates"), CASES.values(), ids=CASES)
def test_steps_rates_and_the_end(tmp_path, options, updates):
    own, ends = tracker(), Ends()
    run = fit(tmp_path, [own, ends], **options)
    assert run.global_step == updates
    wanted = [0, *itertools.takewhile(lambda step: step <= updates, [1, 2, 5, 10])]
    wanted += [updates] * (wanted[-1] < updates)
    assert own.history.steps.tolist() == wanted
    assert own.history["final"].tolist() == [step not in (0, 1, 2, 5, 10) for step in wanted]
    np.testing.assert_allclose(own.history["cumulative_learning_rate"], 0.01 * np.array(wanted), rtol=1e-12)
    ends.seen.pop(0, None)  # before the first update nothing tells how many a batch makes
    assert set(ends.seen.values()) == {updates}


class Pace(Callback):
    """Every update takes as long as the last, whatever the machine does."""

    def on_train_batch_start(self, *_):
        time.sleep(0.01)


def test_an_end_by_time_alone(tmp_path):
    ends = Ends()
    fit(tmp_path, [ends, Pace()], max_steps=-1, max_epochs=-1, max_time={"seconds": 1})
    final = max(ends.seen)
    # A steady pace, on a machine that others use.
    assert all(0.5 * final < end < 2 * final for step, end in ends.seen.items() if step > final / 2)


class Manual(OwnModule):
    """Steps its optimizers itself: the first every batch on a schedule, a second every so many batches."""

    def __init__(self, every=None, seen=True):
        super().__init__()
        self.automatic_optimization = False
        self.other, self.every, self.seen = torch.nn.Linear(8, 8), every, seen

    def configure_optimizers(self):
        first = torch.optim.SGD(self.body.parameters(), lr=0.01)
        schedule = torch.optim.lr_scheduler.LambdaLR(first, lambda update: 1 / (1 + update))
        second = torch.optim.SGD(self.other.parameters(), lr=0.5)
        return ([first, second] if self.every else [first]), [schedule]

    def training_step(self, batch, batch_idx):
        found = self.optimizers(use_pl_optimizer=self.seen)
        first, *others = found if self.every else [found]
        loss = super().training_step(batch, batch_idx) + self.other(batch).square().mean()
        first.zero_grad()
        self.manual_backward(loss)
        self.clip_gradients(first, gradient_clip_val=0.1, gradient_clip_algorithm="norm")
        first.step()
        for other in others if batch_idx % (self.every or 1) == (self.every or 1) - 1 else ():
            other.step()
        self.lr_schedulers().step()


@pytest.mark.parametrize(("every", "total", "planned"), [(None, 24, 24), (1, 48, 48), (2, 36, 48)])
def test_optimizers_stepped_by_hand(tmp_path, every, total, planned):
    """Lightning counts the steps of all; the learning rate is that of the first, the end as if all step every batch."""
    own, ends = tracker(per_decade=20), Ends()
    run = fit(tmp_path, [own, ends], Manual(every), max_steps=-1, max_epochs=3)
    assert run.global_step == own.history.last_step == total
    assert ends.seen[total] == planned
    updates = {0: 0}
    for batch in range(24):
        updates[max(updates) + 1 + bool(every and batch % every == every - 1)] = batch + 1
    rates = np.concatenate([[0.0], np.cumsum(0.01 / np.arange(1, 25))])
    wanted = [rates[updates[step]] for step in own.history.steps]
    np.testing.assert_allclose(own.history["cumulative_learning_rate"], wanted, rtol=1e-12)


def test_an_optimizer_that_lightning_does_not_see_leaves_one_measurement(tmp_path):
    """Its updates are not in ``global_step``, which is what loggers and checkpoints go by too."""
    own = tracker()
    fit(tmp_path, [own], Manual(seen=False), max_steps=-1, max_epochs=1)
    assert own.history.steps.tolist() == [0]


def test_an_optimizer_that_evaluates_the_loss_several_times_makes_one_update(tmp_path):
    class Searching(OwnModule):
        def configure_optimizers(self):
            return torch.optim.LBFGS(self.parameters(), lr=0.01, max_iter=4)

    own = tracker()
    fit(tmp_path, [own], Searching(), max_steps=5)
    np.testing.assert_allclose(own.history["cumulative_learning_rate"], 0.01 * own.history.steps, rtol=1e-12)


def test_validation_changes_nothing_and_a_sanity_check_alone_leaves_nothing(tmp_path):
    own, val = tracker(), loader(examples(16), shuffle=False)
    options = {"val": val, "max_steps": -1, "max_epochs": 1, "num_sanity_val_steps": 2, "val_check_interval": 3}
    fit(tmp_path / "whole", [own], **options)
    assert own.history.steps.tolist() == [0, 1, 2, 5, 8]

    class Stop(Callback):
        def on_sanity_check_end(self, trainer, pl_module):
            raise RuntimeError("after the sanity check")

    own = tracker()
    with pytest.raises(RuntimeError, match="after the sanity check"):
        fit(tmp_path / "sanity", [own, Stop()], **options)
    assert own.history is None
    assert files(tmp_path / "sanity") == set()


def test_fast_dev_run_measures_and_writes_nothing(tmp_path):
    callbacks = three()
    fit(tmp_path, callbacks, max_steps=-1, fast_dev_run=2, logger=True)
    assert callbacks[0].history.steps.tolist() == [0, 1, 2]
    assert files(tmp_path) == set()


class NoDenoiser(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(8, 8)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3)


def test_the_switch_turns_everything_off(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTRAL_LIGHTNING", "off")
    callbacks = [*three(), EmergenceFitter(tracker="missing")]
    run = fit(tmp_path, callbacks, NoDenoiser())
    assert run.global_step == 10
    assert callbacks[0].history is callbacks[1].history is None
    assert files(tmp_path) == set()
    assert run.callback_metrics == {}


REFUSED = {
    "no denoiser": (lambda: [tracker()], NoDenoiser, loader, TypeError, "denoise"),
    "several loaders": (lambda: [tracker()], OwnModule, lambda: {"a": loader(), "b": loader()}, TypeError, "dict"),
    "an overlay alone": (lambda: [AnalyticOverlay()], OwnModule, loader, ValueError, "AnalyticOverlay.* 'spectral'"),
    "a fitter alone": (lambda: [EmergenceFitter()], OwnModule, loader, ValueError, "EmergenceFitter.* 'spectral'"),
    "another tracker": (
        lambda: [*three(name="x"), EmergenceFitter()],
        OwnModule,
        loader,
        ValueError,
        "'spectral'.* 'x'",
    ),
    "levels without weights": (
        lambda: [tracker()],
        lambda: LinearDenoiser(8, sampler=Sampler(num_steps=3, sigma_min=0.1, sigma_max=5.0), objective="samples"),
        loader,
        ValueError,
        "`sigma`.* 0.002",
    ),
    "a theory of samples": (
        lambda: [tracker(sampler=lambda module, z: z), AnalyticOverlay()],
        OwnModule,
        loader,
        ValueError,
        "AnalyticOverlay",
    ),
    "one name twice": (lambda: [tracker(), tracker()], OwnModule, loader, RuntimeError, "SpectralTracker"),
}


@pytest.mark.parametrize(("callbacks", "module", "data", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_measured_is_refused_before_training(tmp_path, callbacks, module, data, error, message):
    module = module()
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(error, match=message):
        fit(tmp_path, callbacks(), module, data())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert list(tmp_path.iterdir()) == []


def test_an_empty_training_set_is_never_measured(tmp_path):
    own = tracker()
    with pytest.warns(UserWarning, match="zero"):
        fit(tmp_path, [own], data=loader(examples(0), shuffle=False))
    assert own.history is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:The reference has")
def test_fewer_examples_than_dimensions_leave_null_modes(tmp_path):
    own, fitter = tracker(), EmergenceFitter()
    fit(tmp_path, [own, fitter], data=loader(examples(5), batch_size=5))
    assert own.history["null"].tolist() == [False] * 4 + [True] * 4
    assert own.session.results.shown_modes == [0, 1, 2, 3]
    text = (tmp_path / "spectral" / "emergence.csv").read_text().splitlines()
    assert [line.split(",")[7] for line in text[5:]] == ["null mode"] * 4
    laws = [fitter.result.measured_law(way) for way in ("rising", "falling")]
    assert not any(law.determinable for law in laws)
    assert all(law.reason for law in laws)


def test_a_second_training_with_the_same_callbacks_starts_anew(tmp_path):
    callbacks = three()
    fit(tmp_path, callbacks)
    first = callbacks[0].history.variance
    callbacks[1].predicted.scale = 123.0
    fit(tmp_path, callbacks)
    assert callbacks[0].history.steps.tolist() == [0, 1, 2, 5, 10]
    np.testing.assert_array_equal(callbacks[0].history.variance, first)
    reports = [json.loads((tmp_path / name / "overlay.json").read_text()) for name in ("spectral", "spectral_1")]
    assert reports[0] == reports[1]
    for name in ("spectral", "spectral_1"):
        cost = json.loads((tmp_path / name / "cost.json").read_text())
        assert sum(cost["seconds"].values()) <= cost["total"]
    fit(tmp_path / "alone", callbacks[:1])  # the observers of an earlier training are left alone
    assert not {"emergence.json", "overlay.json"} & files(tmp_path / "alone")


def test_the_same_trainer_may_go_on(tmp_path):
    own, module, data = tracker(), OwnModule(), loader()
    run = fit(tmp_path, [own], module, data, max_steps=7)
    assert own.history.steps.tolist() == [0, 1, 2, 5, 7]
    run.fit_loop.epoch_loop.max_steps = 10
    run.fit(module, data)
    assert own.history.steps.tolist() == [0, 1, 2, 5, 10]  # 7 was measured only because training ended
    assert [p.name for p in tmp_path.iterdir()] == ["spectral"]
    assert SpectralHistory.load(tmp_path / "spectral" / "history.npz").steps.tolist() == [0, 1, 2, 5, 10]


def test_two_trackers_with_observers_of_their_own(tmp_path):
    few, many = tracker(name="few", basis=Eigenmodes(2)), tracker(name="many", per_decade=1)
    fit(tmp_path, [EmergenceFitter(tracker="many"), few, many, EmergenceFitter(tracker="few")])
    assert (few.history.variance.shape, many.history.variance.shape) == ((5, 2), (3, 8))
    assert {p.name for p in tmp_path.iterdir()} == {"few", "many"}
    for name, modes in (("few", 2), ("many", 8)):
        assert len((tmp_path / name / "emergence.csv").read_text().splitlines()) == 1 + modes


@pytest.mark.parametrize("package", [pl, other_pl], ids=["lightning.pytorch", "pytorch_lightning"])
def test_a_users_own_module_in_either_package(tmp_path, package):
    callbacks = three()
    run = fit(tmp_path, callbacks, own_module(package.LightningModule)(), package=package)
    saved = SpectralHistory.load(tmp_path / "spectral" / "history.npz")
    assert saved.steps.tolist() == [0, 1, 2, 5, 10]
    np.testing.assert_array_equal(saved.variance, callbacks[0].history.variance)
    assert files(tmp_path / "spectral") >= FILES | {"basis.pt", "header.npz"}
    headline = {"spectral/alignment", "spectral/non_finite", "spectral/emergence/falling_crossed"}
    assert headline <= set(run.callback_metrics)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))], ids=["copy", "pickle"])
def test_callbacks_can_be_copied_before_they_are_attached(tmp_path, duplicate):
    callbacks = [duplicate(c) for c in three(basis=Eigenmodes(3), name="twin")]
    assert callbacks[0].state_key == "SpectralTracker[twin]"
    assert repr(callbacks[1].theory) == repr(THEORY)
    fit(tmp_path, callbacks, max_steps=2)
    assert callbacks[0].history.variance.shape == (3, 3)


@pytest.mark.parametrize("own", [True, False])
def test_a_sampler_of_the_module_is_taken_if_it_is_one_of_ours(tmp_path, own):
    module, one = OwnModule(), tracker(sampler=None)
    module.sampler = Sampler(num_steps=4, sigma_min=0.1, sigma_max=5.0) if own else "ddim"
    fit(tmp_path, [one], module, max_steps=1)
    tuned = tuned_sampler(one.basis.variance.numpy(), 8, 0.03)
    assert one.session.probe.sampler == (module.sampler if own else tuned)
    assert SpectralTracker().state_key == "SpectralTracker[spectral]"


def test_a_datamodule_that_classifies_is_asked(tmp_path):
    data = MixtureDataModule([8], [0.5, 0.5], separation=8.0, labels=False, num_samples=400, batch_size=40)
    data.class_names = ["one", "other"]
    own = tracker(per_class=True)
    fit(tmp_path, [own], data=data, max_steps=1)
    assert own.history.groups == ["one", "other"]
    np.testing.assert_allclose(own.history["group_share"], 0.5, atol=0.01)
