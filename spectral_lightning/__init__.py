"""Watch a diffusion model learn its data mode by mode, live, beside an exactly solvable theory.

The names below are loaded when they are first used, so that ``import spectral_lightning.theory`` loads neither torch nor
lightning.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "AnalyticOverlay": "callbacks",
    "EmergenceFitter": "callbacks",
    "SpectralTracker": "callbacks",
    "Output": "tracking",
    "Reference": "tracking",
    "Sampling": "tracking",
    "Schedule": "tracking",
    "SpectralMonitor": "tracking",
    "DeepLinearDenoiser": "models",
    "DiT": "models",
    "DiffusionModule": "models",
    "FullWidthConvDenoiser": "models",
    "LinearDenoiser": "models",
    "LocalConvDenoiser": "models",
    "ResidualMLP": "models",
    "UNet": "models",
    "GaussianDataModule": "datamodules",
    "GaussianFieldDataModule": "datamodules",
    "MixtureDataModule": "datamodules",
    "ImageDataModule": "datamodules",
    "PatchDataModule": "datamodules",
    "FourierBasis": "spectra",
    "PatchBasis": "spectra",
    "PCABasis": "spectra",
    "SpectralHistory": "spectra",
    "SpectralMoments": "spectra",
    "SpectralProbe": "spectra",
    "LearningDynamics": "theory",
    "Objective": "theory",
    "OneLayer": "theory",
    "Preconditioning": "theory",
    "Sampler": "sampling",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"spectral_lightning.{_HOME[name]}"), name)
    raise AttributeError(f"module 'spectral_lightning' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
