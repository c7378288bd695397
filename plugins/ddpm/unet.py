"""The noise-prediction U-Net of EnhancedDDPM (paper, section 3.1), as a diffusers model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import Tensor, nn

from ...core.errors import ConfigError
from .blocks import Conditioning, NormActConv2d, ResBlock


class _EncoderLevel(nn.Module):
    """The ResBlocks of one resolution and the convolution that halves it, if it is not the last."""

    def __init__(self, blocks: Sequence[ResBlock], down: nn.Conv2d | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.down = down

    def forward(self, x: Tensor, embedding: Tensor, skips: list[Tensor]) -> Tensor:
        """Return the map for the next level; every map on the way is put on top of ``skips``."""
        for block in self.blocks:
            x = block(x, embedding)
            skips.append(x)
        if self.down is not None:
            x = self.down(x)
            skips.append(x)
        return x


class _DecoderLevel(nn.Module):
    """The ResBlocks of one resolution and the convolution after doubling it, if it is not the first."""

    def __init__(self, blocks: Sequence[ResBlock], up: nn.Conv2d | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.up = up

    def forward(self, x: Tensor, embedding: Tensor, skips: list[Tensor]) -> Tensor:
        """Return the map for the next level, taking the encoder's maps from the top of ``skips``."""
        for block in self.blocks:
            x = block(torch.cat((x, skips.pop()), dim=1), embedding)
        if self.up is None:
            return x
        return self.up(F.interpolate(x, size=skips[-1].shape[-2:], mode="nearest"))


@dataclass(frozen=True)
class _Plan:
    """What the levels are built from; refuses numbers that do not fit each other."""

    width: int
    multipliers: tuple[int, ...]
    blocks_per_level: int
    dilations: tuple[int, ...]
    attention_levels: tuple[int, ...]
    head_channels: int

    def __post_init__(self) -> None:
        if self.depth < 2 or len(self.dilations) != 2:
            raise ConfigError(
                f"U-Net: needs at least two levels and exactly two dilations, not {self.multipliers}, {self.dilations}"
            )
        if self.width % 2:
            raise ConfigError(f"U-Net: width must be even (sines and cosines of the timestep), not {self.width}")
        outside = [level for level in self.attention_levels if not 1 <= level <= self.depth]
        if outside:
            raise ConfigError(f"U-Net: attention_levels go from 1 to {self.depth}, not {outside[0]}")

    @property
    def depth(self) -> int:
        return len(self.multipliers)

    @property
    def channels(self) -> list[int]:
        return [self.width * multiplier for multiplier in self.multipliers]

    def has_attention(self, level: int) -> bool:
        return level + 1 in self.attention_levels

    def block(self, inputs: int, level: int, *, attention: bool) -> ResBlock:
        rates = [1] * (self.depth - 2) + list(self.dilations)
        heads = self.head_channels if attention else None
        return ResBlock(inputs, self.channels[level], 4 * self.width, dilation=rates[level], head_channels=heads)


def _encoder(plan: _Plan) -> tuple[nn.ModuleList, list[int]]:
    """Return the levels from fine to coarse, and the channels of all maps that they hand to the decoder."""
    levels, skips = [], [plan.width]
    for level, channels in enumerate(plan.channels):
        blocks = []
        for _ in range(plan.blocks_per_level):
            blocks.append(plan.block(skips[-1], level, attention=plan.has_attention(level)))
            skips.append(channels)
        last = level == plan.depth - 1
        down = None if last else nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        levels.append(_EncoderLevel(blocks, down))
        skips += [] if last else [channels]
    return nn.ModuleList(levels), skips


def _decoder(plan: _Plan, skips: list[int]) -> nn.ModuleList:
    """Return the levels from coarse to fine; every block takes one of the encoder's maps beside its input."""
    levels, current, waiting = [], plan.channels[-1], list(skips)
    for level, channels in reversed(list(enumerate(plan.channels))):
        blocks = []
        for _ in range(plan.blocks_per_level + 1):
            blocks.append(plan.block(current + waiting.pop(), level, attention=plan.has_attention(level)))
            current = channels
        levels.append(_DecoderLevel(blocks, nn.Conv2d(channels, channels, 3, padding=1) if level else None))
    return nn.ModuleList(levels)


class DilatedUNet2D(ModelMixin, ConfigMixin):
    """U-Net that predicts the noise in x_t, with dilated 3x3 convolutions in the ResBlocks of its two deepest levels.

    From the paper: four levels with multipliers (1, 2, 2, 2), dilation in the two deepest, sinusoids of the timestep
    through an MLP added in every ResBlock, multi-head self-attention inside ResBlocks. Ours, where it says nothing or
    two things: width, two blocks a level, rates 2 and 4, attention at the second level (section 4.2) and also at the
    bottleneck (section 3.1), the bottleneck's dilation (that of the deepest level), residual branches that start at 0.
    ``dilations=(1, 1)`` is the paper's plain-convolution ablation and has exactly as many parameters.

    Saves and loads as any diffusers model, and fits diffusers' pipelines for unconditional images.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int = 128,
        in_channels: int = 3,
        out_channels: int = 3,
        width: int = 64,
        multipliers: tuple[int, ...] = (1, 2, 2, 2),
        blocks_per_level: int = 2,
        dilations: tuple[int, int] = (2, 4),
        attention_levels: tuple[int, ...] = (2,),
        bottleneck_attention: bool = True,
        head_channels: int = 32,
        num_classes: int = 0,
    ) -> None:
        """Make the network with fresh weights.

        Args:
            sample_size: edge in pixels it is trained for; any size from one pixel a level up can be processed.
            in_channels: 3 for RGB, 4 for RGB with mask.
            out_channels: channels of the predicted noise, as many as ``in_channels``.
            width: channels of the first level, an even number.
            multipliers: channels of each level, as multiples of ``width``; each level halves the resolution.
            dilations: rates of the last but one and the last level.
            attention_levels: levels with attention in every ResBlock, counted from 1 at full resolution.
            head_channels: channels of an attention head.
            num_classes: classes to condition on; 0 for none.

        Raises:
            ConfigError: the numbers do not fit each other.
        """
        super().__init__()
        plan = _Plan(
            width, tuple(multipliers), blocks_per_level, tuple(dilations), tuple(attention_levels), head_channels
        )
        deepest = plan.depth - 1
        self.conditioning = Conditioning(width, num_classes)
        self.conv_in = nn.Conv2d(in_channels, width, 3, padding=1)
        self.encoder, skips = _encoder(plan)
        first = plan.block(plan.channels[deepest], deepest, attention=bottleneck_attention)
        self.bottleneck = nn.ModuleList([first, plan.block(plan.channels[deepest], deepest, attention=False)])
        self.decoder = _decoder(plan, skips)
        self.conv_out = NormActConv2d(plan.channels[0], out_channels, zero=True)

    @property
    def null_class(self) -> int:
        """The class number that stands for "no class"."""
        return self.conditioning.null_class

    def forward(self, sample: Tensor, timestep: Tensor | int, class_labels: Tensor | None = None) -> UNet2DOutput:
        """Predict the noise in ``sample``.

        Args:
            sample: x_t, (N, in_channels, H, W).
            timestep: t, one number for all cases or (N,).
            class_labels: (N,) int64 in [0, num_classes], the last meaning none; None means none for all cases.

        Returns:
            diffusers' output object; its ``sample`` is eps_theta(x_t, t), (N, out_channels, H, W).
        """
        timesteps = torch.as_tensor(timestep, device=sample.device).reshape(-1).expand(len(sample))
        embedding = F.silu(self.conditioning(timesteps, class_labels))
        x = self.conv_in(sample)
        skips = [x]
        for level in self.encoder:
            x = level(x, embedding, skips)
        for block in self.bottleneck:
            x = block(x, embedding)
        for level in self.decoder:
            x = level(x, embedding, skips)
        return UNet2DOutput(sample=self.conv_out(x))
