"""The theory's time: fitted, or had from the learning rates; calibrated once and then kept."""

import json

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from spectral_lightning.callbacks import AnalyticOverlay
from spectral_lightning.models import LinearDenoiser
from spectral_lightning.prediction.clock import Fit, fit_time_scale, goodness_of_fit, training_time
from spectral_lightning.spectra import SpectralHistory
from tests.support.tiny_training import SAMPLER, THEORY, OwnModule, examples, loader, tracker, trainer, without_drawing

STEPS = np.array([0.0, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0])
RATES = np.array([0.5, 0.1, 0.02])


def saturating(time):
    """From 1 to 0.01 at a rate per mode."""
    return 0.01 + 0.99 * np.exp(-np.outer(time, RATES))


@pytest.mark.parametrize("factor", [3e-4, 0.37, 1.0, 25.0, 4e3])
def test_a_known_factor_is_recovered(factor):
    # xatol is 1e-4 in the logarithm, beside which nothing is lost on noiseless curves.
    measured = saturating(STEPS * factor)
    modes = np.array([True, True, True])
    if factor > 100:  # everything is over by the first record, so that only slow modes tell
        measured = 0.01 + 0.99 * np.exp(-np.outer(STEPS * factor, RATES * 1e-4))
        found = fit_time_scale(STEPS, measured, lambda t: 0.01 + 0.99 * np.exp(-np.outer(t, RATES * 1e-4)), modes)
    else:
        found = fit_time_scale(STEPS, measured, saturating, modes)
    assert found == pytest.approx(factor, rel=3e-4)


def test_only_the_given_modes_count():
    measured = saturating(STEPS * 2.0)
    measured[:, 0] = saturating(STEPS * 50.0)[:, 0]
    assert fit_time_scale(STEPS, measured, saturating, np.array([False, True, True])) == pytest.approx(2, rel=3e-4)
    assert abs(fit_time_scale(STEPS, measured, saturating, np.ones(3, bool)) - 2) > 0.1


def test_noise_moves_the_factor_little():
    noise = np.exp(0.05 * np.random.default_rng(0).normal(size=(len(STEPS), 3)))
    found = fit_time_scale(STEPS, saturating(STEPS * 1.7) * noise, saturating, np.ones(3, bool))
    # 5 % noise on about ten informative points: a few percent, five sigma at 10 %.
    assert found == pytest.approx(1.7, rel=0.1)


def test_goodness_of_fit_against_loops():
    rng = np.random.default_rng(1)
    measured, predicted = rng.uniform(0.1, 2, (4, 5)), rng.uniform(0.1, 2, (4, 5))
    measured[1, 2], measured[2, 0], predicted[3, 3] = 0.0, np.nan, 0.0
    initial, modes = measured[0], np.array([True, False, True, True, True])
    errors, trivial = [], []
    for t in range(4):
        for k in (0, 2, 3, 4):
            if measured[t, k] > 0 and predicted[t, k] > 0:
                errors.append(np.log(measured[t, k] / predicted[t, k]) ** 2)
                trivial.append(np.log(measured[t, k] / initial[k]) ** 2)
    fit = goodness_of_fit(measured, predicted, initial, modes)
    assert fit.cells == len(errors) == 13
    np.testing.assert_allclose([fit.rms, fit.baseline], np.sqrt([np.mean(errors), np.mean(trivial)]), rtol=1e-12)


def test_a_fit_says_whether_it_beats_no_theory():
    assert "better than" in str(Fit(0.1, 0.5, 3))
    assert "no better than" in str(Fit(0.6, 0.5, 3))
    nothing = goodness_of_fit(np.ones((2, 1)), np.ones((2, 1)), np.ones(1), np.array([False]))
    assert nothing.cells == 0
    assert str(nothing).startswith("not determinable")


def _history(steps, rates):
    history = SpectralHistory({"target": [1.0], "fixed_point": [1.0]})
    for step, rate in zip(steps, rates, strict=True):
        history.append(step=step, variance=[1.0], cumulative_learning_rate=rate)
    return history


def test_at_a_constant_rate_time_is_the_whole_number_of_updates():
    rates = np.cumsum(np.full(1000, 0.1))  # not a multiple of 0.1 in floating point
    steps = [0, 1, 7, 333, 1000]
    history = _history(steps, [0.0, *(rates[s - 1] for s in steps[1:])])
    assert training_time(history, 0.1).tolist() == steps


def test_at_a_varying_rate_updates_are_weighted():
    history = _history([0, 1, 2, 3], [0.0, 0.2, 0.3, 0.35])
    np.testing.assert_allclose(training_time(history, 0.2), [0, 1, 1.5, 1.75], rtol=1e-12)


@pytest.mark.parametrize(("base", "rates"), [(None, [0.0, 0.1, 0.2]), (0.1, [0.0, 0.0, 0.0]), (0.0, [0.0, 0.1, 0.2])])
def test_without_a_known_rate_time_is_updates(base, rates):
    assert training_time(_history([0, 4, 9], rates), base).tolist() == [0.0, 4.0, 9.0]


# In a training.


@pytest.fixture
def no_drawing(monkeypatch):
    without_drawing(monkeypatch)


def linear(data, **options):
    """Trained on the exact loss of the data's own moments, by descent."""
    descent = {"optimizer": lambda p: torch.optim.SGD(p, 0.01)}
    module = LinearDenoiser(8, sampler=SAMPLER, init=-0.5, **{**descent, **options})
    centred = data - data.mean(0)
    module.set_moments(torch.zeros(8), centred.T @ centred / len(data))
    return module


def run_linear(path, overlay, module=None, steps=60, logger=False, **options):
    data = examples(256)
    data = data - data.mean(0)
    own = tracker(per_decade=6, sampler=None, data=data)
    torch.manual_seed(0)
    run = trainer(path, [own, overlay], max_steps=steps, logger=logger, **options)
    run.fit(linear(data) if module is None else module, loader(data))
    return own, run


def report(path, name="spectral"):
    return json.loads((path / name / "overlay.json").read_text())


@pytest.mark.usefixtures("no_drawing")
def test_a_fitted_clock_is_calibrated_once_back_filled_and_kept(tmp_path):
    overlay = AnalyticOverlay(clock="fitted", figures_per_decade=1)
    scales = []
    measurement = overlay.on_measurement

    def recording(session):
        measurement(session)
        scales.append(overlay.scale)

    overlay.on_measurement = recording
    logger = TensorBoardLogger(tmp_path, name="log", version=0)
    own, _ = run_linear(tmp_path, overlay, logger=logger)
    known = [s for s in scales if s is not None]
    assert scales[0] is None
    assert len(known) >= 2
    assert len(set(known)) == 1
    assert 1 < overlay.calibrated_at < 60

    # Rows before the calibration are there too, at their own steps, all on the one scale.
    steps, variance = own.history.steps, own.history.variance
    assert overlay.history.steps.tolist() == steps.tolist()
    expected = flow_of(own, steps * overlay.scale)
    np.testing.assert_allclose(overlay.history.variance, expected, rtol=1e-10)
    events = EventAccumulator(str(tmp_path / "log" / "version_0")).Reload()
    tag = own.session.results.tag("theory", 0)
    found = events.Scalars(tag)
    assert [e.step for e in found] == steps.tolist()
    np.testing.assert_allclose([e.value for e in found], expected[:, 0], rtol=1e-6)  # stored in single precision
    assert [e.step for e in events.Scalars(own.session.results.tag("variance", 0))] == steps.tolist()

    # The refit has a tag of its own and changes nothing.
    refit = events.Scalars("spectral/refit/time_scale")
    document = report(tmp_path / "log" / "version_0")
    assert [(e.step, pytest.approx(e.value, rel=1e-6)) for e in refit] == [(60, document["refit_scale"])]
    assert document["scale"] == overlay.scale
    assert document["calibrated_at"] == overlay.calibrated_at
    assert f"fitted at step {overlay.calibrated_at} and kept since" in document["clock"]
    emerged = own.session.comparison().measured
    modes = emerged.eligible("rising") | emerged.eligible("falling")
    assert document["goodness_of_fit"]["cells"] == (len(steps) - 1) * int(modes.sum())  # 0 is where both begin
    assert document["goodness_after_calibration"]["cells"] == int((steps > overlay.calibrated_at).sum()) * modes.sum()
    rms = np.sqrt(np.mean(np.log(variance[1:, modes] / expected[1:, modes]) ** 2))
    assert document["goodness_of_fit"]["rms"] == pytest.approx(rms, rel=1e-9)
    # Gradient flow with a free factor against the descent it approximates; the trivial baseline is far off.
    assert document["goodness_of_fit"]["rms"] < 0.3 * document["goodness_of_fit"]["baseline"]


def flow_of(own, time):
    theory = linear(examples()).dynamics().gradient_flow().on(own.history.target)
    return theory.generated_variance(time, own.session.probe.sampler, own.history["initial_gain"])


@pytest.mark.usefixtures("no_drawing")
def test_plain_descent_needs_no_fit(tmp_path):
    overlay = AnalyticOverlay(figures_per_decade=1)
    own, _ = run_linear(tmp_path, overlay, steps=20)
    document = report(tmp_path)
    assert document["scale"] == 1.0
    assert document["refit_scale"] is None
    assert document["goodness_after_calibration"] is None
    assert document["departures"] == []
    assert document["clock"] == "clock: the sum of the learning rates, nothing fitted"
    assert document["theory"].startswith("OneLayer(")
    assert " at 0x" not in document["theory"]
    # Single-precision weights, through a sampler that amplifies their rounding.
    np.testing.assert_allclose(overlay.history.variance, own.history.variance, rtol=0.02)
    assert overlay.describe_departures() == "All assumptions of the theory are met."


@pytest.mark.usefixtures("no_drawing")
def test_a_clock_never_calibrated_on_the_way_is_fitted_in_the_end(tmp_path):
    overlay = AnalyticOverlay(clock="fitted", calibrate_after=0.999, figures_per_decade=1)
    run_linear(tmp_path, overlay, steps=5)
    assert overlay.calibrated_at == 5
    assert report(tmp_path)["goodness_after_calibration"]["cells"] == 0
    assert report(tmp_path)["goodness_after_calibration"]["rms"] is None


def test_the_report_is_strict_json(tmp_path, monkeypatch):
    without_drawing(monkeypatch)
    run_linear(tmp_path, AnalyticOverlay(clock="fitted", calibrate_after=0.999), steps=5)

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    json.loads((tmp_path / "spectral" / "overlay.json").read_text(), parse_constant=refuse)


def test_the_clock_is_kept_in_checkpoints():
    overlay, twin = AnalyticOverlay(), AnalyticOverlay()
    overlay.load_state_dict({"scale": 0.125, "calibrated_at": 46})
    twin.load_state_dict(torch.load(_saved(overlay.state_dict()), weights_only=True))
    assert (twin.scale, twin.calibrated_at) == (0.125, 46)
    twin.load_state_dict({})
    assert (twin.scale, twin.calibrated_at) == (None, None)


def _saved(state):
    import io

    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return buffer


DEPARTURES = {
    "plain": ({}, {}, []),
    "momentum": ({"momentum": 0.9}, {}, ["plain gradient descent assumed, SGD with momentum = 0.9 used"]),
    "weight decay": ({"weight_decay": 0.1}, {}, ["plain gradient descent assumed, SGD with weight_decay = 0.1 used"]),
    "clipping": ({}, {"gradient_clip_val": 0.5}, ["unclipped gradients assumed, clipping at 0.5 used"]),
}


@pytest.mark.usefixtures("no_drawing")
@pytest.mark.parametrize(("options", "trainer_options", "expected"), DEPARTURES.values(), ids=DEPARTURES)
def test_departures_of_the_optimizer(tmp_path, options, trainer_options, expected):
    overlay = AnalyticOverlay(theory=THEORY)
    data = examples() - examples().mean(0)
    run = trainer(tmp_path, [tracker(), overlay], max_steps=1, **trainer_options)
    run.fit(OwnModule(**options), loader(data))
    assert [d.text for d in overlay.departures][1:] == expected
    assert report(tmp_path)["departures"] == [d.text for d in overlay.departures]


@pytest.mark.usefixtures("no_drawing")
@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (lambda data: linear(data, optimizer=lambda p: torch.optim.Adam(p, 1e-3)), "assumed, Adam used"),
        (lambda data: linear(data, optimizer=lambda p: torch.optim.AdamW(p, 1e-3)), "assumed, AdamW used"),
        (lambda data: linear(data, optimizer=lambda p: torch.optim.SGD(p, 0.01, 0.5)), "momentum = 0.5 used"),
    ],
)
def test_an_optimizer_that_is_not_plain_descent_has_no_clock_of_its_own(tmp_path, module, expected):
    overlay = AnalyticOverlay(figures_per_decade=1)
    run_linear(tmp_path, overlay, module(examples()), steps=2)
    assert expected in overlay.describe_departures()
    assert overlay.describe_clock().startswith("clock: one factor")


@pytest.mark.usefixtures("no_drawing")
def test_a_mean_is_a_departure_that_leaves_the_clock(tmp_path):
    overlay = AnalyticOverlay(figures_per_decade=1)
    data = examples() - examples().mean(0) + 1.0
    own = tracker(sampler=None)
    trainer(tmp_path, [own, overlay], max_steps=1).fit(linear(data), loader(data))
    ratio = 8 / float(own.basis.variance.sum())
    assert [d.text for d in overlay.departures] == [
        f"zero mean of the data assumed, squared mean is {ratio:.2g} of the total variance"
    ]
    assert overlay.describe_clock() == "clock: the sum of the learning rates, nothing fitted"


@pytest.mark.usefixtures("no_drawing")
def test_a_varying_rate_is_followed(tmp_path):
    """Rates that fall by half every 20 updates: their sum is still the clock, up to the size of a step."""
    overlay = AnalyticOverlay(figures_per_decade=1)

    def halving(optimizer):
        return torch.optim.lr_scheduler.StepLR(optimizer, 20, 0.5)

    data = examples(256) - examples(256).mean(0)
    module = linear(data, optimizer=lambda p: torch.optim.SGD(p, 0.01), lr_scheduler=halving)
    own, _ = run_linear(tmp_path, overlay, module)
    time = training_time(own.history, 0.01)
    assert time[-1] == pytest.approx(20 + 10 + 5, rel=1e-6)
    np.testing.assert_allclose(overlay.history.variance, own.history.variance, rtol=0.02)
