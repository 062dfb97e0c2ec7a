"""torchcfm through the tracker: its matchers and networks in a LightningModule, three lines added."""

import pytest

from tests.support.gaussian_images import images
from tests.support.torchcfm_training import Flat, UserFlow, torchcfm, unet
from tests.support.tracked_training import (
    ExactNetwork,
    attached_run,
    distance,
    exact_run,
    fitted,
    three,
    tracker,
)

LINE = "flow-matching: net(time, x) predicts x0-eps, time data-share, path linear, sigma 0.002 to 80"


@pytest.mark.slow
@pytest.mark.parametrize("net", [Flat, unet], ids=["mlp", "unet"])
def test_conditional_flow_matching(net, tmp_path, monkeypatch):
    attached_run(tmp_path, monkeypatch, lambda: UserFlow(net()), three("flow-matching", "flow"), LINE)


@pytest.mark.slow
def test_optimal_transport_coupling_is_called_the_same_way(tmp_path, monkeypatch):
    def make():
        return UserFlow(Flat(), torchcfm.ExactOptimalTransportConditionalFlowMatcher)

    attached_run(tmp_path, monkeypatch, make, [tracker("flow-matching:net")], LINE)


@pytest.mark.slow
def test_exact_network_measured_as_exact(tmp_path):
    def exact():
        return ExactNetwork(lambda t: (t, 1 - t.double()), lambda x0, eps, a, s: x0 - eps, order="time-x")

    exact_run(tmp_path, lambda: UserFlow(exact()), "flow-matching")


@pytest.mark.slow
def test_variances_move_to_those_of_the_data(tmp_path):
    long = tracker("flow-matching", log_modes=4)
    fitted(tmp_path, lambda: UserFlow(Flat(width=256)), [long], steps=1500, data=images(4096))
    far = distance(long.history)
    assert far[-1] < 0.5 * far[0]
