"""The diffusion transformer."""

from __future__ import annotations

from functools import partial
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from spectral_lightning.arguments import one_of, positive_integer
from spectral_lightning.models.checks import check_label, checked_image, library
from spectral_lightning.models.networks.mlp import FourierEmbedding

__all__ = ["DiT"]

# Depth, width, heads.
_SIZES = {
    "nano": (3, 64, 4),
    "tiny": (4, 128, 4),
    "S": (12, 384, 6),
    "B": (12, 768, 12),
    "L": (24, 1024, 16),
    "XL": (28, 1152, 16),
}


def _modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x * (1 + scale) + shift


class _Block(nn.Module):
    """Attention, then a perceptron, each on normalised and modulated tokens and behind a gate (adaLN-zero)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        layers = library("timm.layers", "A DiT")
        self.norm_attention = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.attention = layers.Attention(width, num_heads=heads, qkv_bias=True)
        self.norm_mlp = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.mlp = layers.Mlp(width, 4 * width, act_layer=partial(nn.GELU, approximate="tanh"))
        self.modulation = nn.Linear(width, 6 * width)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Tokens ``[B, N, width]`` and the activated condition ``[B, width]`` to tokens."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.modulation(condition)[:, None].chunk(6, dim=2)
        x = x + gate_a * self.attention(_modulated(self.norm_attention(x), shift_a, scale_a))
        out: Tensor = x + gate_m * self.mlp(_modulated(self.norm_mlp(x), shift_m, scale_m))
        return out


class DiT(nn.Module):
    """A transformer over patches, whose blocks are modulated by the noise level and class (adaLN-zero).

    One linear map turns patches into tokens, and fixed sines and cosines of their positions are added. Before training
    every gate and the last map are zero: each block is the identity and F = 0, so D starts as the theory's q = 0, exactly
    ``c_skip z``.

    Built from timm's ``PatchEmbed``, ``Attention`` and ``Mlp``. The noise level enters by 256 Fourier features of
    ``ln(sigma)/4``, where the paper has sines of a time step.

    =====  =====  =====  =====
    size   depth  width  heads
    =====  =====  =====  =====
    nano       3     64      4
    tiny       4    128      4
    S         12    384      6
    B         12    768     12
    L         24   1024     16
    XL        28   1152     16
    =====  =====  =====  =====

    Reference: Peebles & Xie 2023, section 3.2 and table 1 (S to XL; nano and tiny are ours, for a CPU).

    Args:
        shape: of one example, ``[C, H, W]``; H and W divisible by the patch size.
        size: by name; sets depth, width and heads.
        patch_size: pixels along each axis of a patch.
        depth: number of blocks, overriding the size's.
        width: of a token, overriding the size's; divisible by 4 and by the number of heads.
        heads: of the attention, overriding the size's.
        num_classes: number of classes, to which the null class is added; unconditional if not given.

    Raises:
        ImportError: if timm is not installed.
        ValueError: for an argument out of range, an unknown size, or sizes that the patches do not divide.

    Example:
        >>> DiT([1, 16, 16], size="M")
        Traceback (most recent call last):
            ...
        ValueError: `size` must be one of 'nano', 'tiny', 'S', 'B', 'L', 'XL', got 'M'.
    """

    positions: Tensor

    def __init__(
        self,
        shape: list[int] | int,
        size: Literal["nano", "tiny", "S", "B", "L", "XL"] = "nano",
        patch_size: int = 2,
        depth: int | None = None,
        width: int | None = None,
        heads: int | None = None,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        channels, *pixels = checked_image(shape)
        named = zip(
            ("depth", "width", "heads"), (depth, width, heads), _SIZES[one_of("size", size, _SIZES)], strict=True
        )
        depth, width, heads = (positive_integer(name, own if given is None else given) for name, given, own in named)
        if width % 4 or width % heads:
            raise ValueError(f"`width` must be divisible by 4 and by the {heads} heads, got {width}.")
        if any(n % positive_integer("patch_size", patch_size) for n in pixels):
            raise ValueError(
                f"`shape` must have a height and width divisible by the patch size {patch_size}, got {pixels!r}. "
                "Give another `patch_size`, or pad or resize the images."
            )
        self.patch_size, self.grid = patch_size, tuple(n // patch_size for n in pixels)
        layers = library("timm.layers", "A DiT")
        self.patches = layers.PatchEmbed(tuple(pixels), patch_size, channels, width)
        self.register_buffer("positions", layers.build_sincos2d_pos_embed(list(self.grid), width), persistent=False)
        self.embedding = FourierEmbedding(256)
        self.condition = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
        self.classes = None
        if num_classes is not None:
            self.classes = nn.Embedding(positive_integer("num_classes", num_classes) + 1, width)
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.modulation = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, patch_size**2 * channels)
        self._initialise()

    def _initialise(self) -> None:
        """As in the paper's code: Xavier, but small embeddings of noise level and class, and zero gates and output."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.patches.proj.weight.flatten(1))
        nn.init.zeros_(self.patches.proj.bias)
        for name, weight in self.named_parameters():
            if name.startswith(("condition.", "classes.")) and name.endswith("weight"):
                nn.init.normal_(weight, std=0.02)
            if name.endswith("modulation.weight") or name == "out.weight":
                nn.init.zeros_(weight)

    def forward(self, x: Tensor, noise: Tensor, label: Tensor | None = None) -> Tensor:
        """``[B, C, H, W]``, ``[B]`` and, with classes, ``[B]`` to ``[B, C, H, W]``."""
        check_label(label, self.classes is not None)
        condition = self.condition(self.embedding(noise).to(x.dtype))
        if self.classes is not None:
            condition = condition + self.classes(label)
        condition = functional.silu(condition)
        tokens = self.patches(x) + self.positions.to(x.dtype)
        for block in self.blocks:
            tokens = block(tokens, condition)
        shift, scale = self.modulation(condition)[:, None].chunk(2, dim=2)
        return self._image(self.out(_modulated(self.norm(tokens), shift, scale)))

    def _image(self, tokens: Tensor) -> Tensor:
        """``[B, N, p p C]`` to ``[B, C, H, W]``."""
        p, (rows, columns) = self.patch_size, self.grid
        patches = tokens.reshape(len(tokens), rows, columns, p, p, -1)
        return patches.permute(0, 5, 1, 3, 2, 4).reshape(len(tokens), -1, rows * p, columns * p)
