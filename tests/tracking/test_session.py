"""A session by itself: the way of a measurement, what is looked at, and what is drawn."""

import copy
import traceback
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import spectral_lightning
from spectral_lightning import Sampler, Sampling, SpectralMonitor, SpectralProbe
from spectral_lightning.spectra.measurement.scatter import Scatter
from spectral_lightning.theory.solving.generation import tuned_sampler
from spectral_lightning.tracking import Output, Session, Settings, switched_off
from spectral_lightning.tracking.first_look import check_again
from spectral_lightning.tracking.timing import Budget
from tests.support.bare_loop import Network, begin, examples, monitor, train
from tests.support.tiny_training import draw_blanks

PACKAGE = Path(spectral_lightning.__file__).parent


class Traced(Network):
    """Writes down by which of the package's functions it is reached."""

    def __init__(self):
        super().__init__()
        self.ways = set()

    def forward(self, z, sigma):
        frames = [f for f in traceback.extract_stack() if Path(f.filename).is_relative_to(PACKAGE)]
        self.ways.add(tuple(f"{Path(f.filename).stem}.{f.name}" for f in frames))
        return super().forward(z, sigma)


WAY = (
    "session.after_update",
    "session.measure",
    "probe.generate",
    "sampler.__call__",
    "solvers.heun",
    "probe.evaluated",
)


@pytest.mark.parametrize(("hooks", "trigger"), [(True, "monitor._after"), (False, "monitor.step")])
def test_a_measurement_is_a_few_stations_long(tmp_path, hooks, trigger):
    network = Traced()
    optimizer = torch.optim.Adam(network.parameters())
    options = {"sampling": Sampling(16, Sampler()), "output": Output(str(tmp_path), figures=False)}
    given = optimizer if hooks else None
    found = SpectralMonitor(network, examples(), network.forward, given, **options)
    train(network, optimizer, 1, found.step)  # the first update begins the measurements if hooks are followed
    network.ways.clear()
    train(network, optimizer, 1, found.step)
    assert network.ways == {(), (trigger, *WAY)}  # the training's own step, and the measurement


@pytest.mark.parametrize(
    ("last", "step", "looks"),
    [(50, 63, False), (79, 100, True), (100, 126, False), (98, 102, True), (0, 251, True), (631, 1259, True)],
)
def test_the_denoiser_is_looked_at_again_where_a_power_of_ten_was_crossed(last, step, looks):
    calls = []
    check_again(lambda: calls.append(step), last, step)
    assert bool(calls) is looks


def test_errors_and_bias_are_those_of_repeated_measurements(tmp_path):
    """One block of latents, the tuned sampler: by hand at the first and the last step, carried on in between."""
    network, optimizer = begin()
    network.eval()
    options = {"sampling": Sampling(num_samples=16), "output": Output(str(tmp_path), figures=False)}
    weights = [copy.deepcopy(network.state_dict())]
    with SpectralMonitor(network, examples(), network.forward, optimizer, **options) as found:
        train(network, optimizer, 4, lambda: weights.append(copy.deepcopy(network.state_dict())))
    history, sampler = found.history, found.session.probe.sampler
    assert sampler == tuned_sampler(found.basis.variance.numpy(), 8, 0.03)
    scatter = Scatter()
    for i, (step, row) in enumerate(zip(history.steps, history.variance, strict=True)):
        network.load_state_dict(weights[step])
        measured = {}
        for key, one, count, part in (
            ("again", sampler, 16, 1),
            ("coarse", sampler, 8, 2),  # half a block, which rotates
            ("fine", replace(sampler, num_steps=24), 8, 2),
        ):
            probe = SpectralProbe(found.basis, one, count, part=part)
            probe.rotate(found.session.schedule.count(0, int(step)))
            measured[key] = probe.measure(network, 0)["variance"]
        if i in (0, len(history) - 1):
            scatter.add(torch.from_numpy(row), torch.from_numpy(measured["again"]))
            bias = np.log(measured["coarse"] / measured["fine"])
            np.testing.assert_allclose(history["sampler_bias"][i], bias, rtol=1e-3, atol=1e-6)
        else:
            assert np.isnan(history["sampler_bias"][i]).all()
        np.testing.assert_allclose(history["standard_error"][i], scatter.relative().numpy() * row, rtol=1e-3)
    assert history.metadata["standard_error"].startswith("repeated")


def test_a_thinned_run_measures_a_step_with_the_same_slice(tmp_path, monkeypatch):
    """Four latents in eight dimensions, every second scheduled measurement; 12 is not on the schedule."""

    def run(place):
        network, optimizer = begin()
        with monitor(network, tmp_path / place, optimizer, sampling=Sampling(4, Sampler(num_steps=4))) as found:
            train(network, optimizer, 12)
        return found.history

    whole, due = run("whole"), iter([True, False] * 6)
    monkeypatch.setattr(Budget, "affords", lambda *_: next(due))
    thinned = run("thinned")
    assert whole["slice"].tolist() == [0, 4, 0, 6, 2, 0, 0]
    assert thinned.steps.tolist() == [0, 1, 3, 10, 12]
    rows = np.searchsorted(whole.steps, thinned.steps)
    np.testing.assert_array_equal(thinned["slice"], whole["slice"][rows])
    np.testing.assert_array_equal(thinned.variance, whole.variance[rows])


def test_what_is_known_later_says_so():
    session = Session(Settings())
    for name in ("training", "probe", "results", "measured", "basis"):
        with pytest.raises(RuntimeError, match="known once"):
            getattr(session, name)
    assert (session.last_step, session.started, session.prediction) == (0, False, None)


@pytest.mark.parametrize("value", ["off", "OFF", "0", "false", "on", ""])
def test_the_switch(monkeypatch, value):
    monkeypatch.setenv("SPECTRAL_LIGHTNING", value)
    assert switched_off() is (value not in ("on", ""))


@pytest.mark.parametrize("figures", [True, False])
def test_figures_can_be_switched_off(tmp_path, monkeypatch, figures):
    drawn = []
    draw_blanks(monkeypatch, lambda *parts, **_: drawn.append(parts) or Figure((1, 1)))
    network, optimizer = begin()
    gains = {"sampling": Sampling(num_samples=16, sampler=Sampler(num_steps=3), track_gain=True)}
    with monitor(network, tmp_path, optimizer, output=Output(str(tmp_path), figures=figures), **gains):
        train(network, optimizer, 3)
    pictures = sorted(p.name for p in tmp_path.rglob("*.png"))
    assert pictures == (["emergence.png", "gain.png", "overlay.png"] if figures else [])
    assert bool(drawn) is figures
