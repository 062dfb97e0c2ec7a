"""Data whose spectrum is known or worth knowing, ready for a Trainer and for YAML."""

from spectral_lightning.datamodules.fields import GaussianFieldDataModule
from spectral_lightning.datamodules.gaussian import GaussianDataModule
from spectral_lightning.datamodules.images import ImageDataModule
from spectral_lightning.datamodules.mixture import MixtureDataModule
from spectral_lightning.datamodules.patches import PatchDataModule
from spectral_lightning.datamodules.population import GaussianPopulation, SpectrumChoice
from spectral_lightning.datamodules.spectrum_edit import (
    EditedDataset,
    FittedEdit,
    Recolor,
    SpectrumEdit,
    SwapVariances,
    Whiten,
)

__all__ = [
    "EditedDataset",
    "FittedEdit",
    "GaussianDataModule",
    "GaussianFieldDataModule",
    "GaussianPopulation",
    "ImageDataModule",
    "MixtureDataModule",
    "PatchDataModule",
    "Recolor",
    "SpectrumChoice",
    "SpectrumEdit",
    "SwapVariances",
    "Whiten",
]
