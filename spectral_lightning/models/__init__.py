"""The training module, the networks it takes, and the solvable denoisers."""

from spectral_lightning.models.module import DiffusionModule
from spectral_lightning.models.networks.dit import DiT
from spectral_lightning.models.networks.mlp import FourierEmbedding, ResidualMLP
from spectral_lightning.models.networks.unet import UNet
from spectral_lightning.models.solvable.convolution import CircularConvPerLevel, LocalConvPerLevel
from spectral_lightning.models.solvable.denoisers import (
    DeepLinearDenoiser,
    FullWidthConvDenoiser,
    LinearDenoiser,
    LocalConvDenoiser,
)
from spectral_lightning.models.solvable.per_level import AffinePerLevel, DeepLinearPerLevel, PerLevel
from spectral_lightning.models.solvable.solvable import SolvableDenoiser

__all__ = [
    "AffinePerLevel",
    "CircularConvPerLevel",
    "DeepLinearDenoiser",
    "DeepLinearPerLevel",
    "DiT",
    "DiffusionModule",
    "FourierEmbedding",
    "FullWidthConvDenoiser",
    "LinearDenoiser",
    "LocalConvDenoiser",
    "LocalConvPerLevel",
    "PerLevel",
    "ResidualMLP",
    "SolvableDenoiser",
    "UNet",
]
