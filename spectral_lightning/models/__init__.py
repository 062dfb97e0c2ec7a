"""Plain networks, and the LightningModules of the denoiser families."""

from spectral_lightning.models.deep_linear import DeepLinearDenoiser, DeepLinearPerLevel
from spectral_lightning.models.dit import DiT, DiTDenoiser
from spectral_lightning.models.full_width import CircularConvPerLevel, FullWidthConvDenoiser
from spectral_lightning.models.linear import AffinePerLevel, LinearDenoiser
from spectral_lightning.models.local_convolution import LocalConvDenoiser, LocalConvPerLevel
from spectral_lightning.models.mlp import FourierEmbedding, MLPDenoiser, ResidualMLP
from spectral_lightning.models.module import DiffusionModule
from spectral_lightning.models.per_level import PerLevel
from spectral_lightning.models.solvable import SolvableDenoiser
from spectral_lightning.models.unet import UNet, UNetDenoiser

__all__ = [
    "AffinePerLevel",
    "CircularConvPerLevel",
    "DeepLinearDenoiser",
    "DeepLinearPerLevel",
    "DiT",
    "DiTDenoiser",
    "DiffusionModule",
    "FourierEmbedding",
    "FullWidthConvDenoiser",
    "LinearDenoiser",
    "LocalConvDenoiser",
    "LocalConvPerLevel",
    "MLPDenoiser",
    "PerLevel",
    "ResidualMLP",
    "SolvableDenoiser",
    "UNet",
    "UNetDenoiser",
]
