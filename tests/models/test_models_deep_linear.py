"""The deep linear denoiser: its start, its saddle, its stable rate, its mean."""

import numpy as np
import pytest
import torch

from spectral_lightning.models import DeepLinearDenoiser, DeepLinearPerLevel, LinearDenoiser
from tests.support import solvable_training as st

DEPTHS = [(1, False), (2, False), (3, False), (2, True), (3, True)]
every_depth = pytest.mark.parametrize(("depth", "tied"), DEPTHS)
PRECONDITIONING = pytest.mark.parametrize("preconditioning", [st.EDM, st.PLAIN], ids=["edm", "none"])


BALANCED = [(1, False, -0.4), *((2, tied, 0.4) for tied in (False, True)), (2, False, -0.4), (3, False, -0.4)]


@pytest.mark.parametrize(("depth", "tied", "init"), [*BALANCED, *((3, True, init) for init in (0.4, -0.4))])
def test_layers_start_balanced_and_aligned(depth, tied, init):
    network = DeepLinearPerLevel(3, [1.0, 2.0], depth, tied, init).double()
    assert network.weight.shape == (1 if tied else depth, 2, 3, 3)
    sizes = network.weight.abs().diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(sizes, torch.full_like(sizes, 0.4 ** (1 / depth)), rtol=1e-6, atol=0)
    product, bias = network.affine()
    torch.testing.assert_close(product, init * torch.eye(3, dtype=st.F64).expand(2, 3, 3), rtol=1e-6, atol=1e-9)
    assert bias.shape == (2, 3)
    assert not bias.any()


@every_depth
def test_layers_are_applied_in_order(depth, tied):
    """Random layers, which do not commute, multiplied one at a time."""
    network = st.perturb(DeepLinearPerLevel(3, [1.0, 2.0], depth, tied).double(), 1.0)
    x = torch.randn(3, generator=torch.Generator().manual_seed(0), dtype=st.F64)
    y = x
    for i in range(depth):
        y = network.weight[0 if tied else i, 1] @ y
    torch.testing.assert_close(network(x[None], torch.tensor([2.0]).log() / 4)[0], y, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(network.affine()[0][1] @ x, y, rtol=1e-12, atol=1e-12)


def test_depth_one_is_the_linear_denoiser_without_bias():
    deep = st.made("deep", depth=1, init=0.2, optimizer=st.descent(0.02), preconditioning=st.EDM)
    shallow = st.made("linear", init=0.2, bias=False, optimizer=st.descent(0.02), preconditioning=st.EDM)
    (one,), (two,) = (st.descend(module, [40], lambda m: st.maps(m)[0]) for module in (deep, shallow))
    np.testing.assert_allclose(one, two, rtol=1e-13, atol=1e-14)
    assert isinstance(shallow, LinearDenoiser)
    assert deep.stable_learning_rate() == pytest.approx(shallow.stable_learning_rate(), rel=1e-12)


def at_the_optimum(module):
    """Layers U diag(q*^(1/L)) U' at every level; all q* are positive here."""
    modes, variance = st.basis("deep")
    p = module.preconditioning
    with torch.no_grad():
        for i, s in enumerate(st.LEVELS):
            best = (variance / (variance + s**2) - p.c_skip(s)) / (p.c_out(s) * p.c_in(s))
            assert (best > 0).all()
            module.network.weight[:, i] = torch.tensor((modes * best ** (1 / module.depth)) @ modes.T)


@pytest.mark.slow
@every_depth
@PRECONDITIONING
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_stable_learning_rate_is_the_edge_at_the_optimum(depth, tied, preconditioning, reduction):
    """A small step off the optimum dies out just below the limit and grows just above it."""

    def growth(factor):
        options = {"depth": depth, "tied": tied, "reduction": reduction, "preconditioning": preconditioning}
        module = st.made("deep", init=0.01, **options)
        module.optimizer = st.descent(factor * module.stable_learning_rate())
        at_the_optimum(module)
        best = module.expected_loss().item()
        st.perturb(module, 1e-5)
        first, last = st.descend(module, [1, 81], lambda m: m.expected_loss().item() - best)
        return last / first

    # The steepest direction changes by a factor of 0.9 (its excess by 0.81) or 1.1 a step.
    assert growth(0.95) < 0.5
    assert growth(1.05) > 10


@pytest.mark.parametrize(("depth", "tied"), [(2, False), (3, False)])
def test_modes_below_the_saddle_die_out_as_the_theory_says(depth, tied):
    """Variances below sigma_data^2 need a negative gain, which layers that start above zero do not reach."""
    covariance = torch.diag(torch.tensor([2.0, 0.5, 0.05, 0.01], dtype=st.F64))
    module = st.made("deep", (4,), covariance=covariance, depth=depth, tied=tied, relative=0.2, preconditioning=st.EDM)
    steps = [0, 30, 100, 300]
    gains = np.array(st.descend(module, steps, lambda m: st.along(np.eye(4), st.maps(m)[0])))
    expected = module.dynamics().on(np.diag(covariance)).weight(steps, st.LEVELS)
    np.testing.assert_allclose(gains, expected, rtol=1e-8, atol=1e-10)
    skip = [0.16 / (s**2 + 0.16) for s in st.LEVELS]
    assert np.abs(gains[-1, :, 2:] - np.array(skip)[:, None]).max() < 0.02  # F has all but died out


def test_a_mean_is_declared():
    assert st.made("deep").departures() == []
    module = st.made("deep", mean=torch.ones(8, dtype=st.F64))
    assert [("zero mean" in d.text, d.affects_clock) for d in module.departures()] == [(True, False)]
    assert len(st.made("deep", mean=torch.ones(8, dtype=st.F64), objective="samples").departures()) == 2


def test_a_mean_is_learnt_as_second_moments():
    """What the declaration says: the run is that of the theory with the eigenvalues of E x x'."""
    mean = torch.linspace(-1, 1, 8, dtype=st.F64)
    second = st.covariance_of() + torch.outer(mean, mean)
    variance, modes = np.linalg.eigh(second)
    module = st.made("deep", mean=mean, relative=0.1, preconditioning=st.EDM)
    (gains,) = st.descend(module, [60], lambda m: st.along(modes, st.maps(m)[0]))
    np.testing.assert_allclose(gains, module.dynamics().on(variance).weight(60, st.LEVELS), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    "arguments",
    [{"depth": 0}, {"init": 0.0}, {"init": 0.0, "tied": True}, {"init": -0.1, "tied": True}],
)
def test_bad_arguments(arguments):
    with pytest.raises(ValueError, match=f"`{next(iter(arguments))}` must"):
        DeepLinearDenoiser(4, **arguments)
