"""Trainings of experiments: made from the configurations, kept, never trained twice, resumed where they were interrupted."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml

from studies import running
from studies.catalogue import EXPERIMENTS, chosen
from studies.definition import CONFIGS, Experiment, Run, trackers
from studies.results import load

RUNS = {f"{e.name}/{r.name}": r for e in EXPERIMENTS.values() for r in e.runs}


def small(name="small", steps=6, **changes):
    """A linear denoiser of eight dimensions."""
    return Run(
        name,
        "gaussian_linear",
        {
            "trainer.max_steps": steps,
            "trainer.callbacks": trackers(16, per_decade=4, num_steps=4),
            "model.init_args.shape": [8],
            "model.init_args.sampler": {"num_steps": 4},
            "data.init_args.dim": 8,
            "data.init_args.num_samples": 64,
            **changes,
        },
    )


def experiment(*runs):
    return Experiment("tried", "Tried", "Does it run?", runs, lambda results: None)


def test_changes_replace_what_the_configuration_says_and_nothing_else():
    before = yaml.safe_load((CONFIGS / "gaussian_linear.yaml").read_text())
    found = small().configuration()
    assert found["data"]["init_args"] == {**before["data"]["init_args"], "dim": 8, "num_samples": 64}
    assert found["trainer"]["max_steps"] == 6
    assert {k: v for k, v in found["trainer"].items() if k not in ("max_steps", "callbacks")} == {
        k: v for k, v in before["trainer"].items() if k not in ("max_steps", "callbacks")
    }
    assert yaml.safe_load((CONFIGS / "gaussian_linear.yaml").read_text()) == before


def test_a_change_within_a_list_is_refused():
    with pytest.raises(ValueError, match=r"must name entries of tables, got 'trainer.callbacks.0.init_args'"):
        Run("a", "gaussian_linear", {"trainer.callbacks.0.init_args": {}}).configuration()


def test_every_run_starts_from_a_configuration_that_users_have():
    for name, run in RUNS.items():
        found = run.configuration()
        original = yaml.safe_load((CONFIGS / f"{run.config}.yaml").read_text())
        assert found["data"]["class_path"] == original["data"]["class_path"], name
        assert found["trainer"]["max_steps"] > 100, name
        assert any(c["class_path"].endswith("SpectralTracker") for c in found["trainer"]["callbacks"]), name


def test_names_of_runs_are_unique_in_their_experiment():
    for one in EXPERIMENTS.values():
        names = [run.name for run in one.runs]
        assert len(set(names)) == len(names) > 0


def test_an_unknown_experiment_is_refused_by_name():
    with pytest.raises(ValueError, match=r"must be among .*gaussian.*, got galaxies"):
        chosen(["galaxies"])
    assert [one.name for one in chosen([])] == list(EXPERIMENTS)


def test_results_that_are_not_there_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no a, b. Run `make results-gaussian`"):
        load(tmp_path / "gaussian", ["a", "b"])


@pytest.mark.slow
def test_a_training_is_kept_and_not_made_again_unless_its_configuration_changes(tmp_path):
    store, work = tmp_path / "store", tmp_path / "work"
    running.run_all([experiment(small())], 1, store, work)
    found = load(store / "tried", ["small"])["small"]
    assert found.history().steps.tolist()[-1] == 6
    assert found.prediction().variance.shape[1] == 8
    assert found.about["seconds"] > found.about["tracking_seconds"] > 0
    assert found.goodness()["rms"] < 1e-3 < found.goodness()["baseline"]
    assert yaml.safe_load((found.directory / "config.yaml").read_text()) == small().configuration()
    made = (found.directory / "run.json").stat().st_mtime_ns
    running.run_all([experiment(small())], 1, store, work)
    assert (found.directory / "run.json").stat().st_mtime_ns == made
    running.run_all([experiment(small(steps=9))], 1, store, work)
    assert load(store / "tried", ["small"])["small"].history().steps.tolist()[-1] == 9


@pytest.mark.slow
def test_a_training_that_fails_is_named_once_the_others_have_ended(tmp_path):
    broken = small("broken", **{"model.init_args.init": "none"})
    with pytest.raises(RuntimeError, match=r"run again to go on.\n.*broken: see training.log there"):
        running.run_all([experiment(broken, small("whole"))], 2, tmp_path / "store", tmp_path / "work")
    assert running.is_done(small("whole"), tmp_path / "store" / "tried" / "whole")
    assert not (tmp_path / "store" / "tried" / "broken").exists()
    assert "init" in (tmp_path / "work" / "tried" / "broken" / "training.log").read_text()


_LONG = 1500
_SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from studies import running
from tests.studies.test_experiments_running import experiment, small
running.run_all([experiment(small(steps={steps}))], 1, Path({place!r}) / "store", Path({place!r}) / "work")
"""


@pytest.mark.slow
def test_an_interrupted_training_goes_on_from_its_checkpoint(tmp_path):
    """Killed with everything it started; what it measured is what an uninterrupted training measures."""
    root = str(running.ROOT)
    script = _SCRIPT.format(root=root, steps=_LONG, place=str(tmp_path / "cut"))
    started = subprocess.Popen([sys.executable, "-c", script], cwd=root, start_new_session=True)
    checkpoint = tmp_path / "cut" / "work" / "tried" / "small" / "last.ckpt"
    deadline = time.monotonic() + 120
    while not checkpoint.is_file() and time.monotonic() < deadline and started.poll() is None:
        time.sleep(0.01)
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    assert checkpoint.is_file()
    assert not (tmp_path / "cut" / "store").exists()
    running.run_all([experiment(small(steps=_LONG))], 1, tmp_path / "cut" / "store", tmp_path / "cut" / "work")
    running.run_all([experiment(small(steps=_LONG))], 1, tmp_path / "whole" / "store", tmp_path / "whole" / "work")
    cut, whole = (load(tmp_path / place / "store" / "tried", ["small"])["small"] for place in ("cut", "whole"))
    assert "Restored all states from the checkpoint" in (checkpoint.parent / "training.log").read_text()
    assert cut.history().steps.tolist() == whole.history().steps.tolist()
    np.testing.assert_array_equal(cut.history().variance, whole.history().variance)
