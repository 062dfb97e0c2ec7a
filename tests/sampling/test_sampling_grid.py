"""Noise grids against the paper's formula."""

import math

import pytest

from spectral_lightning.sampling import karras_sigmas


def _formula(count, low, high, rho):
    """Karras et al. 2022, equation 5, for i < N."""
    return [(high ** (1 / rho) + i / (count - 1) * (low ** (1 / rho) - high ** (1 / rho))) ** rho for i in range(count)]


@pytest.mark.parametrize("final", ["zero", "sigma_min"])
@pytest.mark.parametrize("rho", [1.0, 3.0, 7.0])
@pytest.mark.parametrize(("low", "high"), [(0.002, 80.0), (0.5, 1), (1e-5, 1e4)])
@pytest.mark.parametrize("steps", [2, 18, 101])
def test_levels_follow_the_formula_and_end_exactly(steps, low, high, rho, final):
    levels = karras_sigmas(steps, low, high, rho, final)
    positive = levels[:-1] if final == "zero" else levels
    assert len(levels) == steps + 1
    assert levels[0] == high
    assert positive[-1] == low
    assert levels[-1] == (0.0 if final == "zero" else low)
    # Powers of rho amplify rounding, rel; the twin's last level cancels from sigma_max, abs.
    assert positive == pytest.approx(_formula(len(positive), low, high, rho), rel=1e-12, abs=1e-15 * high)
    assert all(a > b for a, b in zip(levels[:-1], levels[1:], strict=True))
    assert all(type(level) is float for level in levels)


def test_rho_one_is_evenly_spaced_and_large_rho_geometric():
    linear = karras_sigmas(10, 0.1, 10.0, 1.0, "sigma_min")
    assert [a - b for a, b in zip(linear[:-1], linear[1:], strict=True)] == pytest.approx([0.99] * 10, rel=1e-12)
    # The limit rho -> infinity is approached as log(high / low)^2 / rho, here 2e-5.
    geometric = karras_sigmas(10, 0.1, 10.0, 1e6, "sigma_min")
    assert [a / b for a, b in zip(geometric[:-1], geometric[1:], strict=True)] == pytest.approx(
        [100**0.1] * 10, rel=5e-5
    )


@pytest.mark.parametrize(
    ("arguments", "argument"),
    [
        *(({"num_steps": value}, "num_steps") for value in (1, 0, 2.0, True, "18")),
        *(({"sigma_min": value}, "sigma_min") for value in (0.0, -1.0, math.nan, 80.0)),
        *(({"sigma_max": value}, "sigma_max") for value in (math.inf, None, 0.002)),
        *(({"rho": value}, "rho") for value in (0.0, math.nan)),
        *(({"final": value}, "final") for value in ("one", 0)),
    ],
)
def test_bad_arguments_are_refused(arguments, argument):
    with pytest.raises(ValueError, match=f"`{argument}`"):
        karras_sigmas(**arguments)
