"""What a user of torchcfm writes: a network in its calling convention, and a LightningModule around a matcher."""

import pytest
import torch

from tests.support.gaussian_images import UserModule

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
    def __init__(self, net, matcher=torchcfm.ConditionalFlowMatcher):
        super().__init__()
        self.net = net
        self.matcher = matcher(sigma=0.0)

    def loss(self, x1):
        t, xt, ut = self.matcher.sample_location_and_conditional_flow(torch.randn_like(x1), x1)
        return torch.nn.functional.mse_loss(self.net(t, xt), ut)
