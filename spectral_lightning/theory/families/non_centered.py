"""One affine layer per noise level on data with a mean, from any start (WP section 4.2 with its appendix)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectral_lightning.sampling import Sampler
from spectral_lightning.theory.bound import BoundDynamics
from spectral_lightning.theory.preconditioning import Preconditioning
from spectral_lightning.theory.solving.blocks import Blocks, checked_covariance
from spectral_lightning.theory.solving.regression import AffineRegression

__all__ = ["NonCenteredOneLayer"]

Array = NDArray[np.float64]
Field = NDArray[Any]


class NonCenteredOneLayer(BoundDynamics):
    """Independent affine denoisers ``D = W z + b`` per noise level, mean and covariance learnt together.

    ``d[W b]/dtau = -2 eta ([W b] G - [Sigma + mu mu', mu]) R``, ``G = [[Sigma + sigma^2 I + mu mu', mu], [mu', 1]]``,

    with ``R = I``, or ``weight diag((c_out c_in)^2, .., c_out^2)`` under preconditioning (the bias is that of F); solved by
    the eigenvectors of ``R^(1/2) G R^(1/2)`` at each noise level. These turn with sigma wherever the mean has a component,
    so the modes mix while learning and the weights at different noise levels do not commute: the generated mean and
    covariance come from integrating the affine flow. The optimum is ``W* = Sigma (Sigma + sigma^2 I)^-1``,
    ``b* = (I - W*) mu``. Modes with a mean overshoot on the way.

    Assumptions: weights independent between noise levels, full-batch gradients of the expected loss summed over
    coordinates. Any initial matrix, aligned with the covariance or not.

    Reference: WP section 4.2, equations for the non-zero mean in appendix D; preconditioning and noise density are beyond
    WP.

    Args:
        learning_rate: eta, of a loss summed over the coordinates.
        init: weights of the layer before training: a gain Q (``Q I``), or any matrix ``[d, d]``.
        init_bias: bias of the layer before training, a number or ``[d]``.
        preconditioning: how the layer becomes a denoiser and how its loss is weighted; none if not given.
        sigma_min: where the exact flow ends.
        sigma_max: where the exact flow starts.
        noise_density: multiplies the rates at each noise level, as for :class:`OneLayer`.
        discrete: gradient descent with ``time`` counting steps, instead of gradient flow.
        nodes: noise levels at which the exact flow evaluates the weights.

    Raises:
        ValueError: for an argument out of range or of the wrong shape; from the methods, before data are bound and for
            descent that diverges.

    Example:
        >>> theory = NonCenteredOneLayer(1e-3).bind([1.0, 0.0], [[2.0, 0.0], [0.0, 1.0]])
        >>> theory.weight_matrix(np.inf, 1.0).round(3)
        array([[0.667, 0.   ],
               [0.   , 0.5  ]])
        >>> theory.bias(np.inf, 1.0).round(3)
        array([0.333, 0.   ])
    """

    def __init__(
        self,
        learning_rate: float,
        init: float | list[list[float]] | Array = 0.0,
        init_bias: float | list[float] | Array = 0.0,
        preconditioning: Preconditioning | None = None,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        noise_density: Callable[[Any], Any] | None = None,
        discrete: bool = False,
        nodes: int = 200,
    ) -> None:
        super().__init__(learning_rate, preconditioning, sigma_min, sigma_max, noise_density, discrete, nodes)
        self.init = np.asarray(init, np.float64)
        self.init_bias = np.asarray(init_bias, np.float64)
        if self.init.ndim not in (0, 2) or not np.isfinite(self.init).all():
            raise ValueError(f"`init` must be a finite number or matrix [d, d], got shape {self.init.shape}.")
        if self.init_bias.ndim > 1 or not np.isfinite(self.init_bias).all():
            raise ValueError(f"`init_bias` must be a finite number or vector [d], got shape {self.init_bias.shape}.")

    def bind(self, mean: ArrayLike | None, covariance: ArrayLike) -> Self:
        """The same dynamics on data of this mean ``[d]`` (None for zero) and covariance ``[d, d]``.

        Raises:
            ValueError: for shapes that do not fit each other or the initial weights, or a covariance that is not
                symmetric and positive semidefinite.
        """
        sigma = checked_covariance("covariance", np.asarray(covariance, np.float64))
        if sigma.ndim != 2:
            raise ValueError(f"`covariance` must be a matrix [d, d], got shape {sigma.shape}.")
        d = len(sigma)
        mu = np.zeros(d) if mean is None else np.asarray(mean, np.float64)
        for name, value, wanted in (
            ("mean", mu, [(d,)]),
            ("init", self.init, [(), (d, d)]),
            ("init_bias", self.init_bias, [(), (d,)]),
        ):
            if value.shape not in wanted or not np.isfinite(value).all():
                raise ValueError(f"`{name}` must be finite with shape {wanted[-1]}, got shape {value.shape}.")
        start = self.init * np.eye(d) if self.init.ndim == 0 else self.init
        bias = np.broadcast_to(self.init_bias, d)
        regression = AffineRegression(
            self._layer, sigma[None], mu[None], np.eye(d), start[None], bias[None], speed=1.0, bias_speed=1.0
        )
        return self._attach(Blocks(sigma[None], mu[None]), regression)

    @property
    def modes(self) -> Array:
        """Eigenvectors of the bound covariance as columns, in the order of :attr:`variance`, ``[d, d]``."""
        return np.asarray(self.blocks.modes[0])

    def weight_matrix(self, time: ArrayLike, sigma: ArrayLike) -> Array:
        """W of the denoiser, ``[*time, *sigma, d, d]``."""
        return self._shaped(self._at(time, sigma, None)[0][:, :, 0], time, sigma)

    def bias(self, time: ArrayLike, sigma: ArrayLike) -> Array:
        """B of the denoiser, ``[*time, *sigma, d]``."""
        return self._shaped(self._at(time, sigma, None)[1][:, :, 0], time, sigma)

    def generated_mean(self, time: ArrayLike, sampler: Sampler | None = None) -> Array:
        """Mean of the generated samples, through the exact flow or a given sampler, ``[*time, d]``."""
        return self._shaped(self._distribution(time, sampler)[0][:, 0], time)

    def generated_covariance(self, time: ArrayLike, sampler: Sampler | None = None) -> Array:
        """Covariance of the generated samples, through the exact flow or a given sampler, ``[*time, d, d]``."""
        return self._shaped(self._distribution(time, sampler)[1][:, 0], time)

    def _distribution(self, time: ArrayLike, sampler: Sampler | None) -> list[Field]:
        flat = self._checked(time=time)[0].reshape(-1)
        return self._chunked(partial(self._moments, sampler=sampler, gain=None), flat)

    def _affine(self, time: Array, sigma: Array, gain: Array | None) -> tuple[Field, Field]:
        start = None if gain is None else self.blocks.aligned(gain)
        return self.regression.at(time, sigma, start)
