"""How a network's output becomes a denoiser, and how its loss is weighted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from spectral_lightning.arguments import one_of, positive

__all__ = ["Preconditioning"]

Coefficient = Callable[[Any], Any]
Kind = Literal["edm", "variance_preserving", "velocity", "x0", "flow", "none", "given"]


@dataclass(frozen=True, repr=False)
class Preconditioning:
    """``D(z; sigma) = c_skip z + c_out F(c_in z)``, trained on ``weight(sigma) ||D - x0||^2``.

    ================== ========================== ======================= ====================== =======================
    kind               c_skip                     c_out                   c_in                   weight
    ================== ========================== ======================= ====================== =======================
    edm                sd^2/(sigma^2+sd^2)        sigma sd/root           1/root                 (sigma^2+sd^2)/(sigma sd)^2
    variance_preserving 1                         -sigma                  1/sqrt(1+sigma^2)      1/sigma^2
    velocity           1/(1+sigma^2)              -sigma/sqrt(1+sigma^2)  1/sqrt(1+sigma^2)      (1+sigma^2)/sigma^2
    x0                 0                          1                       1/sqrt(1+sigma^2)      1
    flow               1/(1+sigma)                -sigma/(1+sigma)        1/(1+sigma)            (1+sigma)^2/sigma^2
    none               0                          1                       1                      1
    given              the callables passed       ..                      ..                     .. (1 if none is passed)
    ================== ========================== ======================= ====================== =======================

    with ``sd = sigma_data`` and ``root = sqrt(sigma^2 + sd^2)``. F predicts the noise eps under ``variance_preserving``,
    ``v = (eps - sigma x0)/sqrt(1+sigma^2)`` under ``velocity``, the data under ``x0`` and ``eps - x0`` under ``flow``,
    from an input scaled to ``(x0 + sigma eps)/sqrt(1+sigma^2)``, for ``flow`` to ``(1-g) x0 + g eps`` with
    ``g = sigma/(1+sigma)``. Their weights make the loss the plain squared error of that target.

    Every method takes and returns anything with ``+ - * / **``: floats, NumPy arrays, torch tensors.

    Reference: Karras et al. 2022, table 1; Salimans & Ho 2022, appendix D; Lipman et al. 2023,
    equation 23 (``flow``, whose time runs the other way there).

    Args:
        kind: one of the rows above.
        sigma_data: standard deviation of the data per coordinate, used by ``"edm"``.
        skip: c_skip as a callable of sigma, for ``"given"``.
        out: c_out as a callable of sigma, for ``"given"``.
        scale: c_in as a callable of sigma, for ``"given"``.
        weight: loss weight as a callable of sigma; replaces that of the kind.

    Raises:
        ValueError: for an unknown kind, ``sigma_data`` not above 0, or ``"given"`` without its three callables.

    Example:
        >>> edm = Preconditioning("edm", sigma_data=0.5)
        >>> edm.c_skip(0.5), round(edm.loss_weight(0.5), 6)
        (0.5, 8.0)
    """

    kind: Kind = "edm"
    sigma_data: float = 0.5
    skip: Coefficient | None = None
    out: Coefficient | None = None
    scale: Coefficient | None = None
    weight: Coefficient | None = None

    def __post_init__(self) -> None:
        one_of("kind", self.kind, get_args(Kind))
        positive("sigma_data", self.sigma_data, remedy="It is the standard deviation of the data per coordinate.")
        given = (self.skip, self.out, self.scale)
        if self.kind == "given" and any(c is None for c in given):
            raise ValueError("`kind='given'` needs the callables `skip`, `out` and `scale`.")
        if self.kind != "given" and any(c is not None for c in given):
            raise ValueError(f"`skip`, `out` and `scale` are used by kind='given' only, got kind={self.kind!r}.")

    def __repr__(self) -> str:
        spread = f", sigma_data={self.sigma_data!r}" if self.kind == "edm" else ""
        weighted = ", weight=..." if self.weight is not None else ""
        return f"Preconditioning({self.kind!r}{spread}{weighted})"

    @property
    def _spread(self) -> float:
        return self.sigma_data if self.kind == "edm" else 1.0

    def c_skip(self, sigma: Any) -> Any:
        """Factor on the noisy input, which bypasses the network."""
        if self.kind == "given":
            return self.skip(sigma)  # type: ignore[misc]
        if self.kind in ("edm", "velocity"):
            return self._spread**2 / (sigma**2 + self._spread**2)
        if self.kind == "flow":
            return 1 / (1 + sigma)
        return sigma * 0 + (1 if self.kind == "variance_preserving" else 0)

    def c_out(self, sigma: Any) -> Any:
        """Factor on the network's output."""
        if self.kind == "given":
            return self.out(sigma)  # type: ignore[misc]
        if self.kind in ("edm", "velocity"):
            size = sigma * self._spread / (sigma**2 + self._spread**2) ** 0.5
            return size if self.kind == "edm" else -size
        if self.kind == "flow":
            return -sigma / (1 + sigma)
        return -sigma if self.kind == "variance_preserving" else sigma * 0 + 1

    def c_in(self, sigma: Any) -> Any:
        """Factor on the network's input."""
        if self.kind == "given":
            return self.scale(sigma)  # type: ignore[misc]
        if self.kind == "none":
            return sigma * 0 + 1
        if self.kind == "flow":
            return 1 / (1 + sigma)
        return 1 / (sigma**2 + self._spread**2) ** 0.5

    def loss_weight(self, sigma: Any) -> Any:
        """Weight of the squared error of D; infinite at sigma = 0 for all kinds but ``none`` and ``x0``."""
        if self.weight is not None:
            return self.weight(sigma)
        if self.kind in ("edm", "velocity"):
            return (sigma**2 + self._spread**2) / (sigma * self._spread) ** 2
        if self.kind == "flow":
            return (1 + sigma) ** 2 / sigma**2
        return 1 / sigma**2 if self.kind == "variance_preserving" else sigma * 0 + 1

    def gain(self, sigma: Any, network_gain: Any) -> Any:
        """Gain of D on a mode on which F is linear with gain q: ``c_skip + c_out c_in q``."""
        return self.c_skip(sigma) + self.c_out(sigma) * self.c_in(sigma) * network_gain

    def rate_factor(self, sigma: Any) -> Any:
        """Factor on the learning rate from training F instead of D: ``weight (c_out c_in)^2``.

        ``1/(sigma^2 + sigma_data^2)`` for EDM's own choices. Finite at sigma = 0 in every kind.
        """
        if self.weight is None and self.kind != "given":
            # In closed form, because weight and c_out are infinite and zero at sigma = 0.
            return self.c_in(sigma) ** 2
        return self.loss_weight(sigma) * (self.c_out(sigma) * self.c_in(sigma)) ** 2

    def bias_rate_factor(self, sigma: Any) -> Any:
        """The same factor for a bias of F: ``weight c_out^2``; 1 unless ``weight`` replaces that of the kind."""
        if self.weight is None and self.kind != "given":
            return sigma * 0 + 1
        return self.loss_weight(sigma) * self.c_out(sigma) ** 2
