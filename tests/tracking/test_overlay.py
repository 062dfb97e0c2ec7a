"""The theory beside a measurement: derived, declared or given; on the learning rates' clock or a fitted one."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from spectral_lightning import Sampler, SpectralMonitor
from spectral_lightning.diffusion import Adapter
from spectral_lightning.prediction import compare
from spectral_lightning.spectra import PatchComponents, SpectralHistory
from spectral_lightning.tracking import Fitter, Overlay
from tests.support.flat import flat_tracker, one_layer

DIM, SAMPLER, RATE = 8, Sampler(num_steps=4), 0.02
VARIANCE = torch.logspace(1, -3, DIM, dtype=torch.float64)


def gaussian(count=64):
    """Rows whose second moments are exactly ``diag(VARIANCE)``."""
    q = torch.linalg.qr(torch.randn(count // 2, DIM, generator=torch.Generator().manual_seed(0)).double())[0]
    half = q * (count // 2) ** 0.5 * VARIANCE.sqrt()
    return torch.cat([half, -half])


FORMULAS = {  # prediction, path: skip, out, input scale
    "variance_preserving": ("epsilon", "variance-preserving", lambda s: (1, -s, (1 + s**2) ** -0.5)),
    "velocity": (
        "v",
        "variance-preserving",
        lambda s: (1 / (1 + s**2), -s * (1 + s**2) ** -0.5, (1 + s**2) ** -0.5),
    ),
    "x0": ("x0", "variance-preserving", lambda s: (0, 1, (1 + s**2) ** -0.5)),
    "flow": ("eps-x0", "linear", lambda s: (1 / (1 + s), -s / (1 + s), 1 / (1 + s))),
    "edm": ("edm", "edm", lambda s: (0.25 / (s**2 + 0.25), 0.5 * s * (s**2 + 0.25) ** -0.5, (s**2 + 0.25) ** -0.5)),
}


class PerLevel(nn.Module):
    """Somebody's network: ``F(x, sigma) = W x`` with a matrix for each noise level."""

    def __init__(self, kind, init=-0.5):
        super().__init__()
        self.formulas = torch.tensor([FORMULAS[kind][2](s) for s in SAMPLER.levels], dtype=torch.float64)
        self.weight = nn.Parameter(init * torch.eye(DIM, dtype=torch.float64).repeat(len(SAMPLER.levels), 1, 1))

    def forward(self, x, sigma):
        at = (torch.tensor(SAMPLER.levels)[:, None] - sigma).abs().argmin(0)
        return torch.einsum("bij,bj->bi", self.weight[at], x)

    def loss(self):
        """``E ||W a z - target||^2`` up to a constant, of ``target = (x0 - skip z) / out``, summed over the levels."""
        skip, out, a = self.formulas.T[..., None]
        noisy = VARIANCE + torch.tensor(SAMPLER.levels, dtype=torch.float64)[:, None] ** 2
        cross = (VARIANCE - skip * noisy) / out
        quadratic = (self.weight.square() * noisy[:, None]).sum((1, 2)) @ a[:, 0] ** 2
        return quadratic - 2 * (a * self.weight.diagonal(dim1=1, dim2=2) * cross).sum()


class Declared(PerLevel):
    """The same network, which knows its theory."""

    rate = RATE

    def dynamics(self):
        return one_layer(self.rate, "edm", discrete=True)

    def departures(self):
        return []


def descend(path, network, steps=60, kind="edm", overlay=None, optimizer=None, after=lambda: None, **options):
    """A monitor of exact gradient descent."""
    prediction, way, _ = FORMULAS[kind]
    optimizer = torch.optim.SGD(network.parameters(), RATE) if optimizer is None else optimizer
    observers = [Overlay() if overlay is None else overlay, *options.pop("others", [])]
    defaults = {
        "data": gaussian(),
        "denoiser": Adapter("affine", "", prediction=prediction, path=way, time="sigma"),
        "sampler": SAMPLER,
        "num_samples": 2 * DIM,
        "per_decade": 6,
        "directory": str(path),
        "figures": False,
    }
    settings = {**defaults, **options, "observers": observers}
    with flat_tracker(SpectralMonitor, network=network, optimizer=optimizer, **settings) as found:
        for _ in range(steps):
            optimizer.zero_grad()
            network.loss().backward()
            optimizer.step()
            after()
    return found


@pytest.mark.parametrize("kind", FORMULAS)
def test_the_derived_theory_of_every_convention_is_that_of_the_training(tmp_path, kind):
    # Initial weights with which no variance passes through zero on its way.
    network = PerLevel(kind, {"variance_preserving": -0.5, "x0": 1.0}.get(kind, 0.2))
    overlay, slow = Overlay(clock="learning_rate"), torch.optim.SGD(network.parameters(), 3e-4)
    history = descend(tmp_path, network, 400, kind, overlay, slow, track_gain=True).history
    assert repr(kind) in json.loads((tmp_path / "spectral" / "overlay.json").read_text())["theory"]
    # Gradient flow for descent in steps of at most 1 % of the error.
    np.testing.assert_allclose(overlay.history.variance, history.variance, rtol=0.01)
    np.testing.assert_allclose(overlay.history["gain"], history["gain"], rtol=0, atol=2e-3)
    natural, start = overlay.predicted.natural, overlay.predicted.start(history)
    for shift in (0.9, 1.1):
        shifted = natural.variance(shift * history.steps.astype(float), SAMPLER, start)
        assert np.abs(shifted / history.variance - 1).max() > 0.02


def test_what_is_declared_or_given_takes_precedence(tmp_path):
    derived, declared = Overlay(clock="learning_rate"), Overlay(clock="learning_rate")
    given = Overlay(one_layer(0.5 * RATE, "edm"), clock="learning_rate")
    descend(tmp_path, PerLevel("edm"), 20, overlay=derived)
    history = descend(tmp_path, Declared("edm"), 20, overlay=declared).history
    descend(tmp_path, PerLevel("edm"), 20, overlay=given)
    both = Overlay(one_layer(0.5 * RATE, "edm"), clock="learning_rate")
    descend(tmp_path, Declared("edm"), 20, overlay=both)
    texts = [" ".join(d.text for d in o.departures) for o in (derived, declared, given, both)]
    assert ["derived" in text for text in texts] == [True, False, False, False]
    assert ["not verified" in text for text in texts] == [False, False, True, False]
    assert texts[1] == texts[3] == ""
    np.testing.assert_allclose(declared.history.variance, history.variance, rtol=1e-9)  # discrete descent
    np.testing.assert_array_equal(given.history.variance, both.history.variance)
    slower = derived.predicted.natural.variance(0.5 * history.steps, SAMPLER, derived.predicted.start(history))
    np.testing.assert_allclose(given.history.variance, slower, rtol=1e-12)


@pytest.mark.parametrize("basis", ["pca", PatchComponents(3)], ids=["eigenmodes", "patches"])
def test_a_start_off_the_diagonal_is_followed(tmp_path, basis):
    """Weights that no gains determine: the prediction is the variance of the trained network."""
    network, overlay = Declared("edm"), Overlay()
    noise = torch.randn(network.weight.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    network.weight.data = 0.4 * noise
    history = descend(tmp_path, network, 30, overlay=overlay, basis=basis).history
    np.testing.assert_allclose(overlay.history.variance, history.variance, rtol=1e-8)  # the network's own descent
    natural, start = overlay.predicted.natural, overlay.predicted.start(history)
    for other in (
        natural.variance(history.steps, SAMPLER, start.without_response),
        natural.variance(np.ceil(1.1 * history.steps), SAMPLER, start),
    ):
        assert np.abs(np.log(other / history.variance)).max() > 0.02


def test_a_fitted_clock_finds_the_rate_from_a_start_off_the_diagonal(tmp_path):
    network, overlay = Declared("edm"), Overlay(one_layer(RATE / 3, "edm"), clock="fitted")
    noise = torch.randn(network.weight.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    network.weight.data = 0.4 * noise
    slow = torch.optim.SGD(network.parameters(), RATE / 20)
    history = descend(tmp_path, network, 200, overlay=overlay, optimizer=slow).history
    document = json.loads((tmp_path / "spectral" / "overlay.json").read_text())
    # Flow for steps of 1 % and a theory whose unit of time is that of a rate of RATE / 3, on 200 of its relaxation times.
    assert overlay.scale == pytest.approx(3 / 20, rel=0.02)
    assert document["start"] == "full response of the untrained network"
    assert document["rms_at_start"]["used"] < 1e-8
    assert document["rms_at_start"]["gains"] > 0.2
    assert "full response of the untrained network used" in document["departures"][-1]
    np.testing.assert_allclose(overlay.history.variance, history.variance, rtol=0.02)


def test_plain_descent_needs_no_fit(tmp_path):
    overlay = Overlay()
    descend(tmp_path, Declared("edm"), 20, overlay=overlay)
    document = json.loads((tmp_path / "spectral" / "overlay.json").read_text())
    assert (document["scale"], document["refit_scale"], document["departures"]) == (1.0, None, [])
    assert document["goodness_after_calibration"] is None
    assert "nothing fitted" in document["clock"]
    assert document["goodness_of_fit"]["rms"] < 1e-8 < document["goodness_of_fit"]["baseline"]


def test_a_varying_rate_is_followed(tmp_path):
    """Rates that fall by half every 20 updates: their sum is still the clock, up to the size of a step."""
    network, overlay = Declared("edm"), Overlay()
    network.rate = RATE / 8
    optimizer = torch.optim.SGD(network.parameters(), network.rate)
    halving = torch.optim.lr_scheduler.StepLR(optimizer, 20, 0.5)
    history = descend(tmp_path, network, overlay=overlay, optimizer=optimizer, after=halving.step).history
    assert history["cumulative_learning_rate"][-1] == pytest.approx(network.rate * (20 + 10 + 5))
    assert overlay.scale == 1
    np.testing.assert_allclose(overlay.history.variance, history.variance, rtol=0.01)


def test_an_optimizer_that_is_not_plain_descent_has_a_fitted_clock(tmp_path):
    network, overlay = Declared("edm"), Overlay()
    optimizer = torch.optim.SGD(network.parameters(), RATE, momentum=0.5)
    descend(tmp_path, network, 2, overlay=overlay, optimizer=optimizer)
    assert ["momentum" in departure.text for departure in overlay.departures] == [True]
    assert overlay.describe_clock().startswith("clock: one factor")


def test_a_fitted_clock_is_calibrated_once_back_filled_and_kept(tmp_path):
    overlay, logged, scales = Overlay(clock="fitted", start="gains"), [], []
    found = descend(
        tmp_path,
        Declared("edm"),
        overlay=overlay,
        log=lambda values, step: logged.append((step, values)),
        after=lambda: scales.append(overlay.scale),
    )
    steps, variance = found.history.steps, found.history.variance
    assert 1 < overlay.calibrated_at < 60
    assert {s is None for s in scales[: overlay.calibrated_at - 1]} == {True}
    assert set(scales[overlay.calibrated_at :]) == {overlay.scale}
    # Rows before the calibration are there too, at their own steps, all on the one scale.
    assert overlay.history.steps.tolist() == steps.tolist()
    curves = one_layer(RATE).on(found.history.target)
    expected = curves.generated_variance(steps * overlay.scale, SAMPLER, found.history["initial_gain"])
    np.testing.assert_allclose(overlay.history.variance, expected, rtol=1e-10)
    tag = "spectral/theory/mode_0001"
    assert [(s, v[tag]) for s, v in logged if tag in v] == list(zip(steps, overlay.history.variance[:, 0], strict=True))
    # The refit has a tag of its own and changes nothing.
    document = json.loads((tmp_path / "spectral" / "overlay.json").read_text())
    refit = "spectral/refit/time_scale"
    assert [(s, v[refit]) for s, v in logged if refit in v] == [(60, document["refit_scale"])]
    judged = document["judgement"]
    assert judged["fitted_to_step"] == overlay.calibrated_at
    for window in ("all_steps", "after_calibration"):
        for one in ("theory", "unchanged", "one_curve", "curve_by_variance"):
            assert [v[t] for _, v in logged if (t := f"spectral/judgement/{window}/{one}") in v] == [
                judged[window][one]
            ]
    assert (document["scale"], document["calibrated_at"]) == (overlay.scale, overlay.calibrated_at)
    emerged = found.session.comparison().measured
    modes = emerged.eligible("rising") | emerged.eligible("falling")
    assert document["goodness_of_fit"]["cells"] == (len(steps) - 1) * modes.sum()  # 0 is where both begin
    assert document["goodness_after_calibration"]["cells"] == (steps > overlay.calibrated_at).sum() * modes.sum()
    rms = np.sqrt(np.mean(np.log(variance[1:, modes] / expected[1:, modes]) ** 2))
    assert document["goodness_of_fit"]["rms"] == pytest.approx(rms, rel=1e-9)
    assert document["goodness_of_fit"]["rms"] < 0.3 * document["goodness_of_fit"]["baseline"]
    assert judged["all_steps"]["theory"] == pytest.approx(
        rms * (1 - 1 / len(steps)) ** 0.5, rel=1e-9
    )  # step 0 included
    assert judged["all_steps"]["theory"] < judged["all_steps"]["curve_by_variance"]
    assert judged["refit"]["theory"] < judged["all_steps"]["theory"] * 1.0001


def test_a_clock_never_calibrated_on_the_way_is_fitted_in_the_end(tmp_path):
    overlay = Overlay(clock="fitted", calibrate_after=0.999)
    descend(tmp_path, Declared("edm"), 5, overlay=overlay)

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    document = json.loads((tmp_path / "spectral" / "overlay.json").read_text(), parse_constant=refuse)
    assert overlay.calibrated_at == document["calibrated_at"] == 5
    assert document["goodness_after_calibration"] == {"rms": None, "baseline": None, "cells": 0}
    assert "not determinable" in document["judgement"]["after_calibration"]["verdict"]


def first_rows(history, count):
    """A history that ends with row ``count``."""
    found = SpectralHistory({name: history[name] for name in ("target", "fixed_point")})
    for i in range(count + 1):
        found.append(step=history.steps[i], variance=history.variance[i])
    return found


@pytest.mark.parametrize("criterion", ["geometric", "harmonic", "arithmetic", 0.5])
def test_the_clock_is_calibrated_by_the_criterion_of_the_fitter(tmp_path, criterion):
    overlay, gray = Overlay(clock="fitted", calibrate_after=0.3), 1.5
    found = descend(tmp_path, Declared("edm"), 80, overlay=overlay, others=[Fitter(criterion, gray)])
    ready = []
    for row in range(1, len(found.history)):
        emerged = compare(first_rows(found.history, row), None, criterion, gray).measured
        both = [(emerged.crossed(way).sum(), emerged.eligible(way).sum()) for way in ("rising", "falling")]
        crossed, eligible = np.sum(both, axis=0)
        ready.append(crossed >= max(5, 0.3 * eligible))
    assert overlay.calibrated_at == found.history.steps[1 + ready.index(True)]
