"""From any network to a denoiser: conventions, adapters, checks."""

from spectral_lightning.diffusion.adapters.adapter import Adapter
from spectral_lightning.diffusion.adapters.bound import BoundDenoiser, resolve_denoiser
from spectral_lightning.diffusion.adapters.checks import self_check

__all__ = ["Adapter", "BoundDenoiser", "resolve_denoiser", "self_check"]
