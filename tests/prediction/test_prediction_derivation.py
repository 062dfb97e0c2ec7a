"""What is derived of a theory from a network's convention: its coefficients, against the denoiser that is evaluated."""

import numpy as np
import pytest
import torch
from torch import nn

from spectral_lightning.diffusion import Adapter
from spectral_lightning.diffusion.adapters.bound import BoundDenoiser
from spectral_lightning.diffusion.adapters.conventions import CONVENTIONS as NAMED_CONVENTIONS
from spectral_lightning.prediction import derived_preconditioning
from spectral_lightning.spectra import PCABasis

DIM = 8
VARIANCE = torch.logspace(1, -3, DIM, dtype=torch.float64)
BASIS = PCABasis.from_moments(torch.zeros(DIM), torch.diag(VARIANCE))


class Affine(nn.Module):
    """``q x + b``, however it is called."""

    def __init__(self, q, b):
        super().__init__()
        self.q, self.b, self.anchor = q, b, nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, *arguments, **_):
        (x,) = [a for a in arguments if a is not None and a.ndim == 2]
        return self.q * x + self.b


ABAR = torch.cumprod(1 - torch.linspace(1e-4, 0.06, 200, dtype=torch.float64), 0)
NAMED = {"edm-backbone": "edm", "flow-matching": "flow", "flow-matching-xt": "flow", "log-snr": "variance_preserving"}
NAMED |= {f"{n}-epsilon": "variance_preserving" for n in ("diffusers", "ddpm")} | {"diffusers-flow-match": "flow"}
NAMED |= {"diffusers-v": "velocity", "ddpm-v": "velocity", "diffusers-sample": "x0", "ddpm-x0": "x0"}
NAMED |= {"latent-diffusion": "variance_preserving"}
OTHER = {
    "the score": {"prediction": "score"},
    "noise on the exploding path": {"prediction": "epsilon", "path": "variance-exploding"},
    "the data on the straight path": {"prediction": "x0", "path": "linear"},
    "v on EDM's path": {"prediction": "v", "path": "edm"},
    "noise of data scaled by 3": {"prediction": "epsilon", "data_scale": 3.0},
    "a velocity of data scaled by 0.5": {"prediction": "eps-x0", "path": "linear", "data_scale": 0.5},
    "EDM's F of data scaled by 2": {"prediction": "edm", "path": "edm", "sigma_data": 0.7, "data_scale": 2.0},
}
CONVENTIONS = {name: Adapter(name, "", schedule=ABAR.tolist(), output="") for name in NAMED}
CONVENTIONS |= {name: Adapter("affine", "", time="sigma", **fields) for name, fields in OTHER.items()}


@pytest.mark.parametrize("name", CONVENTIONS)
def test_the_derived_coefficients_are_those_of_the_adapters_denoiser(name):
    def denoiser(q, b):
        return BoundDenoiser(CONVENTIONS[name], Affine(q, b))

    derived, assumed = derived_preconditioning(denoiser(0, 0), BASIS)
    sign = -1 if CONVENTIONS[name].prediction == "x0-eps" else 1  # the same network for the opposite velocity
    assert derived.kind == NAMED.get(name, "given")
    assert str(CONVENTIONS[name].prediction) in assumed
    grid = denoiser(0, 0).sigma_grid
    sigma = torch.tensor(np.logspace(-2, 1.5, 9) if grid is None else grid[::20], dtype=torch.float64)
    one = torch.ones(len(sigma), DIM, dtype=torch.float64)
    np.testing.assert_allclose(derived.c_skip(sigma), denoiser(0, 0)(one, sigma)[:, 0], rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(derived.c_out(sigma), denoiser(0, sign)(0 * one, sigma)[:, 0], rtol=1e-12)
    np.testing.assert_allclose(
        derived.gain(sigma, 1.7), denoiser(1.7 * sign, 0)(one, sigma)[:, 0], rtol=1e-10, atol=1e-15
    )
    # The squared error of the network's own target.
    np.testing.assert_allclose(derived.loss_weight(sigma), 1 / derived.c_out(sigma) ** 2, rtol=1e-12)


def test_every_convention_is_derived():
    assert {*NAMED, "affine", "edm", "posterior"} == set(NAMED_CONVENTIONS)


@pytest.mark.parametrize("own", [0.3, None])
def test_of_a_denoiser_nothing_but_edms_coefficients_can_be_assumed(own):
    network = Affine(0.5, 0)
    spread = float(VARIANCE.mean()) ** 0.5
    if own is not None:
        network.sigma_data = own
    for adapter in (Adapter("edm", ""), Adapter("posterior", "", schedule=lambda t: (1 - t, t))):
        derived, assumed = derived_preconditioning(BoundDenoiser(adapter, network), BASIS)
        assert (derived.kind, derived.sigma_data) == ("edm", pytest.approx(own or spread, rel=1e-12))
        assert ("the network's" if own else "the data's") in assumed
    derived, _ = derived_preconditioning(lambda z, sigma: z, BASIS)
    assert (derived.kind, derived.sigma_data) == ("edm", pytest.approx(spread, rel=1e-12))
