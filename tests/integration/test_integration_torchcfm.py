"""torchcfm: one Euler step along its own velocity to t = 1 is what the adapter computes."""

import numpy as np
import pytest
import torch
from gaussian_images import UserModule, images, measured, trained

from spectral_lightning.diffusion import Adapter, self_check

torchcfm = pytest.importorskip("torchcfm")


class Flat(torch.nn.Module):
    """torchcfm's MLP, called as `net(t, x)` the way its examples wrap it."""

    def __init__(self, width=32):
        super().__init__()
        from torchcfm.models.models import MLP

        self.mlp = MLP(64, w=width, time_varying=True)

    def forward(self, t, x):
        return self.mlp(torch.cat([x.flatten(1), t[:, None]], 1)).reshape(x.shape)


def unet():
    from torchcfm.models.unet import UNetModel

    return UNetModel(dim=(1, 8, 8), num_channels=32, num_res_blocks=1, channel_mult=[1, 1], num_heads=1)


class UserFlow(UserModule):
    def __init__(self, net):
        super().__init__()
        self.net = net
        self.matcher = torchcfm.ConditionalFlowMatcher(sigma=0.0)

    def loss(self, x1):
        t, xt, ut = self.matcher.sample_location_and_conditional_flow(torch.randn_like(x1), x1)
        return torch.nn.functional.mse_loss(self.net(t, xt), ut)


@pytest.mark.slow
@pytest.mark.parametrize("make", [Flat, unet], ids=["mlp", "unet"])
def test_conditional_flow_matching(make):
    module = trained(UserFlow(make()), images())
    denoiser = Adapter("flow-matching").bind(module)
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
    self_check(Adapter("flow-matching").bind(module), images(seed=3))
    with pytest.raises(ValueError, match="wrong sign"):
        self_check(Adapter("flow-matching", prediction="eps-x0").bind(module), images(seed=3))
