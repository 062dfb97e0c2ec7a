"""The weights to measure: raw or averaged."""

from spectral_lightning.diffusion.weights.averages import recognised
from spectral_lightning.diffusion.weights.find import Weights, find_weights
from spectral_lightning.diffusion.weights.source import WeightSource

__all__ = ["WeightSource", "Weights", "find_weights", "recognised"]
