"""What the figures draw, read back from their axes."""

import numpy as np
import pytest
from matplotlib.colors import to_hex

from spectral_lightning.prediction import compare
from spectral_lightning.report import emergence_figure, overlay_figure
from spectral_lightning.spectra import SpectralHistory

TARGET = np.geomspace(1.0, 1e-4, 16)
STEPS = [0, 1, 10, 100, 1000, 10_000]


def history(delay=1.0, end=10_000, fixed=1.1):
    """Every mode falls from 4 to its fixed point at a rate that goes with its variance."""
    table = SpectralHistory({"target": TARGET, "fixed_point": fixed * TARGET})
    for step in (s for s in STEPS if s <= end):
        share = np.exp(-step * TARGET / delay)
        table.append(step=step, variance=4 * share + fixed * TARGET * (1 - share))
    return table


def lines_of(axes, style):
    return [line for line in axes.get_lines() if line.get_linestyle() == style and len(line.get_xdata()) > 1]


@pytest.mark.parametrize("modes", [[0, 3, 15], [5]])
def test_the_overlay_draws_both_tables(modes):
    measured, predicted = history(), history(delay=2.0)
    figure = overlay_figure(measured, predicted, modes, "clock: one factor")
    assert "clock: one factor" in [text.get_text() for text in figure.texts]
    axes, _ = figure.axes
    for table, style in ((measured, "-"), (predicted, "--")):
        drawn = lines_of(axes, style)
        assert len(drawn) == len(modes)
        for line, k in zip(drawn, modes, strict=True):
            np.testing.assert_array_equal(line.get_xdata(), table.steps)
            np.testing.assert_array_equal(line.get_ydata(), table.variance[:, k])
    ends = [line.get_ydata()[0] for line in axes.get_lines() if line.get_marker() == "<"]
    np.testing.assert_array_equal(ends, measured.fixed_point[modes])


def test_a_mode_has_one_color_in_both_tables():
    axes, _ = overlay_figure(history(), history(delay=2.0), [0, 7, 15]).axes
    colors = [[to_hex(line.get_color()) for line in lines_of(axes, style)] for style in ("-", "--")]
    assert colors[0] == colors[1]
    assert len(set(colors[0])) == 3


@pytest.mark.parametrize("prediction", [None, SpectralHistory({"target": TARGET, "fixed_point": TARGET})])
def test_the_overlay_without_a_prediction_draws_the_measurement_alone(prediction):
    axes, _ = overlay_figure(history(), prediction, [0, 1]).axes
    assert lines_of(axes, "--") == []
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["measured", "target (sampler's fixed point)"]


def test_the_emergence_figure_draws_the_crossed_modes_and_the_law():
    measured = history(end=1000)
    result = compare(measured, history(delay=2.0, end=1000), "geometric", 2.0)
    (axes,) = emergence_figure(result, 1000).axes
    law = result.measured_law("falling")
    crossed = result.measured.crossed("falling")
    assert 0 < crossed.sum() < result.measured.eligible("falling").sum()
    points = next(line for line in axes.get_lines() if line.get_label().startswith("falling: "))
    np.testing.assert_array_equal(points.get_xdata(), TARGET[crossed])
    np.testing.assert_array_equal(points.get_ydata(), result.measured.time[crossed])
    waiting = next(line for line in axes.get_lines() if "not yet crossed" in line.get_label())
    assert waiting.get_label() == f"falling, not yet crossed: {int(law.total - law.count)}"
    np.testing.assert_array_equal(waiting.get_xdata(), TARGET[result.measured.eligible("falling") & ~crossed])
    theory = next(line for line in axes.get_lines() if line.get_label().startswith("theory, falling"))
    np.testing.assert_array_equal(theory.get_ydata(), result.predicted.time[result.predicted.crossed("falling")])
    assert law.determinable
    (drawn,) = lines_of(axes, "-")
    slope = np.diff(np.log(drawn.get_ydata())) / np.diff(np.log(drawn.get_xdata()))
    np.testing.assert_allclose(slope, -law.exponent, rtol=1e-9)


def test_no_exponent_is_drawn_where_there_is_none():
    result = compare(history(end=10))
    (axes,) = emergence_figure(result, 10).axes
    assert lines_of(axes, "-") == []
    labels = [line.get_label() for line in axes.get_lines()]
    assert any("not determinable" in label for label in labels)
    assert not any("alpha" in label for label in labels)


def test_the_figures_leave_pyplot_alone():
    import matplotlib.pyplot as plt

    overlay_figure(history(), None, [0])
    emergence_figure(compare(history()), 10)
    assert plt.get_fignums() == []
