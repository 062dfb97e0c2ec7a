"""diffusers: what its own schedulers make of a network's output is what the adapter makes of it."""

import numpy as np
import pytest
import torch

from spectral_lightning.diffusion import Adapter, BoundDenoiser, resolve_denoiser, self_check
from tests.support.diffusers_training import UserDDPM, UserFlow, diffusers, dit, unet
from tests.support.gaussian_images import images, measured, trained

PREDICTIONS = {"epsilon": "diffusers-epsilon", "v_prediction": "diffusers-v", "sample": "diffusers-sample"}


class UserDiT(UserFlow):
    """Trained and evaluated under the null class."""

    def forward(self, x, t):
        return super().forward(x, t, class_labels=torch.full((len(x),), 10))


def noisy(sigma, seed=5):
    eps = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    return images(3, seed=seed) + sigma * eps


@pytest.mark.slow
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("schedule", [{}, {"beta_schedule": "squaredcos_cap_v2"}, {"rescale_betas_zero_snr": True}])
def test_ddpm_scheduler(prediction, schedule):
    module = trained(UserDDPM(prediction, unet(), clip_sample=False, **schedule), images())
    denoiser, line = resolve_denoiser(module, PREDICTIONS[prediction])
    assert line.startswith(f"{PREDICTIONS[prediction]}: unet(x, time)")
    before = module.noise_scheduler.timesteps.clone()
    self_check(denoiser, images(16))
    indices = [0, 1, 10, 250, 500, 800, 950]
    for i in indices:
        sigma = denoiser.sigma_grid[i]
        z = noisy(sigma)
        x = z / (1 + sigma**2) ** 0.5
        with torch.no_grad():
            out = module.unet(x, i).sample
            theirs = module.noise_scheduler.step(out, i, x).pred_original_sample
            ours = denoiser(z, torch.full((3,), sigma))
        # their single-precision 1 - abar, and division of x by it, at the ends of the schedule
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * max(1, sigma))
    row = measured(denoiser)
    assert np.isfinite(row["variance"]).all()
    assert row["non_finite"] == 0
    assert torch.equal(module.noise_scheduler.timesteps, before)
    assert module.noise_scheduler.num_inference_steps is None
    zero_snr = bool(schedule.get("rescale_betas_zero_snr"))
    assert len(denoiser.sigma_grid) == 1000 - zero_snr * (module.noise_scheduler.alphas_cumprod[-1].item() == 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "adapter"),
    [
        (lambda: UserFlow(unet()), Adapter("diffusers-flow-match")),
        (
            lambda: UserDiT(dit()),
            Adapter("diffusers-flow-match", condition="class_labels", default_condition=10),
        ),
    ],
    ids=["unet", "dit"],
)
def test_flow_match_scheduler(make, adapter):
    module = trained(make(), images())
    denoiser = BoundDenoiser(adapter, module)
    self_check(denoiser, images(16))
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(8)
    for i in range(1, 8):  # the first is all noise, sigma = infinity
        scheduler._step_index = None
        g = scheduler.sigmas[i].item()
        sigma = g / (1 - g)
        z = noisy(sigma)
        x = z / (1 + sigma)
        with torch.no_grad():
            out = module(x, scheduler.timesteps[i].expand(3)).sample
            # one Euler step from g to 0 is the scheduler's own estimate of the data
            scheduler_to_zero = diffusers.FlowMatchEulerDiscreteScheduler()
            scheduler_to_zero.set_timesteps(sigmas=[g])
            theirs = scheduler_to_zero.step(out, scheduler_to_zero.timesteps[0], x).prev_sample
            ours = denoiser(z, torch.full((3,), sigma))
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    row = measured(denoiser)
    assert np.isfinite(row["variance"]).all()


@pytest.mark.slow
def test_classes_of_a_dit():
    module = UserDiT(dit()).eval()
    torch.nn.init.normal_(module.transformer.proj_out_2.weight)
    denoiser = BoundDenoiser(Adapter("diffusers-flow-match", condition="class_labels"), module)
    z, sigma = noisy(1.0), torch.ones(3)
    with torch.no_grad():
        by_class = [denoiser(z, sigma, torch.full((3,), c)) for c in (0, 1)]
        mixed = denoiser(z, sigma, torch.tensor([0, 1, 0]))
        theirs = (
            z / 2 - module.transformer(z / 2, torch.full((3,), 500.0), class_labels=torch.zeros(3).long()).sample / 2
        )
    assert (by_class[0] - by_class[1]).abs().max() > 1e-3
    torch.testing.assert_close(by_class[0], theirs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(mixed[1], by_class[1][1], rtol=1e-4, atol=1e-5)
