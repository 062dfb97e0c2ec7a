"""How a network is called and what it returns, as data. The libraries whose conventions are named are never imported."""

from __future__ import annotations

import math
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal

from torch import Tensor, nn

from spectral_lightning.arguments import one_of, positive, positive_integer
from spectral_lightning.diffusion.adapters.conventions import CONVENTIONS, PATHS, PREDICTIONS, TIMES
from spectral_lightning.diffusion.adapters.levels import NAMED_SCHEDULES, LevelGrid, ScheduleTime

__all__ = ["Adapter", "attribute_at", "object_at"]

_DEFAULTS: Mapping[str, Any] = {
    "network": "",
    "path": "variance-preserving",
    "order": "x-time",
    "output": "",
    "self_conditioning": "off",
    "time_scale": 1.0,
}


@dataclass(frozen=True)
class Adapter:
    """How a network is called and what it returns; with a module it makes a :class:`BoundDenoiser`.

    A network trained on ``x_t = a x0 + s eps`` with output F works at ``sigma = s / a``:
    ``D(z, sigma) = skip z + out F(a z, time(sigma))`` with ``z = x0 + sigma eps``. A convention sets the fields left at
    None; ``"affine"`` sets none of them. Defaults of the conventions:

    ===================== ============================== ================= ==================== =======================
    convention            call                           time              D                    network, schedule
    ===================== ============================== ================= ==================== =======================
    edm                   ``net(z, sigma)``              sigma             output               net
    edm-backbone          ``net(c_in z, t)``             ln(sigma)/4       c_skip z + c_out F   net
    diffusers-epsilon     ``unet(a z, i).sample``        index             z - sigma F          unet, noise_scheduler
    diffusers-v           the same                       index             a^2 z - a sigma F    unet, noise_scheduler
    diffusers-sample      the same                       index             F                    unet, noise_scheduler
    diffusers-flow-match  ``transformer(b z, t).sample`` 1000 (1 - b)      b z - (1 - b) F      transformer
    ddpm-epsilon, -x0, -v ``model(a z, i, None)``        index             as diffusers         diffusion.model, diffusion
    log-snr               ``model(a z, t)``              -2 ln(sigma)      z - sigma F          model
    flow-matching         ``net(t, b z)``                b                 b z + (1 - b) F      net
    flow-matching-xt      ``net(b z, t)``                b                 b z + (1 - b) F      net
    posterior             ``denoiser(alpha z, t).mean``  of the schedule   mean                 denoiser, denoiser.schedule
    latent-diffusion      ``apply_model(a z, i, cond)``  index             z - sigma F          apply_model, the module
    ===================== ============================== ================= ==================== =======================

    with ``a = 1/sqrt(1 + sigma^2)`` and ``b = 1/(1 + sigma)``. The network is called once, with the condition it is
    given, without guidance. Optimal-transport couplings and offset noise change the theory, not the call.

    Reference: Karras et al. 2022, table 1; Salimans & Ho 2022, appendix D; Lipman et al. 2023.

    Args:
        convention: a name of the table, or ``"affine"``.
        network: attribute path of the network, or of a method, on the module; ``""`` is the module itself.
        schedule: noise levels of a network that takes an index, or its path ``t -> (alpha, sigma)``: an object with
            ``alphas_cumprod``, the numbers, a callable, or ``"linear"``, ``"scaled-linear"`` or ``"cosine"``. Objects
            can be named by their attribute path on the module, or by an import path ``package.module:name``.
        prediction: ``"epsilon"``, ``"x0"``, ``"v"``, ``"eps-x0"`` or ``"x0-eps"`` (velocities of the straight path),
            ``"score"`` or ``"edm"``.
        time: ``"index"``, ``"sigma"``, ``"log-sigma/4"``, ``"log-snr"``, ``"noise-share"`` (sigma/(1+sigma)),
            ``"data-share"`` (1/(1+sigma)), or ``"schedule"``, the t of a callable schedule.
        path: how the input is scaled: ``"variance-preserving"`` (a), ``"linear"`` (b), ``"variance-exploding"`` (1),
            ``"edm"``, or ``"schedule"`` (alpha(t)).
        order: ``"x-time"`` or ``"time-x"``.
        output: the part of the output that holds the prediction: an attribute name, an index, or ``""`` for all of it.
        condition: keyword for the condition; None passes it as a third positional argument.
        default_condition: class of every example when no condition is given, such as the null class.
        self_conditioning: third positional argument of a self-conditioned network: ``"off"`` passes none, ``"none"``
            passes None, ``"zeros"`` zeros, ``"estimate"`` the network's estimate of the data from a first pass.
        extra: further keyword arguments of every call.
        time_scale: factor on the time.
        reverse_time: whether the network's time runs backwards.
        output_scale: factor on the output; -1 for the opposite sign.
        learned_variance: whether the output has twice the channels, the second half a variance, which is ignored.
        sigma_data: standard deviation of the data in EDM's coefficients.
        data_scale: the network was trained on ``data_scale x + data_shift``, with x the data measured.
        data_shift: see ``data_scale``; 2 and -1 for data in [0, 1] and a network trained on [-1, 1].
        sigma_min: lowest noise level; by default that of the grid, or 0.002 without a grid.
        sigma_max: highest noise level; by default that of the grid, or 80 without a grid.
        schedule_values: meaning of the schedule's numbers: ``"alphas_cumprod"``, ``"betas"`` or ``"sigmas"``.
        num_train_steps: number of levels of a named schedule.

    Raises:
        ValueError: for an unknown name or inconsistent fields.

    Example:
        >>> Adapter("diffusers-v", "model.unet").time
        'index'
    """

    convention: str = "affine"
    network: str | None = None
    schedule: str | list[float] | Callable[..., Any] | Any = None
    prediction: str | None = None
    time: str | None = None
    path: str | None = None
    order: str | None = None
    output: str | int | None = None
    condition: str | None = None
    default_condition: int | None = None
    self_conditioning: str | None = None
    extra: dict[str, Any] | None = None
    time_scale: float | None = None
    reverse_time: bool = False
    output_scale: float = 1.0
    learned_variance: bool = False
    sigma_data: float = 0.5
    data_scale: float = 1.0
    data_shift: float = 0.0
    sigma_min: float | None = None
    sigma_max: float | None = None
    schedule_values: Literal["alphas_cumprod", "betas", "sigmas"] = "alphas_cumprod"
    num_train_steps: int = 1000

    def __post_init__(self) -> None:
        one_of("convention", self.convention, CONVENTIONS)
        for name, value in {**_DEFAULTS, **CONVENTIONS[self.convention]}.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        one_of("prediction", self.prediction, PREDICTIONS)
        one_of("time", self.time, (*TIMES, "index", "schedule"))
        one_of("path", self.path, (*PATHS, "schedule"))
        one_of("order", self.order, ("x-time", "time-x"))
        one_of("self_conditioning", self.self_conditioning, ("off", "none", "zeros", "estimate"))
        positive("sigma_data", self.sigma_data)
        positive("data_scale", self.data_scale)
        positive_integer("num_train_steps", self.num_train_steps, minimum=2)
        for name in ("sigma_min", "sigma_max"):
            if getattr(self, name) is not None:
                positive(name, getattr(self, name))
        if "schedule" in (self.time, self.path) and self.time != self.path:
            raise ValueError(
                f"`time` and `path` must both be 'schedule' or neither, got {self.time!r} and {self.path!r}. A callable "
                "schedule defines both."
            )
        if self.time in ("index", "schedule") and self.schedule is None:
            raise ValueError(f"`schedule` must hold the noise levels for time={self.time!r}, got None.")
        if self.output_scale == 0 or not math.isfinite(self.output_scale):
            raise ValueError(f"`output_scale` must be finite and not 0, got {self.output_scale!r}.")

    def network_of(self, module: nn.Module) -> Callable[..., Any]:
        """The network on a module.

        Raises:
            ValueError: if ``network`` leads nowhere, or to something that cannot be called.
        """
        network = attribute_at(module, self.network or "", "network")
        if not callable(network):
            raise ValueError(f"`network` must lead to something callable, got {type(network).__name__}.")
        return network  # type: ignore[no-any-return]

    def levels_of(self, module: nn.Module) -> LevelGrid | ScheduleTime | None:
        """The noise levels or the path that ``schedule`` gives on a module; None if the network needs neither.

        The scheduler is read, never changed.

        Raises:
            ValueError: if ``schedule`` leads nowhere, or to an object of another kind.
        """
        if self.time not in ("index", "schedule"):
            return None
        low, high = (self.sigma_min or 0.0) * self.data_scale, (self.sigma_max or math.inf) * self.data_scale
        found: Any = self.schedule
        if isinstance(found, str):
            if self.time == "index" and found in NAMED_SCHEDULES:
                return LevelGrid.named(found, self.num_train_steps, low, high)
            found = object_at(found, "schedule") if ":" in found else attribute_at(module, found, "schedule")
        # Schedulers keep it as an attribute, GaussianDiffusion modules as a buffer, which only `getattr` sees.
        found = getattr(found, "alphas_cumprod", found)
        if self.time == "schedule":
            if not callable(found):
                raise ValueError(
                    f"`schedule` must be a callable t -> (alpha, sigma) for time='schedule', got {type(found).__name__}."
                )
            return ScheduleTime(found)
        if not isinstance(found, Tensor | Sequence):
            raise ValueError(
                f"`schedule` must lead to noise levels or to an object with `alphas_cumprod`, got {type(found).__name__}."
            )
        return LevelGrid(found, self.schedule_values, low, high)


def attribute_at(module: nn.Module, path: str, argument: str) -> Any:
    """The attribute ``path``, such as ``"model.unet"``, of ``module``; the module itself for ``""``.

    Raises:
        ValueError: if there is none; lists the submodules.
    """
    try:
        return attrgetter(path)(module) if path else module
    except AttributeError as error:
        children = ", ".join(name for name, _ in module.named_children()) or "none"
        raise ValueError(
            f"`{argument}` must be an attribute path on {type(module).__name__}, got {path!r}: {error}. "
            f"Its submodules: {children}."
        ) from error


def object_at(path: str, argument: str) -> Any:
    """The object ``"package.module:name"`` or ``"package.module.name"``, imported.

    Raises:
        ValueError: if the module cannot be imported or does not define the name.
    """
    try:
        return pkgutil.resolve_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"`{argument}` must be importable as 'package.module:name', got {path!r}: {error}.") from error
