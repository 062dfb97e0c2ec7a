"""Noise grids against the paper's formula; what the sampler promises about evaluations and levels is what happens."""

import copy
import math
import pickle

import pytest

from spectral_lightning.sampling import Sampler, karras_sigmas

SAMPLERS = [
    Sampler(solver, num_steps=steps, final=final)
    for solver in ("heun", "euler")
    for steps in (2, 3, 18)
    for final in ("zero", "sigma_min")
] + [
    Sampler("heun", grid=(3.0, 1.0)),
    Sampler("heun", grid=(3.0, 0.0)),
    Sampler("euler", grid=(3.0, 1.0)),
    Sampler("euler", grid=(3.0, 1.0, 0.0)),
    Sampler("adams", num_steps=2),
    Sampler("adams", num_steps=8),
    Sampler("adams", grid=(3.0, 1.0, 0.5)),
    Sampler("adams", grid=(3.0, 1.0, 0.5, 0.1, 0.0)),
]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=Sampler.describe)
def test_evaluations_and_levels_are_those_that_happen(sampler):
    called = []

    def counting(z, sigma):
        called.append(sigma)
        return z / (1 + sigma**2)

    sampler(counting, sampler.start)
    assert len(called) == sampler.evaluations
    assert type(sampler.evaluations) is int
    assert set(called) == set(sampler.levels)
    assert sampler.levels == tuple(sorted(set(called), reverse=True))
    assert 0.0 not in called
    assert called[0] == sampler.start == sampler.sigmas[0]


def test_default_levels_are_the_karras_grid():
    sampler = Sampler("euler", num_steps=6, sigma_min=0.1, sigma_max=5.0, rho=3.0, final="sigma_min")
    assert sampler.sigmas == karras_sigmas(6, 0.1, 5.0, 3.0, "sigma_min")


def test_levels_of_adams_are_graded_angles():
    sampler = Sampler("adams", num_steps=5, sigma_max=20.0, scale=0.8, grading=2.0)
    angles = [math.degrees(math.atan(sigma / 0.8)) for sigma in sampler.sigmas]
    assert angles == pytest.approx([angles[0] * share**2 for share in (1, 0.8, 0.6, 0.4, 0.2, 0)], rel=1e-12)
    assert (sampler.start, sampler.sigmas[-1]) == (20.0, 0.0)


def test_a_list_and_a_tuple_make_the_same_sampler():
    """Configuration files hold lists; samplers are compared, hashed and used as keys."""
    listed, given = Sampler(grid=[2, 1, 0]), Sampler(grid=(2.0, 1.0, 0.0))
    assert listed == given
    assert hash(listed) == hash(given)
    assert listed.sigmas == (2.0, 1.0, 0.0)


def test_value_semantics():
    sampler = Sampler(num_steps=5)
    assert sampler.sigmas is sampler.sigmas
    for twin in (copy.deepcopy(sampler), pickle.loads(pickle.dumps(sampler))):
        assert twin == sampler
        assert twin.sigmas == sampler.sigmas
    with pytest.raises(AttributeError):
        sampler.num_steps = 6


def test_description_names_what_matters():
    described = Sampler(num_steps=18).describe()
    assert described == "heun, 18 steps from sigma = 80 to 0, 35 evaluations"


@pytest.mark.parametrize(
    ("arguments", "argument"),
    [
        ({"solver": "rk4"}, "solver"),
        ({"solver": None}, "solver"),
        ({"num_steps": 1}, "num_steps"),
        ({"final": "nil"}, "final"),
        ({"sigma_min": 90.0}, "sigma_min"),
        ({"scale": 0.0}, "scale"),
        *(({"solver": "adams", name: 0}, name) for name in ("scale", "grading", "sigma_max", "num_steps")),
        *(({"grid": grid}, "grid") for grid in ((), (1.0,), (1.0, 1.0), (1.0, 2.0), (1.0, -0.5), (1.0, 0.0, -0.0))),
        *(({"grid": grid}, "grid") for grid in ((math.nan, 1.0), (2.0, math.nan, 1.0), (math.inf, 1.0))),
    ],
)
def test_bad_arguments_are_refused(arguments, argument):
    with pytest.raises(ValueError, match=f"`{argument}`"):
        Sampler(**arguments)


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
def test_bad_grids_are_refused(arguments, argument):
    with pytest.raises(ValueError, match=f"`{argument}`"):
        karras_sigmas(**arguments)
