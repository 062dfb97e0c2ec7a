"""Trainings of the studies: made from the configurations, stored, never trained twice, resumed where they were interrupted."""

import json
import os
import signal
import subprocess
import sys
import time
import traceback

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import LightningDataModule, LightningModule

from spectral_lightning.cli import main
from spectral_lightning.cli.training import SpectralCLI
from studies import running
from studies.catalogue import STUDIES, Run, chosen, trackers
from studies.store import ROOT, load


def small(name="small", steps=6, **changes):
    """A linear denoiser of eight dimensions."""
    about = {"name": "spectral", "sampling": {"num_samples": 16, "sampler": {"num_steps": 4}}}
    return Run(
        name,
        "gaussian_linear",
        {
            "trainer.max_steps": steps,
            "trainer.callbacks": trackers([{**about, "schedule": {"per_decade": 4}}]),
            "model.init_args.shape": [8],
            "model.init_args.sampler": {"num_steps": 4},
            "data.init_args.dim": 8,
            "data.init_args.num_samples": 64,
            **changes,
        },
    )


def in_process(arguments, log):
    """Trains here: a process of its own would spend most of its time importing."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        main(arguments)
    except (Exception, SystemExit):  # a configuration that is refused exits
        log.write_text(traceback.format_exc())
        return False
    finally:
        torch.set_num_threads(threads)
    return True


def run(place, *runs, training=in_process):
    running.run_all({"tried": runs}, 1, place / "store", place / "work", training)
    return load(place / "store" / "tried", [one.name for one in runs])


def test_changes_replace_what_the_configuration_says_and_nothing_else():
    before = yaml.safe_load((ROOT / "configs" / "gaussian_linear.yaml").read_text())
    found = small().configuration()
    assert found["data"]["init_args"] == {**before["data"]["init_args"], "dim": 8, "num_samples": 64}
    callbacks = found["trainer"]["callbacks"]
    assert found["trainer"] == {**before["trainer"], "max_steps": 6, "callbacks": callbacks}
    assert [one["class_path"].rpartition(".")[2] for one in callbacks] == ["SpectralTracker", "AnalyticOverlay"]


def test_a_change_within_a_list_is_refused():
    with pytest.raises(ValueError, match=r"`changes`"):
        Run("a", "gaussian_linear", {"trainer.callbacks.0.init_args": {}}).configuration()


def test_an_unknown_study_is_refused_by_name():
    with pytest.raises(ValueError, match=r"`names`.*galaxies"):
        chosen(["galaxies"])
    assert chosen([]) == list(STUDIES)
    assert chosen(["images"]) == ["images"]


class Parsed(SpectralCLI):
    def instantiate_classes(self):
        """Only read the configuration."""


def shape(value):
    """A configuration without its values, except for the names of classes."""
    if isinstance(value, dict):
        return tuple((key, inner if key == "class_path" else shape(inner)) for key, inner in value.items())
    return tuple(map(shape, value)) if isinstance(value, list) else type(value).__name__


@pytest.mark.slow
@pytest.mark.parametrize("study", STUDIES)
def test_every_training_is_accepted_by_the_command_line_and_measured_in_eigenmodes(study):
    kinds = {shape(whole): whole for whole in (one.configuration() for one in STUDIES[study])}
    for whole in kinds.values():
        modes = {"subclass_mode_model": True, "subclass_mode_data": True}
        tracker = Parsed(LightningModule, LightningDataModule, run=False, args=whole, **modes).config.trainer.callbacks[
            0
        ]
        assert tracker.class_path == "spectral_lightning.callbacks.SpectralTracker"
        assert tracker.init_args.basis == "pca"


def test_a_class_that_moves_changes_no_fingerprint_and_everything_else_does():
    one = {"a": {"class_path": "studies.networks.Net", "weight": "spectral_lightning.x.f"}, "b": 1}
    moved = {"b": 1, "a": {"class_path": "experiments.Net", "weight": "spectral_lightning.f"}}
    assert running.fingerprint(one) == running.fingerprint(moved)
    for change in ({"b": 2}, {"a": {"class_path": "studies.networks.Other"}}, {"c": "torch.optim.SGD"}):
        assert running.fingerprint({**one, **change}) != running.fingerprint(one)


def test_results_are_adopted_for_a_configuration_in_which_settings_were_renamed(tmp_path, capsys):
    place = tmp_path / "tried" / "small"
    place.mkdir(parents=True)
    stored = yaml.safe_dump(small(steps=7).configuration())
    (place / "config.yaml").write_text(stored)
    about = {"configuration": running.fingerprint(small(steps=7).configuration()), "seconds": 1.0}
    (place / "run.json").write_text(json.dumps(about))
    assert running.is_done(small(steps=7), place)
    assert not running.is_done(small(), place)
    running.adopt({"tried": [small(), small("never_trained")]}, tmp_path)
    assert running.is_done(small(), place)
    assert not running.is_done(small("never_trained"), tmp_path / "tried" / "never_trained")
    assert (place / "config.yaml").read_text() == stored
    said = capsys.readouterr().out
    assert "-  max_steps: 7" in said
    assert "+  max_steps: 6" in said


@pytest.mark.slow
def test_a_training_is_stored_and_not_made_again_unless_its_configuration_changes(tmp_path):
    found = run(tmp_path, small())["small"]
    assert found.history().last_step == 6
    assert found.prediction().steps.tolist() == found.history().steps.tolist()
    assert found.about["seconds"] > found.about["tracking_seconds"] > 0
    assert found.goodness()["rms"] < 1e-3 < found.goodness()["baseline"]
    assert yaml.safe_load((found.directory / "config.yaml").read_text()) == small().configuration()
    run(tmp_path, small(), training=None)  # nothing is trained
    assert run(tmp_path, small(steps=9))["small"].history().last_step == 9


@pytest.mark.slow
def test_a_training_that_fails_is_named_once_the_others_have_ended(tmp_path):
    broken = small("broken", **{"model.init_args.optimizer.init_args.lr": 1e9})
    with pytest.raises(RuntimeError, match="tried/broken"):
        run(tmp_path, broken, small("whole"))
    assert running.is_done(small("whole"), tmp_path / "store" / "tried" / "whole")
    assert not (tmp_path / "store" / "tried" / "broken").exists()
    [log] = (tmp_path / "work" / "tried" / "broken").glob("*/training.log")
    assert "ValueError" in log.read_text()


_LONG, _EVERY = 120, 20
_SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from studies import running
from tests.studies.test_studies_running import run, small
running._EVERY = {every}
run(Path({place!r}), small(steps={steps}))
"""


@pytest.mark.slow
def test_a_killed_training_ends_bit_equal_to_a_whole_one(tmp_path):
    script = _SCRIPT.format(root=str(ROOT), every=_EVERY, place=str(tmp_path / "cut"), steps=_LONG)
    started = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, start_new_session=True)
    mark = running.fingerprint(small(steps=_LONG).configuration())
    checkpoint = tmp_path / "cut" / "work" / "tried" / "small" / mark / "last.ckpt"
    deadline = time.monotonic() + 120
    while not checkpoint.is_file() and time.monotonic() < deadline and started.poll() is None:
        time.sleep(0.005)
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    assert checkpoint.is_file()
    assert not (tmp_path / "cut" / "store").exists()
    given = []
    cut = run(tmp_path / "cut", small(steps=_LONG), training=lambda *one: given.append(one[0]) or in_process(*one))
    assert given[0][-2:] == ["--ckpt_path", str(checkpoint)]
    whole = run(tmp_path / "whole", small(steps=_LONG))
    histories = [one["small"].history() for one in (cut, whole)]
    assert histories[0].last_step == _LONG
    for name in ("step", "variance", "standard_error", "cumulative_learning_rate"):
        np.testing.assert_array_equal(histories[0][name], histories[1][name])
