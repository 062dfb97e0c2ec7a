"""The convolutional U-Net of score-based models, in the manner of EDM's DDPM++."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from spectral_lightning.arguments import fraction, positive_integer
from spectral_lightning.models.checks import check_label, checked_image, library

__all__ = ["UNet"]


class UNet(nn.Module):
    """Residual blocks modulated by the noise level, at resolutions that halve from level to level, with skip connections.

    Built from diffusers' ``UNet2DModel``: group norm, SiLU, residual blocks that halve and double the resolution,
    attention with one head. The noise level enters by the sines and cosines of ``100 noise`` at frequencies from 1 down to
    1e-4, in single precision: one unit of ln(sigma) is 25 radians of the fastest and 4 of the middle frequencies.

    The defaults suit grey 16x16 patches on a CPU. EDM's network for CIFAR10 is ``UNet([3, 32, 32], width=128,
    multipliers=(2, 2, 2), num_blocks=4, attention_resolutions=(16,), adaptive_scale=False, dropout=0.13)``: 57.2 million
    parameters (61.5 million with ``adaptive_scale``), against 55.7 in EDM's own. diffusers puts attention behind every
    block of a level on the way up and EDM behind the last (+1.05 million), starts with 256 channels instead of 128 (+0.59)
    and as many sines of the noise level (+0.07), and has no convolution on the skips of blocks that change the resolution
    (-0.26). EDM also divides the sum of each block and its skip by sqrt(2).

    The order of emergence is compared with the one-layer theory in eigenmodes, as the paper does. Convolutions share
    weights over positions, which that theory ignores; ``theory.LocalConvolution`` describes it for a single layer of a
    given kernel.

    Reference: Karras et al. 2022, appendix F.1, and Song et al. 2021, appendix H (DDPM++); Wang & Pehlevan 2025, section 6.

    Args:
        shape: of one example, ``[C, H, W]``; H and W divisible by 2^(number of levels - 1).
        width: base number of channels.
        multipliers: factors on the width, one per level.
        num_blocks: residual blocks per level on the way down; there is one more per level on the way up.
        attention_resolutions: heights in pixels of the levels whose blocks are each followed by attention.
        middle_attention: whether there is attention between the two blocks at the bottom, as in EDM.
        adaptive_scale: whether the noise level scales and shifts the normalised features; as in EDM it is added to them
            otherwise.
        dropout: probability, in the blocks.
        zero_init: whether the last convolution starts at zero, so that F = 0 before training and D starts as the theory's
            q = 0: exactly ``c_skip z``. EDM starts it at 1e-5 of its usual size.
        num_classes: number of classes, to which the null class is added; unconditional if not given.

    Raises:
        ImportError: if diffusers is not installed.
        ValueError: for an argument out of range, sizes that the levels do not divide, or an attention resolution that no
            level has.

    Example:
        >>> UNet([1, 15, 16])
        Traceback (most recent call last):
            ...
        ValueError: `shape` must have a height and width divisible by 2 for 2 levels, got [15, 16]. Give fewer \
`multipliers`, or pad or resize the images.
    """

    def __init__(
        self,
        shape: list[int] | int,
        width: int = 16,
        multipliers: tuple[int, ...] = (1, 2),
        num_blocks: int = 1,
        attention_resolutions: tuple[int, ...] = (),
        middle_attention: bool = True,
        adaptive_scale: bool = True,
        dropout: float = 0.0,
        zero_init: bool = True,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        channels, *size = checked_image(shape)
        widths = _widths(width, multipliers)
        attended = _attended(size, len(widths), attention_resolutions)
        self.conditional = num_classes is not None
        self.unet: nn.Module = library("diffusers", "A U-Net").UNet2DModel(
            in_channels=channels,
            out_channels=channels,
            block_out_channels=widths,
            layers_per_block=positive_integer("num_blocks", num_blocks),
            down_block_types=tuple("AttnDownBlock2D" if a else "ResnetDownsampleBlock2D" for a in attended),
            up_block_types=tuple("AttnUpBlock2D" if a else "ResnetUpsampleBlock2D" for a in reversed(attended)),
            downsample_type="resnet",
            upsample_type="resnet",
            add_attention=middle_attention,
            attention_head_dim=None,  # one head, of all channels
            norm_num_groups=_groups(widths),
            attn_norm_num_groups=_groups(widths),
            resnet_time_scale_shift="scale_shift" if adaptive_scale else "default",
            time_embedding_dim=4 * width,
            dropout=fraction("dropout", dropout, zero=True),
            num_class_embeds=None if num_classes is None else positive_integer("num_classes", num_classes) + 1,
        )
        if zero_init:
            nn.init.zeros_(self.unet.get_submodule("conv_out").weight)
            nn.init.zeros_(self.unet.get_submodule("conv_out").bias)

    def forward(self, x: Tensor, noise: Tensor, label: Tensor | None = None) -> Tensor:
        """``[B, C, H, W]``, ``[B]`` and, with classes, ``[B]`` to ``[B, C, H, W]``."""
        check_label(label, self.conditional)
        out: Tensor = self.unet(x, 100 * noise, class_labels=label, return_dict=False)[0]
        return out


def _widths(width: int, multipliers: Sequence[int]) -> tuple[int, ...]:
    if len(multipliers) == 0:
        raise ValueError(f"`multipliers` must be one or more positive integers, got {multipliers!r}.")
    if positive_integer("width", width) % 2:
        raise ValueError(f"`width` must be even, got {width!r}. Half of the noise embedding is sines.")
    return tuple(width * positive_integer("multipliers", m) for m in multipliers)


def _attended(size: Sequence[int], levels: int, resolutions: Sequence[int]) -> tuple[bool, ...]:
    """Whether each level has attention, from the first."""
    factor = 2 ** (levels - 1)
    if any(n % factor for n in size):
        raise ValueError(
            f"`shape` must have a height and width divisible by {factor} for {levels} levels, got {list(size)!r}. "
            "Give fewer `multipliers`, or pad or resize the images."
        )
    heights = [size[0] // 2**level for level in range(levels)]
    if missing := sorted(set(resolutions) - set(heights)):
        raise ValueError(f"`attention_resolutions` must be among the heights of the levels, {heights}, got {missing}.")
    return tuple(height in resolutions for height in heights)


def _groups(widths: Sequence[int]) -> int:
    """Largest number of groups, up to EDM's 32, that divides every number of channels and leaves at least 4 per group."""
    common = math.gcd(*widths)
    return max(n for n in range(1, 33) if common % n == 0 and (n == 1 or common // n >= 4))
