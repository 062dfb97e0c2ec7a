"""What a diffusion model is here: a denoiser, its latents, its loss and its noise levels. Plain torch, no Trainer."""

from spectral_lightning.diffusion.averages import (
    Average,
    HasEmaScope,
    Pairs,
    recognised,
)
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
from spectral_lightning.diffusion.weights import (
    AveragedWeights,
    RawWeights,
    ScopedWeights,
    WeightSource,
    holding,
)

__all__ = [
    "Average",
    "AveragedWeights",
    "DDPMNoise",
    "Denoiser",
    "Departure",
    "GridNoise",
    "HasEmaScope",
    "HasSampler",
    "Latents",
    "LogNormalNoise",
    "NoiseDistribution",
    "Pairs",
    "RawWeights",
    "Reduction",
    "ScopedWeights",
    "SupportsConditionalDenoise",
    "SupportsDenoise",
    "SupportsDynamics",
    "UniformTimeNoise",
    "WeightSource",
    "check_denoiser",
    "default_noise",
    "denoising_loss",
    "holding",
    "recognised",
    "state_dtype",
    "undisturbed",
]
