"""What a user of diffusers writes: its networks and schedulers in LightningModules, with the losses of its examples."""

import pytest
import torch

from tests.support.gaussian_images import UserModule

diffusers = pytest.importorskip("diffusers")


class Output:
    """What diffusers' networks return."""

    def __init__(self, sample):
        self.sample = sample


# prediction -> adapter, what it predicts
PREDICTIONS = {
    "epsilon": ("diffusers-epsilon", "epsilon"),
    "v_prediction": ("diffusers-v", "v"),
    "sample": ("diffusers-sample", "x0"),
}


def unet(dropout=0.0):
    return diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        dropout=dropout,
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
    """The network itself, or what makes one for the scheduler."""

    def __init__(self, prediction, network, **schedule):
        super().__init__()
        self.noise_scheduler = diffusers.DDPMScheduler(prediction_type=prediction, **schedule)
        self.unet = network if isinstance(network, torch.nn.Module) else network(self.noise_scheduler)

    def loss(self, x):
        noise, t = torch.randn_like(x), torch.randint(0, 1000, (len(x),))
        noisy = self.noise_scheduler.add_noise(x, noise, t)
        target = {"epsilon": noise, "sample": x}.get(self.noise_scheduler.config.prediction_type)
        target = self.noise_scheduler.get_velocity(x, noise, t) if target is None else target
        return torch.nn.functional.mse_loss(self.unet(noisy, t).sample, target)


class UserFlow(UserModule):
    def __init__(self, network):
        super().__init__()
        self.transformer = network
        self.scheduler = diffusers.FlowMatchEulerDiscreteScheduler()

    def forward(self, x, t, **condition):
        return self.transformer(x, t, **condition)

    def loss(self, x, **condition):
        noise, g = torch.randn_like(x), torch.rand(len(x))
        mixed = g[:, None, None, None] * noise + (1 - g[:, None, None, None]) * x
        return torch.nn.functional.mse_loss(self(mixed, 1000 * g, **condition).sample, noise - x)


class UserDiT(UserFlow):
    """Trained under labels."""

    def training_step(self, batch, batch_idx):
        x, label = batch
        return self.loss(x, class_labels=label)
