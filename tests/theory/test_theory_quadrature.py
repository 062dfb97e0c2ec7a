"""The quadrature of the exact flow: every mode to its tolerance, whatever the kinks and fronts of its gain."""

import warnings

import numpy as np
import pytest
from scipy.integrate import quad

from spectral_lightning.theory import DeepLinear, FlowMatching, Objective, Preconditioning
from spectral_lightning.theory.solving.quadrature import integrate

KINDS = ["none", "edm", "variance_preserving", "velocity", "x0", "flow"]
LOW, HIGH = np.log(0.002), np.log(80.0)
BOUND = 1e-6  # what the theory promises of log lambda~


def stack(kind, q, depth, tied=False):
    return DeepLinear(Objective(1e-3, Preconditioning(kind)), q, depth, tied)


def by_quadpack(theory, variance, time):
    """The same flow by QUADPACK, in pieces that keep fronts and the kink apart."""
    curves, kink = theory.on([variance]), np.log(variance)
    edges = np.unique(np.concatenate([np.linspace(LOW, HIGH, 9), [kink] if LOW < kink < HIGH else []]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of rounding in the gain's eleventh digit

        def gain(u):
            return float(curves.weight(time, np.exp(u))[0])

        parts = [
            quad(gain, a, b, epsabs=1e-9, epsrel=0, limit=400)[0] for a, b in zip(edges[:-1], edges[1:], strict=True)
        ]
    return 2 * LOW + 2 * sum(parts)


def by_panels(theory, variance, time):
    """The same by Gauss' rule of 4 nodes on 1,000 panels on either side of the kink, and 200 in each where the gain jumps."""
    curves, kink = theory.on([variance]), np.clip(np.log(variance), LOW, HIGH)
    edges = np.unique([np.linspace(LOW, kink, 1001), np.linspace(kink, HIGH, 1001)])
    jumps = np.flatnonzero(np.abs(np.diff(curves.weight(time, np.exp(edges))[:, 0])) > 0.01)
    edges = np.unique([*edges, *(x for i in jumps for x in np.linspace(edges[i], edges[i + 1], 201))])
    nodes, weight = np.polynomial.legendre.leggauss(4)
    half, middle = np.diff(edges)[:, None] / 2, (edges[1:] + edges[:-1])[:, None] / 2
    gain = curves.weight(time, np.exp(middle + half * nodes).ravel())[:, 0].reshape(-1, 4)
    return 2 * LOW + 2 * float((half * weight * gain).sum())


def difference(theory, variance, time, exact):
    return abs(float(np.log(theory.on(variance).generated_variance(time))) - exact(theory, variance, time))


@pytest.mark.parametrize(
    ("kind", "q", "depth", "variance", "time"),
    [
        ("flow", 0.1, 2, 1.0, 1e6),  # 200 nodes without refinement miss by 5e-4
        ("edm", 1e-3, 5, 10.0, 1e3),  # 2e-2
        ("edm", 1e-6, 5, 100.0, 1e4),
        ("x0", 1e-6, 3, 0.3, 1e6),
    ],
)
def test_hard_modes_against_quadpack(kind, q, depth, variance, time):
    theory = stack(kind, q, depth)
    exact = by_quadpack(theory, variance, time)
    assert difference(theory, variance, time, lambda *_: exact) < BOUND
    assert by_panels(theory, variance, time) == pytest.approx(exact, abs=BOUND / 10)
    sigma, weight = np.polynomial.legendre.leggauss(200)
    u = LOW + (HIGH - LOW) * (sigma + 1) / 2
    fixed = 2 * LOW + (HIGH - LOW) * weight @ theory.on(variance).weight(time, np.exp(u))
    assert abs(fixed - exact) > BOUND


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("depth", "tied"), [(2, True), (2, False), (3, False), (5, False)])
def test_every_deep_family_against_many_panels(kind, depth, tied):
    for q in (1e-6, 1e-2, 1.0):
        for variance, time in ((1e-4, 1e5), (0.3, 1e3), (7.0, 1e6), (100.0, 1e2)):
            assert difference(stack(kind, q, depth, tied), variance, time, by_panels) < BOUND, (q, variance, time)


def test_flow_matching_against_quadpack():
    curves = FlowMatching(Objective(1e-3), 1e-6, 2).on([0.5])
    pieces = np.concatenate([[0.0], 1 - np.geomspace(0.9, 1e-9, 12), [1.0]])
    parts = [
        quad(lambda t: float(curves.velocity_weight(3e4, t)[0]), a, b, epsabs=1e-10, limit=400)[0]
        for a, b in zip(pieces[:-1], pieces[1:], strict=True)
    ]
    assert float(np.log(curves.generated_variance(3e4))[0]) == pytest.approx(2 * sum(parts), abs=BOUND)


def test_jumps_kinks_and_spikes_at_any_place():
    """Integrals in closed form; the place of the feature is the parameter."""
    place = np.random.default_rng(0).uniform(-1, 1, 400)
    zero = np.zeros(1)
    for f, exact in (
        (lambda u, _, c: (u > c) * 1.0, 1 - place),
        (lambda u, _, c: np.abs(u - c), (1 + place**2)),
        (
            lambda u, _, c: np.exp(-np.abs(u - c) / 1e-2),
            1e-2 * (2 - np.exp(-(1 - place) / 1e-2) - np.exp(-(1 + place) / 1e-2)),
        ),
    ):
        found, left = integrate(f, -1.0, 1.0, zero, place, 1e-6, 4)
        np.testing.assert_allclose(found, exact, rtol=0, atol=1e-6)
        assert not left.any()


def test_what_cannot_be_refined_is_said():
    rough = Objective(1e-3, noise_density=lambda sigma: 1 + 0.9 * np.sin(1e7 * np.log(sigma)))
    with pytest.warns(UserWarning, match=r"DeepLinear.*variance 2 at time 100.*log variance only"):
        DeepLinear(rough, 0.1, 3).on([2.0]).generated_variance(100.0)
