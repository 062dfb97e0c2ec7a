"""What a library's own code makes of its network's output is what the adapter makes of it."""

import pytest
import torch

from spectral_lightning.diffusion import Adapter, BoundDenoiser, resolve_denoiser, self_check
from tests.support.denoising_diffusion_training import OBJECTIVES, UserDiffusion
from tests.support.diffusers_training import PREDICTIONS, UserDDPM, UserFlow, diffusers, dit, unet
from tests.support.gaussian_images import images
from tests.support.torchcfm_training import Flat
from tests.support.torchcfm_training import UserFlow as UserMatching
from tests.support.torchcfm_training import unet as matching_unet

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def noisy(sigma, seed=5):
    eps = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    return images(3, seed=seed) + sigma * eps


def checked(module, adapter):
    """The denoiser of a module none of whose layers is zero, as some are before training."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    denoiser = resolve_denoiser(module.eval(), adapter)[0]
    self_check(denoiser, images(8))
    return denoiser


def close(ours, theirs, sigma=1.0):
    # Their single-precision 1 - abar, and division of x by it, at the ends of a schedule
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * max(1, sigma))


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("schedule", [{}, {"beta_schedule": "squaredcos_cap_v2"}, {"rescale_betas_zero_snr": True}])
def test_ddpm_scheduler_of_diffusers(prediction, schedule):
    module = UserDDPM(prediction, unet(), clip_sample=False, **schedule)
    denoiser, before = checked(module, PREDICTIONS[prediction][0]), module.noise_scheduler.timesteps.clone()
    for i in (0, 1, 10, 250, 500, 800, 950):
        sigma = denoiser.sigma_grid[i]
        x = noisy(sigma) / (1 + sigma**2) ** 0.5
        theirs = module.noise_scheduler.step(module.unet(x, i).sample, i, x).pred_original_sample
        close(denoiser(noisy(sigma), torch.full((3,), sigma)), theirs, sigma)
    assert torch.equal(module.noise_scheduler.timesteps, before)
    assert module.noise_scheduler.num_inference_steps is None
    finite = torch.isfinite(1 / module.noise_scheduler.alphas_cumprod)
    assert len(denoiser.sigma_grid) == finite.sum()


@pytest.mark.parametrize(
    ("network", "options", "label"),
    [
        (unet, {}, {}),
        (dit, {"condition": "class_labels", "default_condition": 10}, {"class_labels": torch.full((3,), 10)}),
    ],
    ids=["unet", "dit"],
)
def test_flow_match_scheduler_of_diffusers(network, options, label):
    module = UserFlow(network())
    denoiser = checked(module, Adapter("diffusers-flow-match", **options))
    for g in (0.05, 0.3, 0.6, 0.95):
        sigma = g / (1 - g)
        x = noisy(sigma) / (1 + sigma)
        # One Euler step from g to 0 is the scheduler's own estimate of the data
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
        scheduler.set_timesteps(sigmas=[g])
        time = scheduler.timesteps[0]
        theirs = scheduler.step(module(x, time.expand(3), **label).sample, time, x).prev_sample
        close(denoiser(noisy(sigma), torch.full((3,), sigma)), theirs)


def test_classes_of_a_dit():
    module = UserFlow(dit())
    denoiser = checked(module, Adapter("diffusers-flow-match", condition="class_labels", default_condition=10))
    z, sigma = noisy(1.0), torch.ones(3)
    by_class = [denoiser(z, sigma, torch.full((3,), c)) for c in (0, 1)]
    theirs = z / 2 - module(z / 2, torch.full((3,), 500.0), class_labels=torch.zeros(3).long()).sample / 2
    assert (by_class[0] - by_class[1]).abs().max() > 1e-3
    close(by_class[0], theirs)
    close(denoiser(z, sigma, torch.tensor([0, 1, 0]))[1], by_class[1][1])


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("self_condition", [False, True])
def test_gaussian_diffusion(objective, self_condition):
    name, module = OBJECTIVES[objective][0], UserDiffusion(objective, self_condition)
    denoiser, predict = checked(module, name), module.diffusion.model_predictions
    zeros, twice = (BoundDenoiser(Adapter(name, self_conditioning=how), module) for how in ("zeros", "estimate"))
    for i in (0, 20, 80):
        sigma = denoiser.sigma_grid[i]
        z, s, t = noisy(sigma), torch.full((3,), sigma), torch.full((3,), i)
        x = z / (1 + sigma**2) ** 0.5
        theirs = predict(x, t).pred_x_start
        close(denoiser(z, s), theirs, sigma)
        close(zeros(z, s), theirs, sigma)
        close(twice(z, s), predict(x, t, theirs if self_condition else None).pred_x_start, sigma)


def test_auto_normalized_models_measured_in_the_units_of_the_data():
    module = UserDiffusion("pred_v", auto_normalize=True)
    with pytest.warns(UserWarning, match="data_scale=2, data_shift=-1"):
        self_check(BoundDenoiser(Adapter("ddpm-v"), module), images(8).sigmoid())
    denoiser = BoundDenoiser(Adapter("ddpm-v", data_scale=2.0, data_shift=-1.0), module.eval())
    owner, i = module.diffusion, 30
    z, sigma = noisy(denoiser.sigma_grid[i]).sigmoid(), denoiser.sigma_grid[i]
    x = owner.normalize(z) * owner.sqrt_alphas_cumprod[i]
    theirs = owner.unnormalize(owner.model_predictions(x, torch.full((3,), i)).pred_x_start)
    close(denoiser(z, torch.full((3,), sigma)), theirs)


@pytest.mark.parametrize("make", [Flat, matching_unet], ids=["mlp", "unet"])
def test_conditional_flow_matching(make):
    module = UserMatching(make())
    denoiser = checked(module, "flow-matching")
    x1, x0 = images(3, seed=5), torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(5))
    for time in (0.02, 0.3, 0.5, 0.9, 0.998):
        t = torch.full((3,), time)
        xt = module.matcher.compute_mu_t(x0, x1, t)
        # z = x_t / t holds the data as they are, and noise of (1 - t) / t; one Euler step leads to t = 1
        ours = denoiser(xt / time, torch.full((3,), (1 - time) / time))
        close(ours, xt + (1 - time) * module.net(t, xt))


@torch.enable_grad()
def test_the_flow_read_backwards_is_refused_once_it_has_learnt():
    torch.manual_seed(0)
    module, data = UserMatching(Flat(width=128)), images(4096)
    optimizer = torch.optim.Adam(module.parameters(), lr=3e-3)
    for _ in range(400):
        optimizer.zero_grad()
        module.loss(data[torch.randint(len(data), (128,))]).backward()
        optimizer.step()
    self_check(BoundDenoiser(Adapter("flow-matching"), module), images(seed=3))
    with pytest.raises(ValueError, match="wrong sign"):
        self_check(BoundDenoiser(Adapter("flow-matching", prediction="eps-x0"), module), images(seed=3))
