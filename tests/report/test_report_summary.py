"""The table of a run is computed from its files, whatever state the run left them in."""

import os
import re

import numpy as np
import pytest
from rich.console import Console

from spectral_lightning.prediction import compare
from spectral_lightning.report import RunFiles, latest_run, summarise, summary_table
from spectral_lightning.report.summary import summary_lines
from spectral_lightning.spectra import HistoryDirectory, SpectralHistory

TARGET = np.geomspace(1.0, 1e-3, 20)
STEPS = [0, *np.unique(np.geomspace(1, 1e5, 60).round()).astype(int)]


def history(power=1.0, **metadata):
    """Falling modes whose decay rate is lambda^power."""
    table = SpectralHistory({"target": TARGET, "fixed_point": TARGET}, metadata)
    for step in STEPS:
        share = np.exp(-0.1 * step * TARGET**power)
        table.append(step=step, variance=10 * share + TARGET * (1 - share))
    return table


@pytest.fixture
def run(tmp_path):
    files = RunFiles(tmp_path / "spectral")
    HistoryDirectory(files.history).begin(history())
    history().save(files / "history.npz")
    return files


def text_of(run):
    console = Console(width=200, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(summary_table(run))
    return console.export_text()


def row(text, name):
    return next(line for line in text.splitlines() if name in line)


def test_exponents_are_computed_from_the_history(run):
    first = text_of(run)
    history(power=0.5).save(run / "history.npz")
    second = text_of(run)
    # tau = const + log(v0 / lambda) / 2 ... over lambda^power: the logarithm adds to the exponent and curves the law.
    for text, power in ((first, 1.0), (second, 0.5)):
        law = compare(SpectralHistory.load(run / "history.npz")).measured_law("falling") if power == 0.5 else None
        small, large = (float(n) for n in re.findall(r"(\d\.\d+) \[", row(text, "exponent alpha"))[:2])
        assert power < large < power + 0.3
        assert small > power
        assert law is None or [f"{one.exponent:.2f}" for one in law.local] == [f"{n:.2f}" for n in (small, large)]
    assert "20 / 20" in row(first, "crossed / eligible")
    assert summary_lines(run)[0] == f"20 modes, {len(STEPS)} measurements."
    assert f"by step {STEPS[-1]}" in first


def test_a_killed_run_is_read_from_its_growing_history(run):
    whole = text_of(run)
    (run / "history.npz").unlink()
    killed = text_of(run)
    assert row(killed, "exponent alpha") == row(whole, "exponent alpha")
    assert any("has not ended" in line for line in summary_lines(run))
    assert "no theory" in row(killed, "alpha of the theory")
    sorted(run.history.glob("step-*.npz"))[-1].unlink()
    assert f"by step {STEPS[-2]}" in text_of(run)


def test_the_theory_is_read_from_its_own_table(run):
    history(power=0.5).save(run / "prediction.npz")
    text = text_of(run)
    law = compare(history(), SpectralHistory.load(run / "prediction.npz")).predicted_law("falling")
    assert law.exponent < 0.8
    assert f"{law.exponent:.2f} (" in row(text, "alpha of the theory")
    assert "20 of 20 crossed" in row(text, "alpha of the theory")


def test_the_criterion_is_the_runs_own(run):
    run.write_json("emergence.json", {"criterion": "harmonic", "gray_factor": 2.0})
    assert "harmonic threshold" in text_of(run)
    run.write_json("emergence.json", {"criterion": 0.5, "gray_factor": 1e6})
    text = text_of(run)
    assert "0.5 threshold" in text
    assert "0 / 0" in row(text, "crossed / eligible")
    assert "not determinable" in row(text, "exponent alpha")


def test_costs_and_fit_are_read_from_the_files(run):
    run.write_json("cost.json", {"seconds": {"sampling": 3.0, "figures": 1.0}, "total": 40.0})
    run.write_json("overlay.json", {"goodness_of_fit": {"rms": 0.25, "baseline": 1.5, "cells": 12}})
    _, fit, cost = summary_lines(run)
    assert "0.25" in fit
    assert "1.50" in fit
    assert "10% of 40 s: sampling 3.0 s, figures 1.0 s" in cost
    run.write_json("overlay.json", {"goodness_of_fit": {"rms": None, "baseline": None, "cells": 0}})
    assert len(summary_lines(run)) == 2


def test_a_directory_without_a_history_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        summary_table(RunFiles(tmp_path))


def test_the_command_prints_the_table_and_where_it_lies(run, capsys):
    (run / "figures").mkdir()
    (run / "figures" / "overlay.png").write_bytes(b"")
    summarise(str(run.path.parent))
    printed = capsys.readouterr().out
    assert "exponent alpha" in printed
    assert f"Results: {run.path}" in printed
    assert f"Figure:  {run / 'figures' / 'overlay.png'}" in printed


def _begin(path, time):
    HistoryDirectory(path / "history").begin(history())
    os.utime(path / "history" / "header.npz", (time, time))


def test_the_newest_run_of_a_name_is_taken(tmp_path):
    _begin(tmp_path / "version_0" / "spectral", 100)
    _begin(tmp_path / "version_1" / "spectral", 300)
    _begin(tmp_path / "version_1" / "spectral_1", 200)
    _begin(tmp_path / "version_1" / "spectral_other", 400)
    assert latest_run(tmp_path).path == tmp_path / "version_1" / "spectral"
    assert latest_run(tmp_path / "version_0").path == tmp_path / "version_0" / "spectral"
    assert latest_run(tmp_path, "spectral_other").path == tmp_path / "version_1" / "spectral_other"
    os.utime(tmp_path / "version_1" / "spectral_1" / "history" / "header.npz", (500, 500))
    assert latest_run(tmp_path).path == tmp_path / "version_1" / "spectral_1"


def test_a_run_is_found_by_its_own_directory_whatever_its_name(tmp_path):
    _begin(tmp_path / "mine", 100)
    assert latest_run(tmp_path / "mine").path == tmp_path / "mine"


@pytest.mark.parametrize("make", [False, True], ids=["missing", "empty"])
def test_no_run_is_said_to_be_none(tmp_path, make):
    path = tmp_path / "nothing"
    if make:
        path.mkdir()
    with pytest.raises(
        FileNotFoundError, match=r"`path` must lead to a tracked run, got .*nothing' with none at or below"
    ):
        latest_run(path)
