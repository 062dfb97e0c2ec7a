"""diffusers through the tracker: a user's LightningModule around its networks and schedulers, three lines added."""

import numpy as np
import pytest
import torch
from gaussian_images import UserModule, images
from tracked_training import ExactNetwork, attached_run, distance, exact_run, fitted, three, tracker, without_drawing

from spectral_lightning.diffusion import Adapter

diffusers = pytest.importorskip("diffusers")

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


def unet():
    return diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        dropout=0.1,
    )


def dit():
    return diffusers.DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=4,
        in_channels=1,
        out_channels=1,
        num_layers=1,
        sample_size=8,
        patch_size=2,
        num_embeds_ada_norm=10,
        norm_num_groups=1,
    )


class UserDDPM(UserModule):
    def __init__(self, prediction, network=None):
        super().__init__()
        self.noise_scheduler = diffusers.DDPMScheduler(prediction_type=prediction)
        self.unet = network(self.noise_scheduler) if network else unet()

    def loss(self, x):
        noise, t = torch.randn_like(x), torch.randint(0, 1000, (len(x),))
        noisy = self.noise_scheduler.add_noise(x, noise, t)
        target = {"epsilon": noise, "sample": x}.get(self.noise_scheduler.config.prediction_type)
        target = self.noise_scheduler.get_velocity(x, noise, t) if target is None else target
        return torch.nn.functional.mse_loss(self.unet(noisy, t).sample, target)


class UserFlow(UserModule):
    def __init__(self, network):
        super().__init__()
        self.transformer = network()

    def loss(self, x):
        noise, g = torch.randn_like(x), torch.rand(len(x))
        mixed = g[:, None, None, None] * noise + (1 - g[:, None, None, None]) * x
        return torch.nn.functional.mse_loss(self.transformer(mixed, 1000 * g).sample, noise - x)


class UserDiT(UserFlow):
    def training_step(self, batch, batch_idx):
        x, label = batch
        noise, g = torch.randn_like(x), torch.rand(len(x))
        mixed = g[:, None, None, None] * noise + (1 - g[:, None, None, None]) * x
        out = self.transformer(mixed, 1000 * g, class_labels=label).sample
        return torch.nn.functional.mse_loss(out, noise - x)


@pytest.mark.slow
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_unet_and_scheduler(prediction, tmp_path, monkeypatch):
    name, predicted, kind = PREDICTIONS[prediction]
    line = (
        f"{name}: unet(x, time) predicts {predicted}, time index, path variance-preserving, sigma 0.01 to 157.4, 1000"
    )
    attached_run(tmp_path, monkeypatch, lambda: UserDDPM(prediction), three(f"{name}:unet", kind), line)


@pytest.mark.slow
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_exact_network_measured_as_exact(prediction, tmp_path, monkeypatch):
    def exact(scheduler):
        abar = scheduler.alphas_cumprod.double()
        return ExactNetwork(lambda t: (abar[t].sqrt(), (1 - abar[t]).sqrt()), TARGETS[prediction], Output)

    exact_run(tmp_path, monkeypatch, lambda: UserDDPM(prediction, exact), f"{PREDICTIONS[prediction][0]}:unet")


@pytest.mark.slow
def test_flow_matching(tmp_path, monkeypatch):
    line = "diffusers-flow-match: transformer(x, time) predicts eps-x0, time noise-share times 1000, path linear"
    attached_run(tmp_path, monkeypatch, lambda: UserFlow(unet), three("diffusers-flow-match", "flow"), line)


@pytest.mark.slow
def test_exact_flow_measured_as_exact(tmp_path, monkeypatch):
    def exact():
        return ExactNetwork(
            lambda t: (1 - t.double() / 1000, t.double() / 1000), lambda x0, eps, a, s: eps - x0, Output
        )

    exact_run(tmp_path, monkeypatch, lambda: UserFlow(exact), "diffusers-flow-match")


@pytest.mark.slow
def test_class_conditional_dit(tmp_path, monkeypatch):
    adapter = Adapter("diffusers-flow-match", condition="class_labels")
    labels = torch.arange(256) % 10
    callbacks = three(adapter, "flow", condition=torch.arange(10))
    line = "diffusers-flow-match: transformer(x, time) predicts eps-x0"
    attached_run(tmp_path, monkeypatch, lambda: UserDiT(dit), callbacks, line, labels=labels)


@pytest.mark.slow
def test_variances_move_to_those_of_the_data(tmp_path, monkeypatch):
    without_drawing(monkeypatch)
    long = tracker("diffusers-epsilon:unet")
    fitted(tmp_path, lambda: UserDDPM("epsilon"), [long], steps=150, data=images(1024))
    far = distance(long.history)
    assert (np.diff(far) < 0).all()
    assert far[-1] < 0.7 * far[0]
