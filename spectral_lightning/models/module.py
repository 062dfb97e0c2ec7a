"""Training of a denoiser: any network under a preconditioning, a noise distribution and a loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from spectral_lightning.arguments import fraction, one_of, positive_integer
from spectral_lightning.diffusion import (
    Departure,
    GridNoise,
    NoiseDistribution,
    Reduction,
    default_noise,
    denoising_loss,
    publish,
)
from spectral_lightning.theory import LearningDynamics, Objective, OneLayer, Preconditioning

__all__ = ["DiffusionModule", "NetworkCallable"]

NetworkCallable = Callable[[list[int] | int], nn.Module]
"""Makes a network from the shape of one example: a network class, or a partial of one."""


def _adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-4)


class DiffusionModule(LightningModule):
    """``D(z; sigma) = c_skip z + c_out F(c_in z, ln(sigma)/4)``, trained to denoise ``z = x0 + sigma eps``.

    A batch is a tensor ``[B, *S]``, or a tuple or list whose first element is one. With ``num_classes`` it is
    ``(x [B, *S], label [B])``, and the label is the third argument of F. Label ``num_classes`` is the null class: it
    replaces dropped labels in training, and ``label=None`` when sampling.

    The network receives its input in the dtype of its parameters; coefficients, noise levels and loss are computed in
    single precision or better. The Trainer's ``precision`` may therefore be 32-true, bf16-mixed, bf16-true or 64-true.

    An overlay compares the module with the one-layer theory under the same preconditioning.

    Reference: Karras et al. 2022, equations 7 and 8; Ho & Salimans 2022, algorithm 1 (dropped labels).

    Args:
        network: F, called as ``network(x [B, *S], noise [B]) -> [B, *S]`` with ``noise = ln(sigma)/4``, in single
            precision or better; as ``network(x, noise, label [B])`` with labels 0 to ``num_classes`` if that is set.
            Or a network class, such as :class:`UNet`, from which F is built with ``shape`` and ``num_classes``.
        preconditioning: coefficients and loss weight; EDM with ``sigma_data=0.5`` if not given.
        noise: distribution of the training noise levels; that of the preconditioning's paper
            (:func:`~spectral_lightning.diffusion.default_noise`) if not given, EDM's log-normal for EDM.
        reduction: of the squared error over coordinates. The theory's rates are those of ``"sum"``.
        optimizer: makes the optimizer from the parameters; Adam at 1e-4 by default.
        lr_scheduler: makes a scheduler, stepped after every update, from the optimizer.
        shape: of one example, for a network class; not used by a network that is already built.
        num_classes: number of classes, for a network conditioned on them; unconditional if not given.
        class_dropout: share of the labels that training replaces by the null class.
        compile: whether to compile the network, in place, when the Trainer sets the module up.

    Raises:
        TypeError: for a ``network`` that is neither a module nor callable.
        ValueError: for a network class without ``shape``, an unknown reduction, ``num_classes`` below 1, or a
            ``class_dropout`` outside [0, 1) or without classes; from training, for a batch without labels or with labels
            out of range.

    Example:
        >>> from spectral_lightning.models import ResidualMLP
        >>> module = DiffusionModule(ResidualMLP([1, 4, 4], width=8))
        >>> module.denoise(torch.zeros(2, 1, 4, 4), torch.ones(2)).shape
        torch.Size([2, 1, 4, 4])
    """

    def __init__(
        self,
        network: nn.Module | NetworkCallable,
        preconditioning: Preconditioning | None = None,
        noise: NoiseDistribution | None = None,
        reduction: Reduction = "mean",
        optimizer: OptimizerCallable = _adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        shape: list[int] | int | None = None,
        num_classes: int | None = None,
        class_dropout: float = 0.0,
        compile: bool = False,
    ) -> None:
        super().__init__()
        self.num_classes = None if num_classes is None else positive_integer("num_classes", num_classes)
        self.class_dropout = fraction("class_dropout", class_dropout, zero=True)
        if num_classes is None and class_dropout > 0:
            raise ValueError(
                f"`class_dropout` must be 0 without `num_classes`, got {class_dropout!r}. Give the number of classes."
            )
        self.network = _built(network, shape, self.num_classes)
        self.preconditioning = preconditioning or Preconditioning("edm")
        self.noise: NoiseDistribution = noise or default_noise(self.preconditioning)
        one_of("reduction", reduction, ("sum", "mean"))
        self.reduction: Reduction = reduction
        self.optimizer, self.lr_scheduler, self._to_compile = optimizer, lr_scheduler, compile

    def setup(self, stage: str) -> None:
        """Compile the network if requested; a second call changes nothing."""
        # Not in `configure_model`: Lightning's weight averaging warns about every module that overrides it.
        if self._to_compile:
            # In place: the names in a checkpoint stay those of the plain network.
            self.network.compile()
            self._to_compile = False

    def denoise(self, z: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        """Predict the clean data, in the type of ``z``.

        Args:
            z: noisy data ``[B, *S]``.
            sigma: noise levels ``[B]``.
            label: classes ``[B]``, 0 to ``num_classes``; None is the null class.

        Raises:
            ValueError: for labels of a wrong shape or out of range, or labels given to an unconditional network.
        """
        noisy, level = _at_least_single(z), _at_least_single(sigma)
        s, p = _per_example(level, z), self.preconditioning
        # The dtype of the network's parameters, which mixed precision does not change.
        dtype = next((p.dtype for p in self.network.parameters() if p.is_floating_point()), noisy.dtype)
        x, condition = (p.c_in(s) * noisy).to(dtype), self._condition(label, z)
        out: Tensor = p.c_skip(s) * noisy + p.c_out(s) * self.network(x, level.log() / 4, *condition).to(noisy.dtype)
        return out.to(z.dtype)

    def forward(self, z: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        """The same as :meth:`denoise`."""
        return self.denoise(z, sigma, label)

    def loss(self, batch: Any) -> Tensor:
        """The denoising loss of a batch at noise levels drawn for it."""
        data, label = self._split(batch)
        clean = _at_least_single(data)
        sigma = self.noise.sample(len(clean), clean.device)
        noisy = clean + _per_example(sigma, clean) * torch.randn_like(clean)
        if label is not None and self.num_classes is not None and self.class_dropout:
            dropped = torch.rand(len(label), device=label.device) < self.class_dropout
            label = label.masked_fill(dropped, self.num_classes)
        denoised = self.denoise(noisy, sigma, label)
        publish(self, clean, noisy, sigma, denoised)
        return denoising_loss(denoised, clean, sigma, self.preconditioning, self.reduction)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """One evaluation of the loss."""
        loss = self.loss(batch)
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """The same loss on held-out data."""
        self.log("val/loss", self.loss(batch), sync_dist=True)

    def configure_optimizers(self) -> Any:
        """The optimizer, with its scheduler if one was given."""
        optimizer = self.optimizer(self.parameters())
        if self.lr_scheduler is None:
            return optimizer
        schedule = {"scheduler": self.lr_scheduler(optimizer), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def initial_learning_rate(self) -> float:
        """The learning rate the optimizer starts with."""
        placeholder = nn.Parameter(torch.zeros(1))
        return float(self.optimizer([placeholder]).param_groups[0]["lr"])

    def dynamics(self) -> LearningDynamics:
        """The theory to compare with: the one-layer family under this preconditioning, noise levels weighted equally."""
        # The clock is fitted, so the rate only sets the unit of its factor; a rate of zero must pass.
        return OneLayer(Objective(self.initial_learning_rate() or 1.0, self.preconditioning))

    def departures(self) -> list[Departure]:
        """Where this network and its training depart from the one-layer theory."""
        found = [
            Departure(f"one linear layer assumed, {type(self.network).__name__} trained"),
            Departure("independent weights at every noise level assumed, one network shared by all levels trained"),
            Departure("full-batch gradients assumed, mini-batches of noisy samples used", affects_clock=False),
        ]
        if any(isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d) for layer in self.network.modules()):
            found.append(
                Departure("one weight for every pair of pixels assumed, weights shared over positions trained")
            )
        if not (isinstance(self.noise, GridNoise) and len(set(self.noise.probabilities)) == 1):
            found.append(Departure(f"every noise level equally likely assumed, {type(self.noise).__name__} drawn"))
        return found

    def _condition(self, label: Tensor | None, z: Tensor) -> tuple[Tensor, ...]:
        """The third argument of the network, if it takes one."""
        if self.num_classes is None:
            if label is not None:
                raise ValueError("`label` must be None for a network without classes. Build it with `num_classes`.")
            return ()
        if label is None:
            return (torch.full((len(z),), self.num_classes, dtype=torch.int64, device=z.device),)
        return (_checked_labels(label, len(z), self.num_classes),)

    def _split(self, batch: Any) -> tuple[Tensor, Tensor | None]:
        """The examples of a batch, and their labels if the network takes them."""
        parts = tuple(batch) if isinstance(batch, tuple | list) else (batch,)
        if self.num_classes is None:
            return parts[0], None
        if len(parts) < 2 or not isinstance(parts[1], Tensor):
            raise ValueError(
                f"A batch must be `(x, label)` for a network with `num_classes`, got {type(batch).__name__} of "
                f"{len(parts)}. Use data with labels, or omit `num_classes`."
            )
        return parts[0], _checked_labels(parts[1], len(parts[0]), self.num_classes - 1)


def _built(network: Any, shape: list[int] | int | None, num_classes: int | None) -> nn.Module:
    """The network itself, or the one that a network class builds."""
    if isinstance(network, nn.Module):
        return network
    if not callable(network):
        raise TypeError(f"`network` must be a module or a network class, such as UNet, got {network!r}.")
    if shape is None:
        raise ValueError(f"`shape` must be given for a network that has to be built, got None with {network!r}.")
    built: nn.Module = network(shape) if num_classes is None else network(shape, num_classes=num_classes)
    return built


def _at_least_single(x: Tensor) -> Tensor:
    """Half precision would lose the coefficients and the differences from the data."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _per_example(values: Tensor, like: Tensor) -> Tensor:
    """``[B]`` in a shape that broadcasts against ``[B, *S]``."""
    return values.reshape(-1, *(1,) * (like.ndim - 1))


def _checked_labels(label: Tensor, count: int, largest: int) -> Tensor:
    """The labels as int64. Their range is checked on the CPU only: reading it from a GPU would stall every step."""
    if label.shape != (count,) or label.is_floating_point():
        raise ValueError(
            f"`label` must hold one integer per example, [{count}], got {label.dtype} of shape {tuple(label.shape)}."
        )
    if label.device.type == "cpu" and count and not 0 <= int(label.min()) <= int(label.max()) <= largest:
        raise ValueError(
            f"`label` must hold integers from 0 to {largest}, got {int(label.min())} to {int(label.max())}. "
            "Set `num_classes` to the number of classes in the data."
        )
    return label.long()
