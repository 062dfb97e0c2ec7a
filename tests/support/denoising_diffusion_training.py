"""What a user of denoising-diffusion-pytorch writes: its GaussianDiffusion in a LightningModule."""

import pytest

from tests.support.gaussian_images import UserModule
from tests.support.tracked_training import ExactNetwork

library = pytest.importorskip("denoising_diffusion_pytorch")

# objective -> adapter, what it predicts
OBJECTIVES = {
    "pred_noise": ("ddpm-epsilon", "epsilon"),
    "pred_x0": ("ddpm-x0", "x0"),
    "pred_v": ("ddpm-v", "v"),
}


class UserDiffusion(UserModule):
    def __init__(self, objective, self_condition=False, auto_normalize=False, exact=False):
        super().__init__()
        options = {"image_size": 8, "timesteps": 100, "objective": objective, "auto_normalize": auto_normalize}
        model = library.Unet(8, dim_mults=(1, 2), channels=1, self_condition=self_condition, flash_attn=False)
        self.diffusion = library.GaussianDiffusion(model, **options)
        if exact:
            abar, target = self.diffusion.alphas_cumprod.double(), OBJECTIVES[objective][1]
            network = ExactNetwork(lambda t: (abar[t].sqrt(), (1 - abar[t]).sqrt()), target)
            network.channels, network.self_condition = 1, False  # what GaussianDiffusion asks of its network
            self.diffusion.model = network

    def loss(self, x):
        return self.diffusion(x)
