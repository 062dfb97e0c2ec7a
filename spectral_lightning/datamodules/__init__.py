"""Data whose spectrum is known or worth knowing, ready for a Trainer and for YAML."""

from spectral_lightning.datamodules.images.datamodule import ImageDataModule
from spectral_lightning.datamodules.patches import PatchDataModule
from spectral_lightning.datamodules.spectrum_edit import (
    EditedDataset,
    FittedEdit,
    Recolor,
    SpectrumEdit,
    SwapVariances,
    Whiten,
)
from spectral_lightning.datamodules.synthetic.fields import GaussianFieldDataModule
from spectral_lightning.datamodules.synthetic.gaussian import GaussianDataModule
from spectral_lightning.datamodules.synthetic.mixture import MixtureDataModule
from spectral_lightning.datamodules.synthetic.population import GaussianPopulation, SpectrumChoice

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
