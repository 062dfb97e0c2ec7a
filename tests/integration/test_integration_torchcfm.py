"""torchcfm: one Euler step along its own velocity to t = 1 is what the adapter computes."""

import numpy as np
import pytest
import torch

from spectral_lightning.diffusion import Adapter, BoundDenoiser, self_check
from tests.support.gaussian_images import images, measured, trained
from tests.support.torchcfm_training import Flat, UserFlow, unet


@pytest.mark.slow
@pytest.mark.parametrize("make", [Flat, unet], ids=["mlp", "unet"])
def test_conditional_flow_matching(make):
    module = trained(UserFlow(make()), images())
    denoiser = BoundDenoiser(Adapter("flow-matching"), module)
    self_check(denoiser, images(16))
    x1, x0 = images(3, seed=5), torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(5))
    for time in (0.02, 0.3, 0.5, 0.9, 0.998):
        t = torch.full((3,), time)
        xt = module.matcher.compute_mu_t(x0, x1, t)
        with torch.no_grad():
            theirs = xt + (1 - time) * module.net(t, xt)
            # z = x_t / t holds the data as they are, and noise of (1 - t) / t
            ours = denoiser(xt / time, torch.full((3,), (1 - time) / time))
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    row = measured(denoiser)
    assert np.isfinite(row["variance"]).all()


@pytest.mark.slow
def test_the_flow_read_backwards_is_refused_once_it_has_learnt():
    torch.manual_seed(0)
    module = trained(UserFlow(Flat(width=256)), images(4096), steps=1500)
    self_check(BoundDenoiser(Adapter("flow-matching"), module), images(seed=3))
    with pytest.raises(ValueError, match="wrong sign"):
        self_check(BoundDenoiser(Adapter("flow-matching", prediction="eps-x0"), module), images(seed=3))
