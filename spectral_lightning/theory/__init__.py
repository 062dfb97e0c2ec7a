"""Learning dynamics of solvable denoisers: NumPy and SciPy, float64, no torch.

A family and the objective it is trained on, solved on data, give curves::

    OneLayer(Objective(learning_rate=1e-4, preconditioning=Preconditioning("edm")), init=0.0).on(variances).emergence_time()

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

from spectral_lightning.theory.data import GaussianData, GaussianField
from spectral_lightning.theory.dynamics import Curves, LearningDynamics
from spectral_lightning.theory.families.deep_linear import DeepLinear
from spectral_lightning.theory.families.flow_matching import FlowMatching
from spectral_lightning.theory.families.full_width_convolution import FullWidthConvolution
from spectral_lightning.theory.families.local_convolution import LocalConvolution
from spectral_lightning.theory.families.non_centered import NonCenteredOneLayer
from spectral_lightning.theory.families.one_layer import OneLayer
from spectral_lightning.theory.families.two_layer import SymmetricTwoLayer
from spectral_lightning.theory.modewise import ModewiseDynamics
from spectral_lightning.theory.objective import LogNormalDensity, Objective
from spectral_lightning.theory.preconditioning import Preconditioning

__all__ = [
    "Curves",
    "DeepLinear",
    "FlowMatching",
    "FullWidthConvolution",
    "GaussianData",
    "GaussianField",
    "LearningDynamics",
    "LocalConvolution",
    "LogNormalDensity",
    "ModewiseDynamics",
    "NonCenteredOneLayer",
    "Objective",
    "OneLayer",
    "Preconditioning",
    "SymmetricTwoLayer",
]
