"""denoising-diffusion-pytorch: its own `model_predictions` is what the adapter computes."""

import numpy as np
import pytest
import torch

from spectral_lightning.diffusion import Adapter, BoundDenoiser, self_check
from tests.support.gaussian_images import UserModule, images, measured, trained

library = pytest.importorskip("denoising_diffusion_pytorch")

OBJECTIVES = {"pred_noise": "ddpm-epsilon", "pred_x0": "ddpm-x0", "pred_v": "ddpm-v"}


class UserDiffusion(UserModule):
    def __init__(self, objective, self_condition, auto_normalize=False):
        super().__init__()
        model = library.Unet(8, dim_mults=(1, 2), channels=1, self_condition=self_condition, flash_attn=False)
        self.diffusion = library.GaussianDiffusion(
            model, image_size=8, timesteps=100, objective=objective, auto_normalize=auto_normalize
        )

    def loss(self, x):
        return self.diffusion(x)


def noisy(sigma):
    eps = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(5))
    return images(3, seed=5) + sigma * eps


@pytest.mark.slow
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("self_condition", [False, True])
def test_gaussian_diffusion(objective, self_condition):
    module = trained(UserDiffusion(objective, self_condition), images())
    denoiser = BoundDenoiser(Adapter(OBJECTIVES[objective]), module)
    self_check(denoiser, images(16))
    zeros = BoundDenoiser(Adapter(OBJECTIVES[objective], self_conditioning="zeros"), module)
    twice = BoundDenoiser(Adapter(OBJECTIVES[objective], self_conditioning="estimate"), module)
    for i in (0, 3, 20, 50, 80):
        sigma = denoiser.sigma_grid[i]
        z, s = noisy(sigma), torch.full((3,), sigma)
        x, t = z / (1 + sigma**2) ** 0.5, torch.full((3,), i)
        with torch.no_grad():
            theirs = module.diffusion.model_predictions(x, t).pred_x_start
            again = module.diffusion.model_predictions(x, t, theirs if self_condition else None).pred_x_start
            tolerance = {"rtol": 1e-5, "atol": 1e-5 * max(1, sigma)}
            torch.testing.assert_close(denoiser(z, s), theirs, **tolerance)
            torch.testing.assert_close(zeros(z, s), theirs, **tolerance)
            torch.testing.assert_close(twice(z, s), again, **tolerance)
    row = measured(denoiser)
    assert np.isfinite(row["variance"]).all()
    assert row["non_finite"] == 0


@pytest.mark.slow
def test_auto_normalized_models_measured_in_the_units_of_the_data():
    module = trained(UserDiffusion("pred_v", False, auto_normalize=True), images().sigmoid())
    plain = BoundDenoiser(Adapter("ddpm-v"), module)
    assert "[0, 1] at [-1, 1]" in plain.describe()
    with pytest.warns(UserWarning, match="data_scale=2, data_shift=-1"):
        self_check(plain, images(16).sigmoid())
    denoiser = BoundDenoiser(Adapter("ddpm-v", data_scale=2.0, data_shift=-1.0), module)
    owner, i = module.diffusion, 30
    z, sigma = noisy(denoiser.sigma_grid[i]).sigmoid(), denoiser.sigma_grid[i]
    with torch.no_grad():
        x = owner.normalize(z) * owner.sqrt_alphas_cumprod[i]
        theirs = owner.unnormalize(owner.model_predictions(x, torch.full((3,), i)).pred_x_start)
        torch.testing.assert_close(denoiser(z, torch.full((3,), sigma)), theirs, rtol=1e-5, atol=1e-5)
