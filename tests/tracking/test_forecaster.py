"""What the forecaster logs, prints and writes while a bare loop trains, and that a resumed one goes on with the same."""

import json

import numpy as np
import pytest

from spectral_lightning.prediction import outlook
from spectral_lightning.tracking import Fitter
from spectral_lightning.tracking.observers import Forecaster
from tests.support.bare_loop import begin, monitor, train

STEPS = 12


def followed(place, capsys, **options):
    network, optimizer = begin()
    logged = []
    found = monitor(
        network, place, optimizer, log=lambda values, step: logged.append((step, values)), num_steps=STEPS, **options
    )
    train(network, optimizer, STEPS)
    found.close()
    return found, logged, capsys.readouterr().out


def observer(found):
    (one,) = [o for o in found.session.observers if isinstance(o, Forecaster)]
    return one


def test_scalars_sentence_and_file_are_those_of_the_history(tmp_path, capsys):
    found, logged, printed = followed(tmp_path, capsys, observers=[Fitter(criterion="harmonic")])
    answers = [
        (step, {k.removeprefix("spectral/answers/"): v for k, v in values.items()})
        for step, values in logged
        if any(k.startswith("spectral/answers/") for k in values)
    ]
    assert [step for step, _ in answers] == found.history.steps.tolist()
    expected = outlook(found.history, criterion="harmonic", end=STEPS)
    assert observer(found).outlook.sentence == expected.sentence
    assert answers[-1][1] == pytest.approx(expected.scalars())
    assert printed.count(f"spectral: {expected.sentence}") == 1
    document = found.session.results.files.read_json("forecast.json")
    assert document["sentence"] == expected.sentence
    assert document["end"] == STEPS
    plain = found.session.results.files.read_json("history.json")
    np.testing.assert_array_equal(plain["variance"], found.history.variance)


def test_without_a_fitter_it_is_silent(tmp_path, capsys):
    found, logged, printed = followed(tmp_path, capsys, observers=[])
    assert observer(found).outlook is None
    assert not any("/answers/" in tag for _, values in logged for tag in values)
    assert "By step" not in printed
    assert not (tmp_path / "spectral" / "forecast.json").exists()


def test_the_warning_is_printed_once(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("spectral_lightning.prediction.Outlook.warning", property(lambda self: "It will stop early."))
    _, _, printed = followed(tmp_path, capsys)
    assert printed.count("spectral: It will stop early.") == 1


def test_a_killed_run_has_the_file_of_its_last_measurement_and_a_resumed_one_goes_on(tmp_path, capsys):
    whole, _, _ = followed(tmp_path / "whole", capsys)
    network, optimizer = begin()
    first = monitor(network, tmp_path / "parts", optimizer, num_steps=STEPS)
    train(network, optimizer, 6)
    first._stop()  # killed: nothing is closed
    file = tmp_path / "parts" / "spectral" / "forecast.json"
    assert json.loads(file.read_text())["step"] == 6
    second = monitor(network, tmp_path / "parts", optimizer, num_steps=STEPS)
    second.load_state_dict(first.state_dict())
    train(network, optimizer, STEPS - 6)
    second.close()
    assert json.loads(file.read_text())["step"] == STEPS
    assert observer(second).outlook.document().keys() == observer(whole).outlook.document().keys()


def test_a_failing_forecast_does_not_stop_the_others(tmp_path, capsys, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("no forecast today")

    monkeypatch.setattr("spectral_lightning.tracking.observers.forecaster.outlook", fail)
    with pytest.warns(UserWarning, match="Forecaster.*no forecast today"):
        found, _, _ = followed(tmp_path, capsys, on_error="skip")
    assert found.history.last_step == STEPS
    assert (tmp_path / "spectral" / "emergence.json").exists()
