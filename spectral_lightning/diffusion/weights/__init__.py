"""The weights to measure: raw, or an average that the module, its trainer or the user keeps."""

from spectral_lightning.diffusion.weights.averages import recognised
from spectral_lightning.diffusion.weights.find import Weights, find_weights
from spectral_lightning.diffusion.weights.source import AveragedWeights, RawWeights, ScopedWeights, WeightSource

__all__ = [
    "AveragedWeights",
    "RawWeights",
    "ScopedWeights",
    "WeightSource",
    "Weights",
    "find_weights",
    "recognised",
]
