"""What a diffusion model is here: a denoiser, its latents, its loss and its noise levels. Plain torch, no Trainer."""

from spectral_lightning.diffusion.adapters.adapter import Adapter
from spectral_lightning.diffusion.adapters.bound import BoundDenoiser
from spectral_lightning.diffusion.adapters.checks import self_check
from spectral_lightning.diffusion.adapters.resolve import resolve_denoiser
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
from spectral_lightning.diffusion.protocols import offers
from spectral_lightning.diffusion.solvable import Departure, HasSampler, SupportsDynamics
from spectral_lightning.diffusion.weights.averages import (
    Average,
    HasEmaScope,
    Pairs,
    recognised,
)
from spectral_lightning.diffusion.weights.source import (
    AveragedWeights,
    RawWeights,
    ScopedWeights,
    WeightSource,
    holding,
)

__all__ = [
    "Adapter",
    "Average",
    "AveragedWeights",
    "BoundDenoiser",
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
    "offers",
    "recognised",
    "resolve_denoiser",
    "self_check",
    "state_dtype",
    "undisturbed",
]
