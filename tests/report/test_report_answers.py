"""The commands that answer after the fact, from a run's directory, its parent, or a file."""

import csv
import json

import numpy as np
import pytest

from spectral_lightning.cli.main import main
from spectral_lightning.emergence import STATUS
from spectral_lightning.prediction import compare, outlook
from spectral_lightning.report import RunFiles, history_document
from spectral_lightning.spectra import HistoryDirectory, SpectralHistory

TARGET = np.geomspace(1.0, 1e-3, 20)
STEPS = [0, *np.unique(np.geomspace(1, 1e3, 40).round()).astype(int)]


def history(rows=STEPS, modes=20):
    table = SpectralHistory({"target": TARGET[:modes], "fixed_point": TARGET[:modes]})
    for step in rows:
        share = np.exp(-0.1 * step * TARGET[:modes])
        variance = 10 * share + TARGET[:modes] * (1 - share)
        table.append(step=step, variance=variance, standard_error=0.1 * variance)
    return table


@pytest.fixture
def run(tmp_path):
    files = RunFiles(tmp_path / "version_0" / "spectral")
    HistoryDirectory(files.history).begin(history())
    history().save(files / "history.npz")
    files.write_json("emergence.json", {"criterion": "harmonic", "gray_factor": 2.0})
    return files


def printed(capsys, *arguments):
    main([str(argument) for argument in arguments])
    return " ".join(capsys.readouterr().out.split())


def test_forecast_answers_from_directory_parent_and_file(run, tmp_path, capsys):
    expected = outlook(history(), criterion="harmonic", end=5000)
    for place in (run.path, tmp_path):
        text = printed(capsys, "forecast", place, "--end", 5000, "--output", tmp_path / "new" / "out.json")
        assert expected.sentence in text
        assert "At the end, step 5,000" in text
    document = json.loads((tmp_path / "new" / "out.json").read_text())
    steps = [np.inf if step is None else step for step in document["modes"]["step"]]
    np.testing.assert_array_equal(steps, expected.forecast.step)
    assert document["end"] == 5000
    assert outlook(history()).sentence in printed(capsys, "forecast", run / "history.npz")  # the default criterion
    run.write_json("forecast.json", {"end": 7000})
    assert "At the end, step 7,000" in printed(capsys, "forecast", run.path)
    assert outlook(history(), criterion="harmonic").sentence in printed(capsys, "summary", run.path)


def test_emergence_prints_and_writes_modes_and_law(run, tmp_path, capsys):
    found = compare(history(), None, "harmonic")
    text = printed(capsys, "emergence", run.path, "--output", tmp_path / "modes.csv")
    assert f"Falling modes: {found.measured_law('falling')}" in text
    with (tmp_path / "modes.csv").open() as file:
        rows = list(csv.DictReader(file))
    np.testing.assert_array_equal([float(row["emergence_step"]) for row in rows], found.measured.time)
    assert [row["status"] for row in rows] == [STATUS[status] for status in found.measured.status]
    main(["emergence", str(run.path), "--output", str(tmp_path / "modes.json")])
    document = json.loads((tmp_path / "modes.json").read_text())
    assert document["criterion"] == "harmonic"
    assert document["laws"]["measured"]["falling"]["text"] == str(found.measured_law("falling"))
    assert document["modes"]["variance"] == TARGET.tolist()


def test_the_plain_history_holds_the_tables(run):
    table = history()
    run.write_json("history.json", history_document(table, compare(table).measured), indent=None)
    document = json.loads((run / "history.json").read_text())
    assert document["steps"] == STEPS
    for name, array in (("mode_variance", TARGET), ("target", TARGET), ("variance", table.variance)):
        np.testing.assert_array_equal(document[name], array)
    np.testing.assert_array_equal(document["standard_error"], 0.1 * table.variance)
    assert set(document["status"]) <= set(STATUS)


@pytest.mark.parametrize(
    ("make", "forecast", "emergence"),
    [
        (lambda: history([]), "Nothing has been measured yet.", "Nothing has been measured yet."),
        (lambda: history([0]), "Nothing finite has been measured since step 0.", "not yet"),
        (lambda: history(STEPS, 2), "2 of 2 learnt", "crossed"),
    ],
    ids=["empty", "one row", "two modes"],
)
def test_poor_histories_are_answered(tmp_path, capsys, make, forecast, emergence):
    make().save(tmp_path / "poor.npz")
    assert forecast in printed(capsys, "forecast", tmp_path / "poor.npz")
    assert emergence in printed(capsys, "emergence", tmp_path / "poor.npz")


@pytest.mark.parametrize("command", ["forecast", "emergence"])
def test_what_cannot_be_read_is_refused_in_one_line(tmp_path, run, command, monkeypatch):
    with pytest.raises(SystemExit, match=f"spectral-lightning {command}: `runs` must lead to tracked runs"):
        main([command, str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit, match="`output` must be a file whose name ends with"):
        main([command, str(run.path), "--output", "modes.txt"])
    with monkeypatch.context() as newer:
        newer.setattr(SpectralHistory, "FORMAT", 99)
        history().save(run / "history.npz")
    with pytest.raises(SystemExit, match="format 99, newer than"):
        main([command, str(run.path)])
