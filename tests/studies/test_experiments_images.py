"""Faces and digits: the report's numbers by another route, on tables whose order is known."""

import re

import numpy as np
import pytest
from scipy import stats

from studies import images
from tests.support.stored_orders import emergence_by_law, history, store

EXPONENTS = {
    "faces_mlp": 0.4,
    "faces_unet": 0.02,
    "mnist_mlp": 0.02,
    "mnist_unet": 0.4,
}  # the digits the wrong way round


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    place, found = tmp_path_factory.mktemp("images"), {}
    variance = np.append(np.geomspace(40, 0.004, 60), 0.0)  # and a mode without variance
    for number, (run, exponent) in enumerate(EXPONENTS.items()):
        noise = np.exp(0.05 * np.random.default_rng(number).normal(size=61))
        time = emergence_by_law(np.maximum(variance, 1e-3), exponent, 30) * noise
        table = history(np.maximum(variance, 1e-12), time)
        table.static["target"], table.static["null"] = variance, variance <= 0
        tables = {"spectral": table, "fourier": table}
        found[run] = store(place / run, tables, tables)
    return found


@pytest.fixture(scope="module")
def report(results):
    return images.report(results)


def test_the_runs_of_the_experiment_are_those_of_the_report():
    assert {run.name for run in images.EXPERIMENT.runs} == set(EXPONENTS)


@pytest.mark.parametrize("run", EXPONENTS)
def test_exponents_of_the_report_are_those_of_the_tables(results, report, run):
    table, last = results[run].history(), []
    for k in np.flatnonzero((table.target > 0) & (table.target > 2 * 1.2)):
        i = np.flatnonzero(table.variance[:, k] >= np.sqrt(1.2 * table.target[k]))[0]
        value = np.log(table.variance[[i - 1, i], k] / np.sqrt(1.2 * table.target[k]))
        step = np.log(table.steps[[i - 1, i]])
        last.append((np.log(table.target[k]), step[0] - value[0] * (step[1] - step[0]) / (value[1] - value[0])))
    alpha = -stats.linregress(*np.transpose(last)).slope
    data, net = run.split("_")
    claim = f"{images._CLAIMS[net][0]}: {images._DATA[data]}"
    row = next(row for row in report.rows if row.claim.startswith(claim))
    assert float(re.search(r"rising: (-?[\d.]+)", row.measured)[1]) == pytest.approx(alpha, abs=0.006)


def test_a_network_that_does_the_opposite_is_not_confirmed(report):
    said = {row.claim.split(", eigenmodes")[0].split(": ")[1] + row.claim[:6]: row.verdict for row in report.rows}
    assert said["facesAn MLP"].startswith("confirmed")
    assert said["facesA U-Ne"].startswith("confirmed")
    assert said["digitsAn MLP"].startswith("not confirmed")
    assert said["digitsA U-Ne"].startswith("not confirmed")


def test_modes_without_variance_are_counted_apart(report):
    assert report.text.count("1 without variance") == 2


def test_the_two_networks_see_the_same_data_and_budget():
    runs = {run.name: run.configuration() for run in images.EXPERIMENT.runs}
    for data in images._DATA:
        mlp, unet = (runs[f"{data}_{net}"] for net in ("mlp", "unet"))
        assert mlp["data"] == unet["data"]
        assert mlp["trainer"]["callbacks"] == unet["trainer"]["callbacks"]
        assert mlp["trainer"]["max_steps"] == unet["trainer"]["max_steps"]
        assert mlp["model"]["init_args"]["preconditioning"] == unet["model"]["init_args"]["preconditioning"]
