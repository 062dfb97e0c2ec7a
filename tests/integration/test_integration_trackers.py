"""Other libraries through the tracker: their networks, schedulers and matchers in a LightningModule, three lines added."""

import pytest
import torch

from spectral_lightning.diffusion import Adapter
from tests.support import denoising_diffusion_training as ddpm
from tests.support import diffusers_training as diffusers
from tests.support import torchcfm_training as cfm
from tests.support.tracked_training import ExactNetwork, attached_run, exact_run, three, tracker

pytestmark = pytest.mark.slow

CLASSES = Adapter("diffusers-flow-match", condition="class_labels")
FLOW = "flow-matching: net(time, x) predicts x0-eps, time data-share, path linear, sigma 0.002 to 80"
RUNS = {
    "diffusers unet": (
        lambda: diffusers.UserDDPM("epsilon", diffusers.unet(dropout=0.1)),
        lambda: three("diffusers-epsilon:unet", "variance_preserving"),
        "diffusers-epsilon: unet(x, time) predicts epsilon, time index, path variance-preserving, sigma 0.01 to 157.4, 1000",
    ),
    "diffusers flow": (
        lambda: diffusers.UserFlow(diffusers.unet(dropout=0.1)),
        lambda: three("diffusers-flow-match", "flow"),
        "diffusers-flow-match: transformer(x, time) predicts eps-x0, time noise-share times 1000, path linear",
    ),
    "diffusers dit": (
        lambda: diffusers.UserDiT(diffusers.dit()),
        lambda: three(CLASSES, "flow", condition=torch.arange(10)),
        "diffusers-flow-match: transformer(x, time) predicts eps-x0",
    ),
    "denoising diffusion": (
        lambda: ddpm.UserDiffusion("pred_v"),
        lambda: three("ddpm-v", "velocity"),
        "ddpm-v: diffusion.model(x, time) predicts v, time index, path variance-preserving, sigma ",
    ),
    "torchcfm mlp": (lambda: cfm.UserFlow(cfm.Flat()), lambda: three("flow-matching", "flow"), FLOW),
    "torchcfm unet": (lambda: cfm.UserFlow(cfm.unet()), lambda: three("flow-matching", "flow"), FLOW),
    "torchcfm optimal transport": (
        lambda: cfm.UserFlow(cfm.Flat(), cfm.torchcfm.ExactOptimalTransportConditionalFlowMatcher),
        lambda: [tracker("flow-matching:net")],
        FLOW,
    ),
}


@pytest.mark.parametrize("name", RUNS)
def test_training_is_followed_and_unchanged(name, tmp_path, monkeypatch):
    make, callbacks, line = RUNS[name]
    labels = {"labels": torch.arange(256) % 10} if name == "diffusers dit" else {}
    attached_run(tmp_path, monkeypatch, make, callbacks(), line, **labels)


def exact_ddpm(prediction):
    def network(scheduler):
        abar, target = scheduler.alphas_cumprod.double(), diffusers.PREDICTIONS[prediction][1]
        return ExactNetwork(lambda t: (abar[t].sqrt(), (1 - abar[t]).sqrt()), target, diffusers.Output)

    return diffusers.UserDDPM(prediction, network)


def exact_flow():
    thousandth = lambda t: (1 - t.double() / 1000, t.double() / 1000)  # noqa: E731
    return diffusers.UserFlow(ExactNetwork(thousandth, "eps-x0", diffusers.Output))


def exact_matching():
    return cfm.UserFlow(ExactNetwork(lambda t: (t, 1 - t.double()), "x0-eps", order="time-x"))


EXACT = {
    **{f"{row[0]}:unet": lambda name=name: exact_ddpm(name) for name, row in diffusers.PREDICTIONS.items()},
    **{row[0]: lambda name=name: ddpm.UserDiffusion(name, exact=True) for name, row in ddpm.OBJECTIVES.items()},
    "diffusers-flow-match": exact_flow,
    "flow-matching": exact_matching,
}


@pytest.mark.parametrize("denoiser", EXACT)
def test_exact_network_measured_as_exact(denoiser, tmp_path):
    exact_run(tmp_path, EXACT[denoiser], denoiser)
