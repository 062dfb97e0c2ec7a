"""Watch a diffusion model learn its data mode by mode, during training and next to an exactly solvable theory.

Names are imported on first use, so that ``import spectral_lightning.theory`` loads neither torch nor Lightning.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_NAMES = {
    "callbacks": "AnalyticOverlay EmergenceFitter SpectralTracker",
    "tracking": "Fitter Output Overlay Reference Sampling Schedule SpectralMonitor",
    "models": (
        "DeepLinearDenoiser DiT DiffusionModule FullWidthConvDenoiser LinearDenoiser LocalConvDenoiser ResidualMLP UNet"
    ),
    "datamodules": (
        "GaussianDataModule GaussianFieldDataModule ImageDataModule MixtureDataModule PatchDataModule "
        "Recolor SwapVariances Whiten"
    ),
    "spectra": (
        "Eigenmodes FourierBasis FourierModes PCABasis PatchBasis PatchComponents SpectralHistory "
        "SpectralMoments SpectralProbe"
    ),
    "diffusion": "Adapter",
    "theory": (
        "DeepLinear FlowMatching FullWidthConvolution LocalConvolution NonCenteredOneLayer Objective "
        "OneLayer Preconditioning SymmetricTwoLayer"
    ),
    "sampling": "Sampler",
}
_HOME = {name: home for home, names in _NAMES.items() for name in names.split()}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"spectral_lightning.{_HOME[name]}"), name)
    raise AttributeError(f"module 'spectral_lightning' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
