"""denoising-diffusion-pytorch through the tracker: GaussianDiffusion wrapped in a LightningModule, three lines added."""

import pytest

from tests.support.gaussian_images import UserModule, images
from tests.support.tracked_training import (
    ExactNetwork,
    attached_run,
    distance,
    exact_run,
    fitted,
    three,
    tracker,
)

library = pytest.importorskip("denoising_diffusion_pytorch")

OBJECTIVES = {
    "pred_noise": ("ddpm-epsilon", "epsilon", "variance_preserving", lambda x0, eps, a, s: eps),
    "pred_x0": ("ddpm-x0", "x0", "x0", lambda x0, eps, a, s: x0),
    "pred_v": ("ddpm-v", "v", "velocity", lambda x0, eps, a, s: a * eps - s * x0),
}


class UserDiffusion(UserModule):
    def __init__(self, objective, exact=False):
        super().__init__()
        model = library.Unet(8, dim_mults=(1, 2), channels=1, flash_attn=False)
        self.diffusion = library.GaussianDiffusion(
            model, image_size=8, timesteps=100, objective=objective, auto_normalize=False
        )
        if exact:
            abar, target = self.diffusion.alphas_cumprod.double(), OBJECTIVES[objective][3]
            network = ExactNetwork(lambda t: (abar[t].sqrt(), (1 - abar[t]).sqrt()), target)
            network.channels, network.self_condition = 1, False  # what GaussianDiffusion asks of its network
            self.diffusion.model = network

    def loss(self, x):
        return self.diffusion(x)


@pytest.mark.slow
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_gaussian_diffusion(objective, tmp_path, monkeypatch):
    name, predicted, kind, _ = OBJECTIVES[objective]
    line = f"{name}: diffusion.model(x, time) predicts {predicted}, time index, path variance-preserving, sigma "
    attached_run(tmp_path, monkeypatch, lambda: UserDiffusion(objective), three(name, kind), line)


@pytest.mark.slow
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_exact_network_measured_as_exact(objective, tmp_path):
    exact_run(tmp_path, lambda: UserDiffusion(objective, exact=True), OBJECTIVES[objective][0])


@pytest.mark.slow
def test_variances_move_to_those_of_the_data(tmp_path):
    long = tracker("ddpm-v")
    fitted(tmp_path, lambda: UserDiffusion("pred_v"), [long], steps=150, data=images(1024))
    far = distance(long.history)
    assert far[-1] < 0.5 * far[0]
