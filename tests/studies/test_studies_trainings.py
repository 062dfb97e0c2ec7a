"""Trainings of the studies: made from the configurations, stored, never trained twice, resumed where they were interrupted."""

import json
import signal
import subprocess
import sys
import traceback

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningCLI

from spectral_lightning.cli import main
from studies import trainings
from studies.store import ROOT, load
from studies.trainings import STUDIES, Run, chosen


def small(name="small", steps=6, **changes):
    """A linear denoiser of eight dimensions."""
    sampling = {"num_samples": 16, "sampler": {"num_steps": 4}}
    given = {
        "config": "gaussian_linear",
        "trackers": [{"name": "spectral", "sampling": sampling, "schedule": {"per_decade": 4}}],
        "trainer.max_steps": steps,
        "model.init_args.shape": [8],
        "model.init_args.sampler": {"num_steps": 4},
        "data.init_args.dim": 8,
        "data.init_args.num_samples": 64,
    }
    return Run(name, {**given, **changes})


def in_process(arguments, log):
    """Trains here: another process would spend most of its time importing."""
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
    trainings.run_all({"tried": runs}, 1, place / "store", place / "work", training)
    return load(place / "store" / "tried", [one.name for one in runs])


def test_changes_replace_what_the_configuration_says_and_nothing_else():
    before = yaml.safe_load((ROOT / "configs" / "gaussian_linear.yaml").read_text())
    found = small().configuration()
    assert found["data"]["init_args"] == {**before["data"]["init_args"], "dim": 8, "num_samples": 64}
    callbacks = found["trainer"]["callbacks"]
    assert found["trainer"] == {**before["trainer"], "max_steps": 6, "callbacks": callbacks}
    assert [one["class_path"].rpartition(".")[2] for one in callbacks] == ["SpectralTracker", "AnalyticOverlay"]


def test_what_is_misnamed_is_refused():
    with pytest.raises(ValueError, match=r"`changes`"):
        small(**{"trainer.callbacks.0.init_args": {}}).configuration()
    with pytest.raises(ValueError, match=r"`names`.*galaxies"):
        chosen(["galaxies"])
    assert (chosen([]), list(chosen(["images"]))) == (STUDIES, ["images"])


class Parsed(LightningCLI):
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
    modes = {"run": False, "subclass_mode_model": True, "subclass_mode_data": True}
    for whole in kinds.values():
        tracker = Parsed(LightningModule, LightningDataModule, args=whole, **modes).config.trainer.callbacks[0]
        assert tracker.class_path == "spectral_lightning.callbacks.SpectralTracker"
        assert tracker.init_args.basis == "pca"


def test_a_class_that_moves_changes_no_fingerprint_and_everything_else_does():
    one = {"a": {"class_path": "studies.networks.Net", "weight": "spectral_lightning.x.f"}, "b": 1}
    moved = {"b": 1, "a": {"class_path": "experiments.Net", "weight": "spectral_lightning.f"}}
    assert trainings.fingerprint(one) == trainings.fingerprint(moved)
    for change in ({"b": 2}, {"a": {"class_path": "studies.networks.Other"}}, {"c": "torch.optim.SGD"}):
        assert trainings.fingerprint({**one, **change}) != trainings.fingerprint(one)


def test_results_are_adopted_for_a_configuration_in_which_settings_were_renamed(tmp_path, capsys):
    place, before = tmp_path / "tried" / "small", small(steps=7).configuration()
    place.mkdir(parents=True)
    (place / "config.yaml").write_text(yaml.safe_dump(before))
    (place / "run.json").write_text(json.dumps({"configuration": trainings.fingerprint(before), "seconds": 1.0}))
    assert (trainings.is_done(small(steps=7), place), trainings.is_done(small(), place)) == (True, False)
    trainings.adopt({"tried": [small(), small("never_trained")]}, tmp_path)
    assert trainings.is_done(small(), place)
    assert not (tmp_path / "tried" / "never_trained").exists()
    assert yaml.safe_load((place / "config.yaml").read_text()) == before
    said = capsys.readouterr().out
    assert "-  max_steps: 7" in said
    assert "+  max_steps: 6" in said


@pytest.mark.slow
def test_a_training_is_stored_and_not_made_again_unless_its_configuration_changes(tmp_path):
    found = run(tmp_path, small())["small"]
    assert found.history.last_step == 6
    assert found.prediction.steps.tolist() == found.history.steps.tolist()
    assert found.about["seconds"] > found.about["tracking_seconds"] > 0
    assert found.overlay["goodness_of_fit"]["rms"] < 1e-3 < found.overlay["goodness_of_fit"]["baseline"]
    assert yaml.safe_load((found.directory / "config.yaml").read_text()) == small().configuration()
    run(tmp_path, small(), training=None)  # nothing is trained
    assert run(tmp_path, small(steps=9))["small"].history.last_step == 9


@pytest.mark.slow
def test_a_training_that_fails_is_named_once_the_others_have_ended(tmp_path):
    broken = small("broken", **{"model.init_args.optimizer.init_args.lr": 1e9})
    with pytest.raises(RuntimeError, match="tried/broken"):
        run(tmp_path, broken, small("whole"))
    assert trainings.is_done(small("whole"), tmp_path / "store" / "tried" / "whole")
    assert not (tmp_path / "store" / "tried" / "broken").exists()
    [log] = (tmp_path / "work" / "tried" / "broken").glob("*/training.log")
    assert "ValueError" in log.read_text()


_KILLED = """
import os, signal, sys
from pathlib import Path
from lightning.pytorch import Trainer
from studies import trainings
from tests.studies.test_studies_trainings import run, small

def dies(self, *_args, before=Trainer.save_checkpoint, **_options):
    if self.global_step == 20:
        os.kill(os.getpid(), signal.SIGKILL)
    before(self, *_args, **_options)

Trainer.save_checkpoint, trainings._EVERY = dies, 10
run(Path(sys.argv[1]), small(steps=30))
"""


@pytest.mark.slow
def test_a_killed_training_ends_bit_equal_to_a_whole_one(tmp_path):
    """Killed at its second checkpoint, ten steps after the one it is continued from."""
    ended = subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path / "cut")], cwd=ROOT, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert not (tmp_path / "cut" / "store").exists()
    mark = trainings.fingerprint(small(steps=30).configuration())
    checkpoint = tmp_path / "cut" / "work" / "tried" / "small" / mark / "last.ckpt"
    assert torch.load(checkpoint, weights_only=False)["global_step"] == 10
    given = []
    cut = run(tmp_path / "cut", small(steps=30), training=lambda *one: given.append(one[0]) or in_process(*one))
    assert given[0][-2:] == ["--ckpt_path", str(checkpoint)]
    whole = run(tmp_path / "whole", small(steps=30))
    first, second = (one["small"].history for one in (cut, whole))
    assert first.last_step == 30
    for name in ("step", "variance", "standard_error", "cumulative_learning_rate"):
        np.testing.assert_array_equal(first[name], second[name])
