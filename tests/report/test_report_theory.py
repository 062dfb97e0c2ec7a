"""The theory's commands: the table of exponents, the figures read back from their axes, the files beside them."""

import csv
from functools import partial

import numpy as np
import pytest
from matplotlib.figure import Figure

from spectral_lightning.cli import main
from spectral_lightning.emergence import StaysWithin
from spectral_lightning.report.theory.curves import TheoryCurves, on_spectrum
from spectral_lightning.report.theory.exponents import exponent_laws
from spectral_lightning.report.theory.figures import curves_figure, emergence_grid
from spectral_lightning.report.theory.paper import FIGURES, INITS, convolution, non_centered, power_law_field
from spectral_lightning.sampling import Sampler
from spectral_lightning.theory import (
    FlowMatching,
    FullWidthConvolution,
    LocalConvolution,
    NonCenteredOneLayer,
    Objective,
    OneLayer,
    SymmetricTwoLayer,
)

OBJECTIVE = Objective(1e-3)
LAM = np.geomspace(100, 1e-2, 7)

# As published with the theory: criterion, slope of rising and of falling modes, decimals printed, modes of either.
PRINTED = [
    ("one layer, Q=0", "geometric", -0.985, None, 3, (20, 0)),
    ("one layer, Q=0.1", "geometric", -1.019, None, 3, (20, 0)),
    ("one layer, Q=0.1", "harmonic", -1.183, None, 3, (20, 0)),
    ("one layer, Q=0.5", "geometric", -1.169, -1.031, 3, (10, 8)),
    ("one layer, Q=0.5", "harmonic", -1.354, -1.869, 3, (10, 8)),
    ("one layer, Q=1", "geometric", None, -0.496, 3, (0, 20)),
    ("one layer, Q=1", "harmonic", None, -1.000, 3, (0, 20)),
    ("symmetric two layer, Q=0.1", "geometric", -1.012, None, 3, (20, 0)),
    ("symmetric two layer, Q=0.1", "harmonic", -1.133, None, 3, (20, 0)),
    ("EDM, q=0, no noise density", "geometric", -0.536, -0.462, 3, (9, 8)),
    ("EDM, q=0, no noise density", "harmonic", -0.987, -0.932, 3, (9, 8)),
    ("EDM, q=0, density of log sigma", "geometric", -0.32, -0.48, 2, (9, 8)),
    ("EDM, q=0, density of log sigma", "harmonic", -0.98, -1.26, 2, (9, 8)),
    ("EDM, q=0, density per d sigma", "geometric", -0.03, -0.32, 2, (9, 8)),
    ("EDM, q=0, density per d sigma", "harmonic", -0.98, -0.71, 2, (9, 8)),
]


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def laws():
    return exponent_laws()


@pytest.mark.parametrize(("dynamics", "criterion", "rising", "falling", "decimals", "modes"), PRINTED)
def test_exponents_are_those_printed(laws, dynamics, criterion, rising, falling, decimals, modes):
    found = laws[dynamics, criterion]
    assert (found["rising"].count, found["falling"].count) == modes
    for way, printed in (("rising", rising), ("falling", falling)):
        assert found[way].determinable == (printed is not None)
        if printed is not None:
            # Half of the last digit; the one cell printed as -0.987 is -0.98645 by brute force too.
            allowed = 0.0015 if printed == -0.987 else 0.5 * 10**-decimals
            assert -found[way].exponent == pytest.approx(printed, abs=allowed)


def test_the_exponents_command_prints_and_writes_them(tmp_path, capsys, monkeypatch, laws):
    assert list(laws) == [(dynamics, criterion) for dynamics, criterion, *_ in PRINTED]
    monkeypatch.setattr("spectral_lightning.report.theory.command.exponent_laws", lambda: laws)
    main(["exponents", "--out", str(tmp_path / "sub" / "exponents.csv")])
    shown = capsys.readouterr().out
    for slope in ("-0.985", "-1.183", "-1.869", "-0.536", "-1.258", "-0.030"):
        assert slope in shown
    for line in read(tmp_path / "sub" / "exponents.csv"):
        found = laws[line["dynamics"], line["criterion"]]
        np.testing.assert_equal(float(line["increasing"]), -found["rising"].exponent)
        np.testing.assert_equal(float(line["decreasing"]), -found["falling"].exponent)


def test_the_theory_command_writes_what_the_family_says(tmp_path, capsys):
    family = ["--family", "OneLayer", "--family.objective.learning_rate", "0.01", "--family.init", "0.5"]
    options = ["--spectrum", str(LAM.tolist()), "--sigma", "[1.0]", "--num_times", "7"]
    main(["theory", *family, *options, "--out", str(tmp_path / "new")])
    theory = OneLayer(Objective(0.01), 0.5)
    assert (tmp_path / "new" / "theory.png").stat().st_size > 10_000
    drawn = read(tmp_path / "new" / "theory_curves.csv")
    assert len(drawn) == 2 * 7 * len(LAM)
    for row in drawn:
        time, lam = float(row["time"]), float(row["variance"])
        curves = theory.on(lam)
        one = curves.weight(time, 1.0) if row["quantity"] == "weight" else curves.generated_variance(time)
        np.testing.assert_allclose(float(row["value"]), one, rtol=1e-12)  # summed in another order
    emerged = read(tmp_path / "new" / "theory_emergence.csv")
    assert {row["criterion"] for row in emerged} == {"geometric", "harmonic", "arithmetic", "stays within 10 %"}
    for row in emerged:
        criterion = StaysWithin(0.1) if row["criterion"].startswith("stays") else row["criterion"]
        one = theory.on(float(row["variance"])).emergence_time(criterion)
        np.testing.assert_allclose(float(row["time"]), one, rtol=1e-9)  # root finding
    assert {row["direction"] for row in emerged} == {"rising", "falling", "gray zone"}
    shown = capsys.readouterr().out
    slope = f"{-theory.on(LAM).exponent()['rising'].exponent:.3f}"
    assert slope in shown
    assert "stays within 10 %" in shown


@pytest.mark.parametrize(
    "family",
    [
        ["SymmetricTwoLayer"],
        ["DeepLinear", "--family.depth", "3"],
        ["FlowMatching", "--family.init", "0"],
        ["NonCenteredOneLayer", "--mean", "0.5"],
        ["FullWidthConvolution", "--family.bias", "shared", "--mean", "0.5"],
        ["LocalConvolution", "--family.kernel_size", "3", "--sampler.num_steps", "6"],
        ["OneLayer", "--family.objective.discrete", "true", "--family.objective.learning_rate", "1e-4"],
    ],
    ids=lambda family: family[0],
)
def test_every_family_is_drawn(family, tmp_path, monkeypatch):
    monkeypatch.setattr(Figure, "savefig", lambda *_, **__: None)  # rendered in other tests
    options = ["--modes", "4", "--sigma", "[1.0]", "--num_times", "5", "--criteria", "[geometric]"]
    main(["theory", "--family", *family, *options, "--lowest", "0.01", "--out", str(tmp_path)])
    curves = read(tmp_path / "theory_curves.csv")
    assert len({row["variance"] for row in curves}) == 4
    assert all(np.isfinite(float(row["value"])) for row in curves)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--spectrum", "[]"], "`spectrum` must hold at least one variance"),
        (["--spectrum", "[1, 0]"], "`spectrum` must hold at least one variance, all finite and above 0"),
        (["--lowest", "200"], "`lowest` must be below `highest`"),
        (["--modes", "1"], "`modes` must be an integer of at least 2"),
        (["--mean", "1"], "`mean` must be 0 for OneLayer"),
        (["--criteria", "[]"], "`criteria` must hold at least one"),
        (["--criteria", "[median]"], "`criterion` must be one of"),
        (["--stays_within", "2"], "`share` must be a number strictly between 0 and 1"),
        (["--family.objective.learning_rate", "-1"], "`learning_rate` must be a positive"),
        (["--num_times", "1"], "`num_times` must be an integer of at least 2"),
        (["--family.objective", '{"discrete": true, "learning_rate": 1}'], "`learning_rate` must be below"),
    ],
)
def test_the_theory_command_refuses_before_it_writes(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        main(["theory", "--family", "OneLayer", *arguments, "--out", str(tmp_path / "none")])
    assert not (tmp_path / "none").exists()


def test_a_convolution_takes_the_spectrum_as_that_of_waves():
    curves = on_spectrum(FullWidthConvolution(OBJECTIVE), [4.0, 2.0, 1.0])
    assert curves.size == (4,)
    np.testing.assert_allclose(curves.variance, [4, 2, 1, 2])
    with pytest.raises(ValueError, match="at least two variances for a convolution"):
        on_spectrum(LocalConvolution(OBJECTIVE, 1), [4.0])


def test_a_mean_goes_to_the_families_that_learn_one():
    curves = on_spectrum(NonCenteredOneLayer(OBJECTIVE), [4.0, 1.0], 0.5)
    np.testing.assert_allclose(curves.variance, [4, 1])
    np.testing.assert_allclose(curves.generated_mean(np.inf), [0.5, 0.5], rtol=0.03)  # what a finite sigma_T leaves


@pytest.mark.parametrize("sampler", [None, Sampler(num_steps=8)])
@pytest.mark.parametrize("criterion", ["geometric", 0.5])
def test_the_law_of_the_figure_is_the_family_s_own(sampler, criterion):
    solved = OneLayer(OBJECTIVE, 0.5).on(np.geomspace(1e-3, 1e2, 12))
    entry, laws = TheoryCurves(solved, "", sampler).times(criterion), solved.exponent(criterion, sampler)
    for way in ("rising", "falling"):
        assert entry.law(way) == laws[way]


def test_times_reach_from_before_the_first_emergence_to_after_the_last():
    curves = TheoryCurves(OneLayer(OBJECTIVE, 0.5).on(LAM), "")
    time = curves.span([curves.times(c) for c in ("geometric", StaysWithin(0.1))], 200)
    start, end = curves.generated(time[[0, -1]])
    np.testing.assert_allclose(start, curves.ends()[0], rtol=0.05)  # nothing learnt yet
    np.testing.assert_allclose(end, LAM, rtol=0.02)  # the exact flow's own end is 0.2 % off


def test_the_figure_draws_the_curves():
    solved = SymmetricTwoLayer(OBJECTIVE, 0.5).on(LAM)
    levels = (0.5, 2.0)
    curves = TheoryCurves(solved, "two", weights={f"sigma = {s}": partial(solved.weight, sigma=s) for s in levels})
    drawn = curves_figure([curves], "title", ["geometric"], "settings")
    entry = curves.times("geometric")
    time = curves.span([entry], 200)
    for sigma, axes in zip(levels, drawn.figure.axes, strict=False):
        lines = [line for line in axes.get_lines() if line.get_marker() == "None"]
        np.testing.assert_array_equal([line.get_xdata() for line in lines], [time] * len(LAM))
        np.testing.assert_array_equal(np.transpose([line.get_ydata() for line in lines]), solved.weight(time, sigma))
        ends = [line.get_ydata()[0] for line in axes.get_lines() if line.get_marker() == "<"]
        np.testing.assert_array_equal(ends, solved.weight(np.inf, sigma))
    variance, emergence = drawn.figure.axes[2:4]
    lines = [line for line in variance.get_lines() if line.get_marker() == "None"]
    np.testing.assert_array_equal(np.transpose([line.get_ydata() for line in lines]), solved.generated_variance(time))
    assert (variance.get_xscale(), variance.get_yscale()) == ("log", "log")
    marked = {line.get_marker(): line for line in emergence.get_lines() if line.get_marker() != "None"}
    for marker, way in (("^", 1), ("v", -1), ("o", 0)):
        np.testing.assert_array_equal(marked[marker].get_xdata(), LAM[entry.way == way])
        np.testing.assert_array_equal(marked[marker].get_ydata(), entry.time[entry.way == way])
    assert {text.get_text() for text in drawn.figure.texts} == {"title", "settings"}


def test_nothing_emerges_from_a_fixed_point():
    curves = TheoryCurves(SymmetricTwoLayer(OBJECTIVE, 0.0).on(LAM), "")
    assert np.isnan(curves.times("geometric").time).all()
    (axes,) = emergence_grid([("row", "geometric", [("Q = 0", curves)])], "title").figure.axes
    assert [text.get_text() for text in axes.texts] == ["nothing emerges"]


def test_figure_7_draws_the_velocity():
    drawn = FIGURES["figure_7"]()
    rows = [row for row in drawn.tables["curves"][1] if row[1] == "weight" and row[2] == "t = 0.9"]
    theory = FlowMatching(OBJECTIVE, 0.1)
    for row in rows[::67]:
        np.testing.assert_allclose(row[5], theory.on(row[3]).velocity_weight(row[4], 0.9), rtol=1e-12)
    assert drawn.figure.axes[0].get_ylabel() == "gain of the velocity on the mode"


def test_the_paper_s_figures_are_written(tmp_path, capsys):
    main(["paper-figures", "--only", "[non_centered]", "--out", str(tmp_path)])
    assert {path.name for path in tmp_path.iterdir()} == {"non_centered.png", "non_centered_curves.csv"}
    assert "non_centered.png" in capsys.readouterr().out
    _, rows = FIGURES["non_centered"]().tables["curves"]
    written = [[float(row["time"]), float(row["value"])] for row in read(tmp_path / "non_centered_curves.csv")]
    np.testing.assert_array_equal(written, [row[4:] for row in rows])


def test_figure_8_tells_the_law_of_every_gain():
    _, rows = FIGURES["figure_8"]().tables["emergence"]
    assert len({row[0] for row in rows}) == len(INITS)
    found = [[row[2], row[-1]] for row in rows if row[:2] == ("flow matching, Q=0.5", "harmonic")]
    variance, time = np.transpose(found)
    expected = FlowMatching(OBJECTIVE, 0.5).on(variance).emergence_time("harmonic")
    np.testing.assert_allclose(time, expected, rtol=1e-9)


def test_an_unknown_figure_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`only` must hold names from 'figure_2'"):
        main(["paper-figures", "--only", "[figure_3]", "--out", str(tmp_path / "none")])
    assert not (tmp_path / "none").exists()


def test_long_waves_emerge_together_under_a_local_kernel_only():
    tables = convolution().tables
    _, rows = tables["emergence"]
    times = {name: np.array([r[4] for r in rows if r[0] == name]) for name in ("one layer", "full width", "local")}
    waves = np.arange(1, 33)
    long = waves <= 64 // 8
    spread = {name: time[long].max() / time[long].min() for name, time in times.items()}
    assert spread["local"] == pytest.approx(1.244, abs=5e-4)
    assert spread["full width"] == pytest.approx(61.5, abs=0.05)
    assert times["local"].max() / times["local"].min() > 100  # not so of short waves
    np.testing.assert_allclose(times["one layer"] / times["full width"], 64, rtol=1e-6)  # shared by 64 pixels
    data, limit = np.array([row[1:] for row in tables["limit"][1]]).T
    np.testing.assert_allclose(data, power_law_field(64)[waves])
    assert limit[0] < data[0] / 4  # a kernel of 3 taps cannot hold the longest wave


def test_a_mean_makes_the_gain_overshoot():
    _, rows = non_centered().tables["curves"]
    gain = np.array([row[5] for row in rows if row[1] == "gain" and row[3] == 0.05])
    assert gain.max() > 10 * gain[-1]
    assert gain[-1] == pytest.approx(0.05 / 1.05, rel=1e-6)  # the optimum at sigma = 1


def test_the_figures_leave_pyplot_alone():
    import matplotlib.pyplot as plt

    drawn = emergence_grid([("a", "geometric", [("b", TheoryCurves(OneLayer(OBJECTIVE).on(LAM), "c"))])], "d")
    assert isinstance(drawn.figure, Figure)
    assert plt.get_fignums() == []
