"""torchcfm through the tracker: its matchers and networks in a LightningModule, three lines added."""

import pytest
import torch
from gaussian_images import UserModule, images
from tracked_training import ExactNetwork, attached_run, distance, exact_run, fitted, three, tracker, without_drawing

torchcfm = pytest.importorskip("torchcfm")

LINE = "flow-matching: net(time, x) predicts x0-eps, time data-share, path linear, sigma 0.002 to 80"


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
        self.net = net()
        self.matcher = matcher(sigma=0.0)

    def loss(self, x1):
        t, xt, ut = self.matcher.sample_location_and_conditional_flow(torch.randn_like(x1), x1)
        return torch.nn.functional.mse_loss(self.net(t, xt), ut)


@pytest.mark.slow
@pytest.mark.parametrize("net", [Flat, unet], ids=["mlp", "unet"])
def test_conditional_flow_matching(net, tmp_path, monkeypatch):
    attached_run(tmp_path, monkeypatch, lambda: UserFlow(net), three("flow-matching", "flow"), LINE)


@pytest.mark.slow
def test_optimal_transport_coupling_is_called_the_same_way(tmp_path, monkeypatch):
    def make():
        return UserFlow(Flat, torchcfm.ExactOptimalTransportConditionalFlowMatcher)

    attached_run(tmp_path, monkeypatch, make, [tracker("flow-matching:net")], LINE)


@pytest.mark.slow
def test_exact_network_measured_as_exact(tmp_path, monkeypatch):
    def exact():
        return ExactNetwork(lambda t: (t, 1 - t.double()), lambda x0, eps, a, s: x0 - eps, order="time-x")

    exact_run(tmp_path, monkeypatch, lambda: UserFlow(exact), "flow-matching")


@pytest.mark.slow
def test_variances_move_to_those_of_the_data(tmp_path, monkeypatch):
    without_drawing(monkeypatch)
    long = tracker("flow-matching", log_modes=4)
    fitted(tmp_path, lambda: UserFlow(lambda: Flat(width=256)), [long], steps=1500, data=images(4096))
    far = distance(long.history)
    assert far[-1] < 0.5 * far[0]
