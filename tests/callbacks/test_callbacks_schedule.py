"""When the callbacks measure, and what they leave behind however a training goes."""

import copy
import json
import pickle

import lightning.pytorch as pl
import numpy as np
import pytest
import pytorch_lightning as other_pl
import torch
from lightning.pytorch.callbacks import Callback

from spectral_lightning.callbacks import AnalyticOverlay, EmergenceFitter
from spectral_lightning.models import LinearDenoiser
from spectral_lightning.sampling import Sampler
from spectral_lightning.spectra import SpectralHistory
from spectral_lightning.tracking import Schedule
from tests.support.tiny_training import (
    THEORY,
    OwnModule,
    examples,
    loader,
    own_module,
    three,
    tracker,
    trainer,
    without_drawing,
)

FILES = {"history.npz", "history.csv", "prediction.npz", "emergence.csv", "emergence.json", "overlay.json", "cost.json"}


@pytest.fixture(autouse=True)
def no_drawing(monkeypatch):
    without_drawing(monkeypatch)


def fit(path, callbacks, module=None, data=None, val=None, **options):
    run = trainer(path, callbacks, **options)
    run.fit(OwnModule() if module is None else module, loader() if data is None else data, val)
    return run


def files(path):
    return {file.name for file in path.rglob("*") if file.is_file()}


@pytest.mark.parametrize("per_decade", [1, 3, 7])
def test_the_grid_is_even_on_a_logarithmic_axis(per_decade):
    schedule = Schedule(per_decade)
    found = [step for step in range(1, 2001) if schedule.due(step - 1, step)]
    naive = sorted({round(10 ** (i / per_decade)) for i in range(4 * per_decade)})
    assert found == [step for step in naive if step <= 2000]


def test_a_step_that_jumps_over_the_grid_is_due_once():
    schedule = Schedule(3)
    assert schedule.due(4, 7)
    assert not schedule.due(7, 9)
    assert [schedule.floor(step) for step in (0, 1, 3, 9, 10, 99)] == [0, 1, 2, 5, 10, 46]


@pytest.mark.parametrize(("steps", "expected"), [(10, [0, 1, 2, 5, 10]), (13, [0, 1, 2, 5, 10, 13])])
def test_measured_steps_and_a_final_one(tmp_path, steps, expected):
    own = tracker()
    fit(tmp_path, [own], max_steps=steps)
    assert own.history.steps.tolist() == expected
    assert own.history["final"].tolist() == [step == 13 for step in expected]
    np.testing.assert_allclose(own.history["cumulative_learning_rate"], 0.01 * np.array(expected), rtol=1e-12)


def test_time_is_optimizer_updates_under_accumulation(tmp_path):
    own = tracker()
    run = fit(tmp_path, [own], max_steps=11, accumulate_grad_batches=3)
    assert run.global_step == 11
    assert own.history.steps.tolist() == [0, 1, 2, 5, 10, 11]
    np.testing.assert_allclose(own.history["cumulative_learning_rate"], 0.01 * own.history.steps, rtol=1e-12)


def test_the_last_incomplete_accumulation_of_an_epoch_counts(tmp_path):
    own = tracker()
    # 8 batches an epoch in groups of 3: three updates each.
    run = fit(tmp_path, [own], max_steps=-1, max_epochs=2, accumulate_grad_batches=3)
    assert run.global_step == 6
    assert own.history.steps.tolist() == [0, 1, 2, 5, 6]


def test_a_varying_rate_is_summed(tmp_path):
    own = tracker()
    fit(tmp_path, [own], OwnModule(scheduled=True), max_steps=10)
    rates = 0.01 * 0.5 ** (np.arange(10) // 5)
    expected = [rates[:step].sum() for step in own.history.steps]
    np.testing.assert_allclose(own.history["cumulative_learning_rate"], expected, rtol=1e-12)


def test_runs_by_epochs_with_validation_and_sanity_check(tmp_path):
    own = tracker()
    val = loader(examples(16), shuffle=False)
    fit(tmp_path, [own], val=val, max_steps=-1, max_epochs=1, num_sanity_val_steps=2, val_check_interval=3)
    assert own.history.steps.tolist() == [0, 1, 2, 5, 8]


def test_a_sanity_check_alone_leaves_nothing(tmp_path):
    own = tracker()

    class Stop(Callback):
        def on_sanity_check_end(self, trainer, pl_module):
            assert own.history is None
            raise RuntimeError("after the sanity check")

    with pytest.raises(RuntimeError, match="after the sanity check"):
        fit(tmp_path, [own, Stop()], val=loader(examples(16)), num_sanity_val_steps=1)
    assert own.history is None
    assert files(tmp_path) == set()


def test_without_a_logger_everything_is_in_files(tmp_path):
    callbacks = three()
    run = fit(tmp_path, callbacks)
    assert FILES | {"overlay.png", "emergence.png", "basis.pt", "header.npz"} <= files(tmp_path / "spectral")
    saved = SpectralHistory.load(tmp_path / "spectral" / "history.npz")
    np.testing.assert_array_equal(saved.variance, callbacks[0].history.variance)
    assert {"spectral/alignment", "spectral/non_finite", "spectral/emergence/falling_crossed"} <= set(
        run.callback_metrics
    )
    assert float(run.callback_metrics["spectral/alignment"]) == pytest.approx(saved["alignment"][-1], rel=1e-6)


@pytest.mark.parametrize("logger", [True, False])
def test_fast_dev_run_measures_and_writes_nothing(tmp_path, logger):
    callbacks = three()
    fit(tmp_path, callbacks, max_steps=-1, fast_dev_run=2, logger=logger)
    assert callbacks[0].history.steps.tolist() == [0, 1, 2]
    assert files(tmp_path) == set()


@pytest.mark.parametrize("value", ["off", "OFF", "0", "false"])
def test_the_switch_turns_everything_off(tmp_path, monkeypatch, value):
    monkeypatch.setenv("SPECTRAL_LIGHTNING", value)
    callbacks = three()
    run = fit(tmp_path, callbacks)
    assert run.global_step == 10
    assert [c.history for c in callbacks[:2]] == [None, None]
    assert files(tmp_path) == set()
    assert run.callback_metrics == {}


def test_the_switch_lets_a_module_pass_that_could_not_be_measured(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTRAL_LIGHTNING", "off")

    class NoDenoiser(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(8, 8)

        def training_step(self, batch, batch_idx):
            return self.layer(batch).square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=1e-3)

    assert fit(tmp_path, [*three(), EmergenceFitter(tracker="missing")], NoDenoiser()).global_step == 10


def test_other_values_leave_them_on(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTRAL_LIGHTNING", "on")
    own = tracker()
    fit(tmp_path, [own], max_steps=1)
    assert own.history.steps.tolist() == [0, 1]


class Failing(OwnModule):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def training_step(self, batch, batch_idx):
        if self.global_step == 7:
            raise self.error
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize(
    ("error", "raised"), [(RuntimeError("out of memory"), RuntimeError), (KeyboardInterrupt(), SystemExit)]
)
def test_what_was_measured_survives_an_exception(tmp_path, error, raised):
    callbacks = three()
    with pytest.raises(raised):
        fit(tmp_path, callbacks, Failing(error), max_steps=100)
    saved = SpectralHistory.load(tmp_path / "spectral" / "history.npz")
    assert saved.steps.tolist() == [0, 1, 2, 5]
    np.testing.assert_array_equal(saved.variance, callbacks[0].history.variance)
    assert np.isfinite(saved.variance).all()
    assert files(tmp_path / "spectral") >= FILES


def test_a_partner_that_fails_in_the_end_does_not_hide_the_exception(tmp_path, monkeypatch):
    callbacks = three()
    monkeypatch.setattr(callbacks[2], "on_end", lambda session: 1 / 0)
    with (
        pytest.warns(UserWarning, match="EmergenceFitter.*failed: ZeroDivisionError: division by zero"),
        pytest.raises(RuntimeError, match="out of memory"),
    ):
        fit(tmp_path, callbacks, Failing(RuntimeError("out of memory")), max_steps=100)
    assert {"history.npz", "overlay.json", "cost.json"} <= files(tmp_path / "spectral")


def test_a_second_training_with_the_same_callbacks_starts_anew(tmp_path):
    callbacks = three()
    torch.manual_seed(0)
    fit(tmp_path, callbacks)
    first = callbacks[0].history.variance
    callbacks[1].predicted.scale = 123.0
    torch.manual_seed(0)
    fit(tmp_path, callbacks)
    assert callbacks[0].history.steps.tolist() == [0, 1, 2, 5, 10]
    np.testing.assert_array_equal(callbacks[0].history.variance, first)
    reports = [json.loads((tmp_path / name / "overlay.json").read_text()) for name in ("spectral", "spectral_1")]
    assert reports[0] == reports[1]
    costs = [json.loads((tmp_path / name / "cost.json").read_text()) for name in ("spectral", "spectral_1")]
    for cost in costs:
        assert sum(cost["seconds"].values()) <= cost["total"]


def test_partners_of_an_earlier_training_are_left_alone(tmp_path):
    callbacks = three()
    fit(tmp_path, callbacks)
    fit(tmp_path / "alone", callbacks[:1])
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


def test_two_trackers_with_partners_of_their_own(tmp_path):
    few, many = tracker(name="few", num_modes=2), tracker(name="many", per_decade=1)
    callbacks = [EmergenceFitter(tracker="many", figures_per_decade=1), few, many, EmergenceFitter(tracker="few")]
    fit(tmp_path, callbacks)
    assert few.history.variance.shape == (5, 2)
    assert many.history.variance.shape == (3, 8)
    assert {p.name for p in tmp_path.iterdir()} == {"few", "many"}
    for name, modes in (("few", 2), ("many", 8)):
        assert len((tmp_path / name / "emergence.csv").read_text().splitlines()) == 1 + modes


def test_two_trackers_of_one_name_are_refused(tmp_path):
    with pytest.raises(RuntimeError, match=r"state_key.*SpectralTracker\[spectral\]|SpectralTracker"):
        trainer(tmp_path, [tracker(), tracker()])


@pytest.mark.parametrize("package", [pl, other_pl], ids=["lightning.pytorch", "pytorch_lightning"])
def test_a_users_own_module_in_either_package(tmp_path, package):
    callbacks = three()
    fit(tmp_path, callbacks, own_module(package.LightningModule)(), package=package)
    assert callbacks[0].history.steps.tolist() == [0, 1, 2, 5, 10]
    assert files(tmp_path / "spectral") >= FILES


def test_a_users_own_attribute_named_sampler_is_not_taken_for_ours(tmp_path):
    module = OwnModule()
    module.sampler = "ddim"
    own = tracker(sampler=None)
    fit(tmp_path, [own], module, max_steps=1)
    assert own.session.probe.sampler == Sampler()


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))], ids=["copy", "pickle"])
def test_callbacks_can_be_copied_before_they_are_attached(tmp_path, duplicate):
    callbacks = [duplicate(c) for c in three(num_modes=3, name="twin")]
    assert callbacks[0].state_key == "SpectralTracker[twin]"
    assert callbacks[1].theory.objective == THEORY.objective
    fit(tmp_path, callbacks, max_steps=2)
    assert callbacks[0].history.variance.shape == (3, 3)


def test_what_is_known_in_training_only_says_so():
    for name in ("probe", "basis", "results", "measured", "training"):
        with pytest.raises(RuntimeError, match="is known once the session has"):
            getattr(tracker().session, name)
    with pytest.raises(RuntimeError, match="AnalyticOverlay"):
        _ = AnalyticOverlay().predicted


def test_a_linear_denoiser_with_its_own_sampler_is_measured_at_its_levels(tmp_path):
    grid = Sampler(num_steps=4, sigma_min=0.1, sigma_max=5.0)
    own = tracker(sampler=None)
    module = LinearDenoiser(8, sampler=grid, objective="samples", init=0.3, reduction="mean")
    fit(tmp_path, [own], module, max_steps=1)
    np.testing.assert_allclose(own.history["levels"], grid.levels, rtol=1e-12)
