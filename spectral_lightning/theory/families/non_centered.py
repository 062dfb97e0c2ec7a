"""One affine layer per noise level on data with a mean, from any start (WP section 4.2 with its appendix)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectral_lightning.sampling import Sampler
from spectral_lightning.theory.affine import AffineCurves
from spectral_lightning.theory.data import GaussianData
from spectral_lightning.theory.dynamics import LearningDynamics
from spectral_lightning.theory.objective import Objective
from spectral_lightning.theory.solving.regression import AffineRegression, Blocks

__all__ = ["NonCenteredCurves", "NonCenteredOneLayer"]

Array = NDArray[np.float64]


class NonCenteredOneLayer(LearningDynamics):
    """Independent affine denoisers ``D = W z + b`` per noise level, mean and covariance learnt together.

    ``d[W b]/dtau = -2 eta ([W b] G - [Sigma + mu mu', mu]) R``, ``G = [[Sigma + sigma^2 I + mu mu', mu], [mu', 1]]``,

    with ``R = I``, or ``weight diag((c_out c_in)^2, .., c_out^2)`` under preconditioning (the bias is that of F); solved by
    the eigenvectors of ``R^(1/2) G R^(1/2)`` at each noise level. These rotate with sigma wherever the mean has a component,
    so the modes mix while learning and the weights at different noise levels do not commute: the generated mean and
    covariance come from integrating the affine flow. The optimum is ``W* = Sigma (Sigma + sigma^2 I)^-1``,
    ``b* = (I - W*) mu``. Modes with a mean overshoot on the way.

    Assumptions: weights independent between noise levels, full-batch gradients of the expected loss summed over
    coordinates. Any initial matrix, aligned with the covariance or not.

    Reference: WP section 4.2, equations for the non-zero mean in appendix D; preconditioning and noise density are beyond
    WP.

    Args:
        objective: learning rate, preconditioning, and how the loss is descended.
        init: weights of the layer before training: a gain Q (``Q I``), or any matrix ``[d, d]``.
        init_bias: bias of the layer before training, a number or ``[d]``.

    Raises:
        ValueError: for an argument out of range or of the wrong shape; from the curves, for descent that diverges.

    Example:
        >>> data = GaussianData([[2.0, 0.0], [0.0, 1.0]], mean=[1.0, 0.0])
        >>> curves = NonCenteredOneLayer(Objective(1e-3)).on(data)
        >>> curves.weight_matrix(np.inf, 1.0).round(3)
        array([[0.667, 0.   ],
               [0.   , 0.5  ]])
        >>> curves.bias(np.inf, 1.0).round(3)
        array([0.333, 0.   ])
    """

    needs_moments = True

    def __init__(
        self,
        objective: Objective,
        init: float | list[list[float]] | Array = 0.0,
        init_bias: float | list[float] | Array = 0.0,
    ) -> None:
        super().__init__(objective)
        self.init = np.asarray(init, np.float64)
        self.init_bias = np.asarray(init_bias, np.float64)
        if self.init.ndim not in (0, 2) or not np.isfinite(self.init).all():
            raise ValueError(f"`init` must be a finite number or matrix [d, d], got shape {self.init.shape}.")
        if self.init_bias.ndim > 1 or not np.isfinite(self.init_bias).all():
            raise ValueError(f"`init_bias` must be a finite number or vector [d], got shape {self.init_bias.shape}.")

    def on(self, data: GaussianData) -> NonCenteredCurves:
        """The curves on data of this mean and covariance.

        Raises:
            ValueError: for initial weights of another dimension.
        """
        if not isinstance(data, GaussianData):
            raise TypeError(f"`data` must be GaussianData for {self!r}, got {type(data).__name__}.")
        d = len(data.covariance)
        for name, value, wanted in (("init", self.init, (d, d)), ("init_bias", self.init_bias, (d,))):
            if value.shape not in ((), wanted):
                raise ValueError(f"`{name}` must have shape {wanted} on these data, got shape {value.shape}.")
        start = self.init if self.init.ndim else self.init * np.eye(d)
        bias = np.broadcast_to(self.init_bias, d)
        blocks = Blocks(data.covariance[None], data.mean[None])
        regression = AffineRegression(
            self.objective, blocks, np.eye(d), start[None], bias[None], speed=1.0, bias_speed=1.0
        )
        return NonCenteredCurves(self, blocks, regression)


class NonCenteredCurves(AffineCurves):
    """Curves of one affine layer, with its whole weights, bias, and generated distribution."""

    family: NonCenteredOneLayer

    @property
    def modes(self) -> Array:
        """Eigenvectors of the covariance as columns, in the order of :attr:`variance`, ``[d, d]``."""
        return np.asarray(self.blocks.modes[0])

    def weight_matrix(self, time: ArrayLike, sigma: ArrayLike) -> Array:
        """Weights W of the denoiser, ``[*time, *sigma, d, d]``."""
        return self._unfolded(self._at(time, sigma)[0], time, sigma)

    def bias(self, time: ArrayLike, sigma: ArrayLike) -> Array:
        """Bias b of the denoiser, ``[*time, *sigma, d]``."""
        return self._unfolded(self._at(time, sigma)[1], time, sigma)

    def generated_mean(self, time: ArrayLike, sampler: Sampler | None = None) -> Array:
        """Mean of the generated samples, through the exact flow or a given sampler, ``[*time, d]``."""
        return self._unfolded(self._distribution(time, sampler)[0], time)

    def generated_covariance(self, time: ArrayLike, sampler: Sampler | None = None) -> Array:
        """Covariance of the generated samples, through the exact flow or a given sampler, ``[*time, d, d]``."""
        return self._unfolded(self._distribution(time, sampler)[1], time)
