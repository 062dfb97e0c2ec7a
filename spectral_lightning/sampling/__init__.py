"""Noise grids and probability-flow solvers, array-agnostic.

The state is changed by ``+ - * /`` only, so that one solver integrates torch samples through a network and NumPy modes
through the theory: predictions go through the same sampler as measurements.
"""

from spectral_lightning.sampling.sampler import SOLVERS, Sampler, euler, heun, karras_sigmas

__all__ = ["SOLVERS", "Sampler", "euler", "heun", "karras_sigmas"]
