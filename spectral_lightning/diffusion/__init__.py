"""What a diffusion model is here: a denoiser, its latents, its loss and its noise levels. Plain torch, no Trainer."""

from spectral_lightning.diffusion.adapters import Adapter, BoundDenoiser, resolve_denoiser, self_check
from spectral_lightning.diffusion.denoiser import (
    Denoiser,
    Departure,
    SupportsConditionalDenoise,
    SupportsDenoise,
    SupportsDynamics,
    state_dtype,
    undisturbed,
)
from spectral_lightning.diffusion.latents import Latents
from spectral_lightning.diffusion.loss import (
    DDPMNoise,
    GridNoise,
    LogNormalNoise,
    NoiseDistribution,
    Reduction,
    UniformTimeNoise,
    default_noise,
    denoising_loss,
)
from spectral_lightning.diffusion.passes import Listener, NetworkPasses, listen, publish
from spectral_lightning.diffusion.weights import Weights, WeightSource, find_weights

__all__ = [
    "Adapter",
    "BoundDenoiser",
    "DDPMNoise",
    "Denoiser",
    "Departure",
    "GridNoise",
    "Latents",
    "Listener",
    "LogNormalNoise",
    "NetworkPasses",
    "NoiseDistribution",
    "Reduction",
    "SupportsConditionalDenoise",
    "SupportsDenoise",
    "SupportsDynamics",
    "UniformTimeNoise",
    "WeightSource",
    "Weights",
    "default_noise",
    "denoising_loss",
    "find_weights",
    "listen",
    "publish",
    "resolve_denoiser",
    "self_check",
    "state_dtype",
    "undisturbed",
]
