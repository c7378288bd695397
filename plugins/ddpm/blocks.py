"""The building blocks of the noise-prediction U-Net."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.convolutions import Float32Conv2d
from ...core.errors import ConfigError
from ...kernels import norm_act_conv2d

MAX_GROUPS = 32
GROUP_CHANNELS = 4


def group_norm(channels: int) -> nn.GroupNorm:
    """Return a GroupNorm with at most 32 groups of at least four channels, as far as the number can be divided."""
    # A group of one channel would subtract the timestep's shift, which is constant over the pixels, again.
    groups = math.gcd(max(1, channels // GROUP_CHANNELS), MAX_GROUPS, channels)
    return nn.GroupNorm(groups, channels)


class NormActConv2d(nn.Module):
    """GroupNorm, SiLU and a 3x3 convolution that keeps the size, then a shift per channel and a residual.

    ``norm`` and ``conv`` hold the parameters; the operation on them is one kernel.
    """

    def __init__(self, in_channels: int, out_channels: int, *, dilation: int = 1, zero: bool = False) -> None:
        """Make the layer; ``zero`` starts the convolution at zero, so that a residual block begins as the identity."""
        super().__init__()
        self.norm = group_norm(in_channels)
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=dilation, dilation=dilation)
        self.dilation = dilation
        if zero:
            _zero(self.conv)

    def forward(self, x: Tensor, *, shift: Tensor | None = None, residual: Tensor | None = None) -> Tensor:
        """Map x (N, C_in, H, W) to (N, C_out, H, W); ``shift`` is (N, C_out), ``residual`` has the output's shape."""
        if isinstance(self.conv, Float32Conv2d):
            with torch.autocast(x.device.type, enabled=False):
                return self._mapped(x.float(), shift, residual)
        return self._mapped(x, shift, residual)

    def _mapped(self, x: Tensor, shift: Tensor | None, residual: Tensor | None) -> Tensor:
        norm, conv = self.norm, self.conv
        return norm_act_conv2d(
            x,
            norm.weight,
            norm.bias,
            conv.weight,
            conv.bias,
            groups=norm.num_groups,
            eps=norm.eps,
            dilation=self.dilation,
            shift=shift,
            residual=residual,
        )


class SelfAttention2d(nn.Module):
    """Multi-head self-attention over the pixels of a map, with a residual (Vaswani et al. 2017)."""

    def __init__(self, channels: int, head_channels: int) -> None:
        super().__init__()
        self.heads = max(1, channels // head_channels)
        if channels % self.heads:
            raise ConfigError(f"U-Net: {channels} channels cannot be shared out to {self.heads} attention heads")
        self.norm = group_norm(channels)
        self.to_qkv = nn.Linear(channels, 3 * channels)
        self.to_out = nn.Linear(channels, channels)
        _zero(self.to_out)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, C, H, W) to the same shape."""
        height = x.shape[2]
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        query, key, value = self.to_qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        out = self.to_out(mixed.transpose(1, 2).flatten(2))
        return x + out.transpose(1, 2).unflatten(2, (height, -1))


class ResBlock(nn.Module):
    """Two :class:`NormActConv2d` around the timestep embedding, a residual, and attention where the level has it."""

    def __init__(
        self, in_channels: int, out_channels: int, embedding: int, *, dilation: int, head_channels: int | None
    ) -> None:
        """Make the block; ``head_channels`` of None leaves the attention out."""
        super().__init__()
        self.conv1 = NormActConv2d(in_channels, out_channels, dilation=dilation)
        self.shift = nn.Linear(embedding, out_channels)
        self.conv2 = NormActConv2d(out_channels, out_channels, dilation=dilation, zero=True)
        self.skip = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)
        self.attention = None if head_channels is None else SelfAttention2d(out_channels, head_channels)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map x (N, C_in, H, W) and the activated embedding (N, E) to (N, C_out, H, W)."""
        y = self.conv1(x, shift=self.shift(embedding))
        y = self.conv2(y, residual=self.skip(x))
        return y if self.attention is None else self.attention(y)


class Conditioning(nn.Module):
    """Timestep and class -> one embedding vector: sinusoids, a two-layer MLP, plus a learned vector per class."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.width, self.null_class = width, num_classes
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, 4 * width))
        # One row more than there are classes: the last stands for "no class" in classifier-free guidance.
        self.classes = nn.Embedding(num_classes + 1, 4 * width) if num_classes else None

    @property
    def dtype(self) -> torch.dtype:
        """The parameters' dtype."""
        return next(self.parameters()).dtype

    def forward(self, timesteps: Tensor, class_labels: Tensor | None) -> Tensor:
        """Return (N, 4 * width) fp32 for timesteps (N,) and class numbers (N,); None means no class for any case."""
        # Neighbouring timesteps differ by less than bfloat16 can tell.
        with torch.autocast(timesteps.device.type, enabled=False):
            embedding = self.mlp(sinusoids(timesteps, self.width).to(self.dtype))
            if self.classes is not None:
                if class_labels is None:
                    class_labels = torch.full_like(timesteps, self.null_class, dtype=torch.int64)
                embedding = embedding + self.classes(class_labels)
            return embedding


def sinusoids(timesteps: Tensor, dim: int) -> Tensor:
    """Return (N, dim) fp32: sin and cos of t / 10000^(2i / dim), i = 0 .. dim / 2 - 1 (Vaswani et al. 2017, 3.5)."""
    exponents = torch.arange(dim // 2, device=timesteps.device, dtype=torch.float32) / (dim // 2)
    angles = timesteps.to(torch.float32)[:, None] * torch.exp(-math.log(10000.0) * exponents)
    return torch.cat((angles.sin(), angles.cos()), dim=1)


def _zero(layer: nn.Conv2d | nn.Linear) -> None:
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
