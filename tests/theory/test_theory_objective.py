"""The settings that families share: from YAML, in logs, and what they refuse."""

import json

import numpy as np
import pytest
from jsonargparse import auto_cli

from spectral_lightning.theory import (
    DeepLinear,
    LearningDynamics,
    LocalConvolution,
    NonCenteredOneLayer,
    Objective,
    OneLayer,
    Preconditioning,
)


def given(theory: LearningDynamics):
    return theory


def flat(sigma):
    return 0 * sigma + 1


OBJECTIVE = Objective(0.01, Preconditioning("edm", 0.7))
FAMILIES = {
    "OneLayer(*, init=0.1)": ({"class_path": "OneLayer", "init_args": {"init": 0.1}}, OneLayer(OBJECTIVE, 0.1)),
    "DeepLinear(*, init=(0.2, 0.5), depth=2, tied=False)": (
        {"class_path": "DeepLinear", "init_args": {"init": [0.2, 0.5]}},
        DeepLinear(OBJECTIVE, (0.2, 0.5)),
    ),
    "LocalConvolution(*, kernel_size=5, init=0.0, bias='shared', init_bias=0.0)": (
        {"class_path": "LocalConvolution", "init_args": {"kernel_size": 5, "bias": "shared"}},
        LocalConvolution(OBJECTIVE, 5, bias="shared"),
    ),
    "NonCenteredOneLayer(*, init=array[2, 2], init_bias=0.0)": (
        {"class_path": "NonCenteredOneLayer", "init_args": {"init": [[1.0, 0.0], [0.0, 1.0]]}},
        NonCenteredOneLayer(OBJECTIVE, np.eye(2)),
    ),
}


@pytest.mark.parametrize("shown", FAMILIES)
def test_yaml_and_python_make_the_same_family(shown):
    document, family = FAMILIES[shown]
    shown = shown.replace("*", OBJECTIVE.describe())
    preconditioning = {"kind": "edm", "sigma_data": 0.7}
    document["init_args"]["objective"] = {"learning_rate": 0.01, "preconditioning": preconditioning}
    made = auto_cli(given, args=[json.dumps(document)])
    assert made.objective == family.objective
    assert repr(made) == repr(family) == shown


def test_only_what_differs_from_the_defaults_is_shown_and_functions_by_their_name():
    given = Objective(1e-3, noise_density=flat, discrete=True, sigma_max=10.0, nodes=50)
    assert repr(given) == "Objective(learning_rate=0.001, noise_density=flat, discrete=True, sigma_max=10.0, nodes=50)"


def test_gradient_flow_changes_nothing_else():
    family = DeepLinear(Objective(1e-3, Preconditioning("edm"), flat, discrete=True, sigma_max=10.0), 0.3, 3)
    assert repr(family.gradient_flow()) == repr(family).replace("discrete=True, ", "")
    assert family.objective.discrete


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": np.inf}, "learning_rate"),
        ({"sigma_min": -1.0}, "sigma_min"),
        ({"sigma_min": 90.0}, "sigma_min"),
        ({"nodes": 1}, "nodes"),
    ],
)
def test_settings_are_checked(settings, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        Objective(**{"learning_rate": 1e-3, **settings})
