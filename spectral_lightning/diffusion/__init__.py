"""What a diffusion model is here: a denoiser, its latents, its loss and its noise levels. Plain torch, no Trainer."""

from spectral_lightning.diffusion.denoiser import (
    Denoiser,
    SupportsConditionalDenoise,
    SupportsDenoise,
    check_denoiser,
    state_dtype,
    undisturbed,
)
from spectral_lightning.diffusion.latents import Latents
from spectral_lightning.diffusion.loss import Reduction, denoising_loss
from spectral_lightning.diffusion.noise import (
    DDPMNoise,
    GridNoise,
    LogNormalNoise,
    NoiseDistribution,
    UniformTimeNoise,
    default_noise,
)
from spectral_lightning.diffusion.solvable import Departure, HasSampler, SupportsDynamics

__all__ = [
    "DDPMNoise",
    "Denoiser",
    "Departure",
    "GridNoise",
    "HasSampler",
    "Latents",
    "LogNormalNoise",
    "NoiseDistribution",
    "Reduction",
    "SupportsConditionalDenoise",
    "SupportsDenoise",
    "SupportsDynamics",
    "UniformTimeNoise",
    "check_denoiser",
    "default_noise",
    "denoising_loss",
    "state_dtype",
    "undisturbed",
]
