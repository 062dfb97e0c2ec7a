"""The figure and the sentence on the loss over its linear floor, read back."""

import numpy as np
import pytest

from spectral_lightning.report import floor_figure
from spectral_lightning.report.summary import _below_floor
from spectral_lightning.spectra import SpectralHistory

LEVELS, BINS, STEPS = [10.0, 1.0, 0.1], [0.03, 0.3, 3.0], [0, 1, 10, 100]
ERROR = [0.1, 0.01, 0.02]


def history(held_out=True, count=50, ratio=1.0):
    """Ratios ``1.5^(level - step index)`` times ``ratio``; those of training passes are twice as high."""
    fields = {"linear_floor": [1.0] * 3, "linear_error": [1.1] * 3} if held_out else {}
    static = {"target": [1.0], "fixed_point": [1.0], "levels": LEVELS, "bins": BINS, **fields}
    table = SpectralHistory(static, {"held_out": "64 points of the validation set"})
    for i, step in enumerate(STEPS):
        row = ratio * 1.5 ** (np.arange(3.0) - i)
        known = {"over_floor": row, "over_floor_error": ERROR} if held_out else {}
        passes = {"training_error": 4 * row, "training_linear_error": [2.0] * 3, "training_count": [count] * 3}
        table.append(step=step, variance=[1.0], **known, **passes)
    return table


@pytest.mark.parametrize(("held_out", "count", "maps"), [(True, 50, 2), (True, 2, 1), (False, 50, 1)])
def test_heat_maps_and_profile_hold_the_table(held_out, count, maps):
    found = history(held_out, count)
    *heat, _, profile = floor_figure(found).axes
    assert len(heat) == maps
    tables = [found["over_floor"][:, ::-1].T] if held_out else []  # levels ascend
    tables += [found["training_error"].T / 2] if count >= 16 else []
    for axes, table in zip(heat, tables, strict=True):
        (mesh,) = axes.collections
        np.testing.assert_allclose(mesh.get_array(), table)
        np.testing.assert_allclose(mesh.norm([1 / 4, 1, 4]), [0, 0.5, 1])  # white at 1
        assert len(heat) == 1 or axes.get_ylim() == heat[0].get_ylim()
    lines = {tuple(line.get_ydata()) for line in profile.get_lines()}
    assert ((tuple(found["over_floor"][-1])) in lines) == held_out if held_out else True


def test_the_sentence_names_levels_below_one_by_two_standard_errors():
    # 1.5^-3 = 0.30, 0.44 and 0.67 at the last step, times 1.4
    assert _below_floor(history(ratio=1.4)).endswith(
        "step 100, at 3 of 3 noise levels: 0.41 +- 0.10 at sigma = 10, 0.62 +- 0.01 at sigma = 1, 0.93 +- 0.02 at sigma = 0.1."
    )
    assert "at 2 of 3 noise levels: 0.44 +- 0.10" in _below_floor(history(ratio=1.48))
    assert _below_floor(history(ratio=4.0)).endswith("64 points of the validation set, step 100, nowhere.")
