"""Learning dynamics of solvable denoisers: NumPy and SciPy, float64, no torch.

Notation, used throughout the package
-------------------------------------
``lambda_k``  variance of mode k of the data (``variance``)
``sigma``     noise standard deviation, ``z = x0 + sigma eps`` (variance exploding)
``psi``       gain of the denoiser on a mode (``weight``, ``gain``); its value at initialisation is ``Q`` (``init``)
``eta, tau``  learning rate and gradient-flow time; ``tau`` counts steps of plain gradient descent
``lambda~``   variance of the generated samples along a mode (``generated_variance``)
``tau*``      emergence time: first passage of ``lambda~`` through a threshold (``emergence_time``)

Reference: Wang & Pehlevan, *An Analytical Theory of Spectral Bias in the Learning Dynamics of Diffusion Models*, NeurIPS
2025, arXiv 2503.03206, called WP in the docstrings.
"""

from spectral_lightning.theory.bound import BoundDynamics
from spectral_lightning.theory.dynamics import LearningDynamics
from spectral_lightning.theory.families.deep_linear import DeepLinear
from spectral_lightning.theory.families.flow_matching import FlowMatching
from spectral_lightning.theory.families.full_width_convolution import FullWidthConvolution
from spectral_lightning.theory.families.local_convolution import LocalConvolution
from spectral_lightning.theory.families.non_centered import NonCenteredOneLayer
from spectral_lightning.theory.families.one_layer import OneLayer
from spectral_lightning.theory.families.two_layer import SymmetricTwoLayer
from spectral_lightning.theory.preconditioning import Preconditioning
from spectral_lightning.theory.solving.sampled import fixed_point, sampled_variance, wiener_gain

__all__ = [
    "BoundDynamics",
    "DeepLinear",
    "FlowMatching",
    "FullWidthConvolution",
    "LearningDynamics",
    "LocalConvolution",
    "NonCenteredOneLayer",
    "OneLayer",
    "Preconditioning",
    "SymmetricTwoLayer",
    "fixed_point",
    "sampled_variance",
    "wiener_gain",
]
