"""diffusers through the tracker: a user's LightningModule around its networks and schedulers, three lines added."""

import numpy as np
import pytest
import torch

from spectral_lightning.diffusion import Adapter
from tests.support.diffusers_training import UserDDPM, UserDiT, UserFlow, dit, unet
from tests.support.gaussian_images import images
from tests.support.tracked_training import (
    ExactNetwork,
    attached_run,
    distance,
    exact_run,
    fitted,
    three,
    tracker,
)

PREDICTIONS = {
    "epsilon": ("diffusers-epsilon", "epsilon", "variance_preserving"),
    "v_prediction": ("diffusers-v", "v", "velocity"),
    "sample": ("diffusers-sample", "x0", "x0"),
}
TARGETS = {
    "epsilon": lambda x0, eps, a, s: eps,
    "v_prediction": lambda x0, eps, a, s: a * eps - s * x0,
    "sample": lambda x0, eps, a, s: x0,
}


class Output:
    """What diffusers' networks return."""

    def __init__(self, sample):
        self.sample = sample


@pytest.mark.slow
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_unet_and_scheduler(prediction, tmp_path, monkeypatch):
    name, predicted, kind = PREDICTIONS[prediction]
    line = (
        f"{name}: unet(x, time) predicts {predicted}, time index, path variance-preserving, sigma 0.01 to 157.4, 1000"
    )
    attached_run(
        tmp_path, monkeypatch, lambda: UserDDPM(prediction, unet(dropout=0.1)), three(f"{name}:unet", kind), line
    )


@pytest.mark.slow
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_exact_network_measured_as_exact(prediction, tmp_path):
    def exact(scheduler):
        abar = scheduler.alphas_cumprod.double()
        return ExactNetwork(lambda t: (abar[t].sqrt(), (1 - abar[t]).sqrt()), TARGETS[prediction], Output)

    exact_run(tmp_path, lambda: UserDDPM(prediction, exact), f"{PREDICTIONS[prediction][0]}:unet")


@pytest.mark.slow
def test_flow_matching(tmp_path, monkeypatch):
    line = "diffusers-flow-match: transformer(x, time) predicts eps-x0, time noise-share times 1000, path linear"
    attached_run(
        tmp_path, monkeypatch, lambda: UserFlow(unet(dropout=0.1)), three("diffusers-flow-match", "flow"), line
    )


@pytest.mark.slow
def test_exact_flow_measured_as_exact(tmp_path):
    def exact():
        return ExactNetwork(
            lambda t: (1 - t.double() / 1000, t.double() / 1000), lambda x0, eps, a, s: eps - x0, Output
        )

    exact_run(tmp_path, lambda: UserFlow(exact()), "diffusers-flow-match")


@pytest.mark.slow
def test_class_conditional_dit(tmp_path, monkeypatch):
    adapter = Adapter("diffusers-flow-match", condition="class_labels")
    labels = torch.arange(256) % 10
    callbacks = three(adapter, "flow", condition=torch.arange(10))
    line = "diffusers-flow-match: transformer(x, time) predicts eps-x0"
    attached_run(tmp_path, monkeypatch, lambda: UserDiT(dit()), callbacks, line, labels=labels)


@pytest.mark.slow
def test_variances_move_to_those_of_the_data(tmp_path):
    long = tracker("diffusers-epsilon:unet")
    fitted(tmp_path, lambda: UserDDPM("epsilon", unet(dropout=0.1)), [long], steps=150, data=images(1024))
    far = distance(long.history)
    assert (np.diff(far) < 0).all()
    assert far[-1] < 0.7 * far[0]
