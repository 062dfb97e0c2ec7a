"""Derives a theory for a training that declares none."""

from __future__ import annotations

from typing import Any

from spectral_lightning.diffusion import BoundDenoiser, Departure
from spectral_lightning.diffusion.adapters.conventions import PATHS, PREDICTIONS
from spectral_lightning.spectra import Basis
from spectral_lightning.theory import LearningDynamics, Objective, OneLayer, Preconditioning

__all__ = ["derived_preconditioning", "derived_theory"]

_STANDARD = {
    ("epsilon", "variance-preserving"): "variance_preserving",
    ("v", "variance-preserving"): "velocity",
    ("x0", "variance-preserving"): "x0",
    ("eps-x0", "linear"): "flow",
    ("x0-eps", "linear"): "flow",
    ("edm", "edm"): "edm",
}


def derived_theory(
    denoiser: Any, basis: Basis, learning_rate: float | None = None
) -> tuple[LearningDynamics, list[Departure]]:
    """One linear layer per noise level with the network's preconditioning, and the assumptions this makes.

    Args:
        denoiser: the resolved denoiser of the session.
        basis: the modes; the data's standard deviation replaces an unknown ``sigma_data``.
        learning_rate: of the optimizer; 1 if unknown.
    """
    preconditioning, assumed = derived_preconditioning(denoiser, basis)
    theory = OneLayer(Objective(learning_rate or 1.0, preconditioning))
    return theory, [
        Departure(f"theory derived, not declared: {assumed}"),
        Departure("one linear layer per noise level assumed, network of unknown form used"),
        Departure("every noise level equally likely and the squared error of the network's own target assumed"),
        Departure("full-batch gradients assumed, mini-batches of noisy samples used", affects_clock=False),
    ]


def derived_preconditioning(denoiser: Any, basis: Basis) -> tuple[Preconditioning, str]:
    """The preconditioning that turns the network's output into the denoiser, and a phrase that describes it.

    For a network bound by an :class:`~spectral_lightning.diffusion.Adapter`, it follows from the convention. A function
    that returns D itself does not reveal it: EDM's is assumed, with the network's ``sigma_data`` if it has one, else with
    the data's standard deviation.

    Args:
        denoiser: the resolved denoiser.
        basis: the modes of the data.
    """
    if not isinstance(denoiser, BoundDenoiser) or _returns_clean_data(denoiser):
        own = getattr(denoiser.network, "sigma_data", None) if isinstance(denoiser, BoundDenoiser) else None
        if isinstance(own, float | int) and own > 0:
            return Preconditioning("edm", float(own)), f"EDM preconditioning with the network's sigma_data = {own:.3g}"
        spread = float(basis.spectrum.mean()) ** 0.5
        return Preconditioning("edm", spread), f"EDM preconditioning with the data's standard deviation {spread:.3g}"
    adapter = denoiser.adapter
    prediction, path, scale = str(adapter.prediction), str(adapter.path), adapter.data_scale
    what = f"{prediction} prediction on the {path} path"
    kind = _STANDARD.get((prediction, path))
    if kind is not None and scale == 1:
        return Preconditioning(kind, adapter.sigma_data), what  # type: ignore[arg-type]
    known = path if path in PATHS else "variance-preserving"
    assumed = "" if known == path else ", input scaled as on the variance-preserving path"

    def a(sigma: Any) -> Any:
        return PATHS[known](scale * sigma, adapter.sigma_data)

    def skip(sigma: Any) -> Any:
        return PREDICTIONS[prediction](scale * sigma, a(sigma), adapter.sigma_data)[0] + 0 * sigma

    def out(sigma: Any) -> Any:
        return PREDICTIONS[prediction](scale * sigma, a(sigma), adapter.sigma_data)[1] / scale + 0 * sigma

    return (
        Preconditioning(
            "given", skip=skip, out=out, scale=lambda sigma: scale * a(sigma), weight=lambda sigma: 1 / out(sigma) ** 2
        ),
        f"{what}{assumed}" + (f", data scaled by {scale:g}" if scale != 1 else ""),
    )


def _returns_clean_data(denoiser: BoundDenoiser) -> bool:
    """Whether the bound network itself is a denoiser ``D(z, sigma)``."""
    return denoiser.adapter.prediction == "x0" and denoiser.adapter.path in ("variance-exploding", "schedule")
