"""Noise grids and probability-flow solvers, array-agnostic.

The state is changed by ``+ - * /`` only, so that one solver integrates torch samples through a network and NumPy modes
through the theory: predictions go through the same sampler as measurements.
"""

from spectral_lightning.sampling.sampler import Sampler, angular_sigmas, karras_sigmas
from spectral_lightning.sampling.solvers import SOLVERS, adams, euler, heun

__all__ = ["SOLVERS", "Sampler", "adams", "angular_sigmas", "euler", "heun", "karras_sigmas"]
