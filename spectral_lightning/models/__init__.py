"""Plain networks, and the LightningModules of the denoiser families."""

from spectral_lightning.models.module import DiffusionModule
from spectral_lightning.models.networks.dit import DiT, DiTDenoiser
from spectral_lightning.models.networks.mlp import FourierEmbedding, MLPDenoiser, ResidualMLP
from spectral_lightning.models.networks.unet import UNet, UNetDenoiser
from spectral_lightning.models.solvable.deep_linear import DeepLinearDenoiser, DeepLinearPerLevel
from spectral_lightning.models.solvable.full_width import CircularConvPerLevel, FullWidthConvDenoiser
from spectral_lightning.models.solvable.linear import AffinePerLevel, LinearDenoiser
from spectral_lightning.models.solvable.local_convolution import LocalConvDenoiser, LocalConvPerLevel
from spectral_lightning.models.solvable.per_level import PerLevel
from spectral_lightning.models.solvable.solvable import SolvableDenoiser

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
