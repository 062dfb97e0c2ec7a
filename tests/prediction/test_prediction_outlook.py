"""What is said of a history: shares, scales and forecast by routes of their own, and plain words where it says little."""

import json
import re

import numpy as np
import pytest

from spectral_lightning.emergence import forecast
from spectral_lightning.emergence.forecasting import METHODS
from spectral_lightning.prediction import Scales, compare, outlook
from spectral_lightning.prediction.outlook import METHOD_TEXTS
from spectral_lightning.report import RunFiles
from spectral_lightning.spectra import FourierBasis, SpectralHistory, SpectralProbe

LAM = np.geomspace(10, 0.01, 40)
TAU = 300 * LAM**-0.6
STEPS = [0, *np.unique(np.geomspace(1, 1e5, 61).round()).astype(int)]


def history(last=10**5, tau=TAU, lam=LAM, start=1e-3, **static):
    table = SpectralHistory({"target": lam, "fixed_point": lam, **static})
    for step in (s for s in STEPS if s <= last):
        progress = 1 / (1 + (max(step, 1e-9) / tau) ** -2.0)
        variance = start * (lam / start) ** progress
        table.append(step=step, variance=variance, mean_deviation=0.1 * np.sqrt(lam))
    return table


def test_shares_and_forecast_are_those_of_the_modes():
    found = outlook(history(1000), end=3000)
    assert found.forecast.now == 1000
    learnt = TAU <= 1000  # halfway in log variance is the geometric threshold
    assert found.modes_learnt().value == pytest.approx(learnt.mean())
    assert found.variance_learnt().value == pytest.approx(LAM[learnt].sum() / LAM.sum())
    assert found.modes_learnt(3000).value == pytest.approx((TAU <= 3000).mean(), abs=0.05)
    actual = np.sort(TAU)[35]
    assert found.forecast.reach().value == pytest.approx(actual, rel=0.1)
    said = re.fullmatch(
        r"By step 1,000 the model has learnt (\d+) % of the variance and (\d+) % of the modes "
        r"\((\d+) % to within 10 % of their target\); at this pace 90 % of the modes "
        r"need ([\d,]+) steps \[([\d,]+), ([\d,]+)\]\.",
        found.sentence,
    )
    variance, modes, close, step, low, high = (int(text.replace(",", "")) for text in said.groups())
    assert (variance, modes) == (int(100 * LAM[learnt].sum() / LAM.sum()), int(100 * learnt.mean()))
    final = history(1000).variance[-1]
    assert close == int(100 * (np.abs(final / LAM - 1) <= 0.1).mean())
    assert low <= step <= high
    assert low <= actual <= high
    (course,) = found.forecast.courses
    assert f"{course.method!r} ({METHOD_TEXTS[course.method]}), chosen by {course.tests} tests" in found.rows()[-1][1]
    assert found.drift == pytest.approx(0.1)
    assert found.scalars()["steps_to_90_percent"] == pytest.approx(step, rel=0.1)
    assert outlook(history()).sentence.endswith("has learnt 100 % of the variance and 100 % of the modes.")


def test_a_mode_of_several_coordinates_has_their_variance():
    count = np.r_[np.ones(20, int), np.full(20, 9)]
    found = outlook(history(1000, multiplicity=count))
    assert found.variance_learnt().value == pytest.approx((count * LAM)[TAU <= 1000].sum() / (count * LAM).sum())


def test_the_arguments_are_those_of_the_comparison():
    table, theory = history(1000), history(1000, tau=2 * TAU)
    own = compare(table, theory, "harmonic", 3.0)
    given = (own.measured.initial, LAM, own.measured.threshold, own.measured.direction, own.measured.eligible("rising"))
    expected = forecast(
        table.steps, table.variance, *given, LAM, theory=own.predicted.time, end=2000, least_variance=0.1
    )
    found = outlook(table, theory, criterion="harmonic", gray_factor=3.0, end=2000, least_variance=0.1).forecast
    np.testing.assert_array_equal(found.step, expected.step)
    assert found.warnings == expected.warnings


@pytest.mark.parametrize("bands", [None, 5])
def test_scales_are_those_of_the_radial_spectrum(bands):
    import torch

    power = torch.rand(8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.5
    power = power + power.flip(0, 1).roll((1, 1), (0, 1))
    rows = torch.eye(64, dtype=torch.float64).reshape(64, 8, 8)
    covariance = torch.fft.ifft2(torch.fft.fft2(rows) * power).real.reshape(64, 64)
    basis = FourierBasis.from_moments(torch.zeros(64), covariance, (1, 8, 8), bands)
    table = SpectralProbe(basis, num_samples=4).history()
    wave = table["wavelength"]
    np.testing.assert_allclose(8 / wave, basis.frequency, atol=1e-12)
    short = wave < 3  # variance is missing there, by half
    table.append(step=0, variance=np.where(short, 0.5, 1.05) * table.fixed_point, standard_error=np.zeros_like(wave))
    found = Scales.of(table, 0)
    if bands is None:  # by hand: the ring of frequencies that round to 3 cycles along a side
        ky, kx = np.meshgrid(*[np.fft.fftfreq(8, 1 / 8)] * 2, indexing="ij")
        ring = np.hypot(ky, kx).round() == 3
        value = dict(zip(np.round(8 / found.wavelength), found.ratio, strict=True))[3]
        factor = np.where(8 / np.hypot(ky, kx)[ring] < 3, 0.5, 1.05)
        expected = np.zeros(64)
        expected[basis.entries.numpy()] = table.fixed_point[basis.mode_of.numpy()]
        mirrored = np.maximum(expected, expected[(-np.arange(8) % 8)[:, None] * 8 + (-np.arange(8) % 8)].ravel())
        weight = mirrored.reshape(8, 8)[ring]
        assert value == pytest.approx((factor * weight).sum() / weight.sum())
    assert found.finest > 3 > found.wavelength[found.count]
    assert "is missing" in found.sentence()
    bias = found.biases
    assert bias["smallest_scale_norm_bias"] == pytest.approx(-0.5)
    assert bias["positive_norm_bias"] == pytest.approx(np.clip(found.ratio - 1, 0, None).sum() / len(found.ratio))
    assert bias["mean_abs_norm_bias"] == pytest.approx(np.abs(found.ratio - 1).mean())
    assert bias["positive_norm_bias"] + bias["negative_norm_bias"] == pytest.approx((found.ratio - 1).mean())


@pytest.mark.parametrize(
    ("ratio", "error", "finest", "said"),
    [
        ((1.0, 1.0, 1.09), 0.0, 2.0, ""),
        ((1.0, 1.2, 1.0), 0.2, 2.0, ""),  # within two standard errors
        ((9.0, 1.0, 1.2), 0.05, 4.0, "structure finer than 4 pixels is too strong"),  # the mean is no structure
        ((1.0, 1.2, 1.0), 0.05, np.nan, "structure of every size is too strong"),
        ((1.0, 0.8, 0.7), 0.0, np.nan, "structure of every size is too weak"),
        ((1.0, 1.0, 0.3), 0.0, 4.0, "structure finer than 4 pixels is missing"),
        ((1.0, 0.5, 1.5), 0.0, np.nan, "structure of every size is off"),
        ((1.0, np.nan, np.nan), 0.0, np.nan, "structure of every size is not measured"),
    ],
)
def test_what_is_wrong_with_which_scales(ratio, error, finest, said):
    table = SpectralHistory({"target": np.ones(3), "fixed_point": np.full(3, 2.0), "wavelength": [np.inf, 4.0, 2.0]})
    table.append(step=0, variance=2 * np.array(ratio), standard_error=np.full(3, 2 * error))
    found = Scales.of(table, 0)
    assert found.sentence() == said
    assert found.finest == pytest.approx(finest, nan_ok=True)


def test_the_training_will_stop_too_early_is_said_once_it_is_known():
    assert outlook(history(200), end=10**4).warning == ""  # a fifth is learnt, in a fiftieth of the steps
    found = outlook(history(1000), end=1500, least_variance=0)
    said = re.match(r"Training ends at step 1,500, before (\d+) of the 40 modes", found.warning)
    assert int(said[1]) == pytest.approx((TAU > 1500).sum(), abs=2)
    assert outlook(history(1000), end=10**5).warning == ""
    few = np.r_[LAM, 1e-4], np.r_[TAU, 10**5]  # one falling mode, whose forecast cannot be tested: not before a third
    assert [bool(outlook(history(1000, *few[::-1]), end=end, least_variance=0).warning) for end in (5000, 2900)] == [
        False,
        True,
    ]
    assert outlook(history(1000), end=1000).warning == ""


def test_doubts_are_said():
    tau = np.random.default_rng(0).permutation(TAU)
    assert (
        "Do not rely on this forecast. Rising modes: they do not emerge in the order"
        in outlook(history(1000, tau)).sentence
    )


def nan(steps=(0, 1, 10)):
    table = SpectralHistory({"target": LAM, "fixed_point": LAM})
    for step in steps:
        table.append(step=step, variance=np.full(40, np.nan))
    return table


def broken():
    table = history(1000)
    table.append(step=2000, variance=np.full(40, np.nan), mean_deviation=np.full(40, np.nan))
    return table


POOR = {
    "empty": (lambda: nan(()), "Nothing has been measured yet."),
    "one row": (lambda: history(0), "Nothing finite has been measured since step 0. 40 of 40 modes have to be learnt."),
    "all NaN": (nan, "By step 10 nothing can be said about learning: of 40 modes 40 have no finite variance"),
    "NaN later": (broken, "By step 1,000 .* Nothing measured since, up to step 2,000, is finite."),
    "all censored": (
        lambda: history(tau=1e9 * TAU),
        "0 % of the variance and 0 % of the modes; too little has been learnt",
    ),
    "two modes": (
        lambda: history(1000, TAU[[0, 39]], LAM[[0, 39]]),
        "learnt 99 % of the variance and 50 % of the modes",
    ),
    "gray": (lambda: history(tau=TAU, start=LAM), "of 40 modes 40 have less than a factor of 2 to go"),
    "null": (
        lambda: history(lam=np.zeros(2), tau=1.0, start=1.0, null=[True, True]),
        "of 2 modes 2 have no variance in the data",
    ),
}


@pytest.mark.parametrize("case", POOR)
@pytest.mark.filterwarnings("error")
def test_poor_histories_get_an_answer(case, tmp_path):
    make, said = POOR[case]
    found = outlook(make(), end=10**6)
    assert re.search(said, found.sentence)
    assert all(isinstance(text, str) and "nan" not in text for row in found.rows() for text in row)
    assert np.isfinite(list(found.scalars().values())).all()
    RunFiles(tmp_path).write_json("forecast.json", found.document())
    assert json.loads((tmp_path / "forecast.json").read_text())["sentence"] == found.sentence


def test_every_method_is_described():
    assert METHOD_TEXTS.keys() == METHODS.keys()
