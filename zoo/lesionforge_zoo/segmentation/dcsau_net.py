"""DCSAU-Net: Q. Xu, Z. Ma, N. He and W. Duan, "DCSAU-Net: A deeper and more compact split-attention U-Net for medical
image segmentation", Computers in Biology and Medicine 154, 106626 (2023), arXiv 2202.00972.

DiDGen and PromptControl train it. We know it from its abstract, a review, and its published code; the paper itself was
not at hand. They give: primary feature conservation, a first level of 7x7 convolution, depthwise 7x7 convolution with a
residual connection, and pointwise convolution; compact split-attention blocks, in which a second group of features also
sees the first and a softmax over both groups weighs their channels, inside a bottleneck of four times fewer channels,
two blocks a level; the channels 64, 128, 256, 512, 512 down and 256, 128, 64, 64 up; convolutions of the groups in two
parts, at least 32 hidden channels of the attention; 2x2 max pooling; bilinear enlarging, skip connections; Dice loss
(the trainer's to choose).

Ours: batch norm before ReLU everywhere and no bias before it (the code has ReLU first in the first level), enlarging
without aligned corners, torch's usual initial weights, and no 3x3 averaging in the first block of a level, which the
code takes over from ResNeSt.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from .layers import convolution, enlarged, shortcut

EXPANSION = 4
LEAST_HIDDEN = 32


class DcsauNet(nn.Module):
    """Maps (N, 3, H, W) normalised images to (N, 1, H, W) logits; edges are multiples of 16.

    Args:
        width: channels of the first level.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        down = [width, 2 * width, 4 * width, 8 * width, 8 * width]
        up = [4 * width, 2 * width, width, width]
        self.first = PrimaryFeatures(width)
        self.encoder = nn.ModuleList(level(*pair) for pair in pairwise(down))
        self.halve = nn.MaxPool2d(2)
        joined = [deep + skip for deep, skip in zip([down[-1], *up[:-1]], down[-2::-1], strict=True)]
        self.decoder = nn.ModuleList(level(*pair) for pair in zip(joined, up, strict=True))
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        *skips, features = self.encode(images)
        for blocks, skip in zip(self.decoder, reversed(skips), strict=True):
            features = blocks(torch.cat([skip, enlarged(features, skip)], dim=1))
        return self.head(features)

    def encode(self, images: Tensor) -> list[Tensor]:
        """Return the encoder's maps, shallow to deep."""
        maps = [self.first(images)]
        for blocks in self.encoder:
            maps.append(blocks(self.halve(maps[-1])))
        return maps


def level(inputs: int, outputs: int) -> nn.Sequential:
    """Return the two blocks of one level."""
    return nn.Sequential(SplitAttentionBlock(inputs, outputs), SplitAttentionBlock(outputs, outputs))


class PrimaryFeatures(nn.Module):
    """Primary feature conservation: 7x7, depthwise 7x7 with a residual connection, and pointwise convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.whole = convolution(3, width, 7)
        self.depthwise = convolution(width, width, 7, groups=width)
        self.pointwise = convolution(width, width, 1)

    def forward(self, images: Tensor) -> Tensor:
        features = self.whole(images)
        return self.pointwise(features + self.depthwise(features))


class SplitAttentionBlock(nn.Module):
    """A residual bottleneck around :class:`CompactSplitAttention`."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        hidden = outputs // EXPANSION
        self.body = nn.Sequential(
            convolution(inputs, hidden, 1),
            CompactSplitAttention(hidden),
            convolution(hidden, outputs, 1, activation=False),
        )
        self.around = shortcut(inputs, outputs)

    def forward(self, features: Tensor) -> Tensor:
        return torch.relu(self.around(features) + self.body(features))


class CompactSplitAttention(nn.Module):
    """Two groups of features, the second convolved once more over the sum of both, mixed channel by channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.groups = convolution(channels, 2 * channels, groups=2)
        self.again = convolution(channels, channels, groups=2)
        hidden = max(channels // 2, LEAST_HIDDEN)
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            convolution(channels, hidden, 1),
            nn.Conv2d(hidden, 2 * channels, 1),
            nn.Unflatten(1, (2, channels)),
            nn.Softmax(dim=1),
        )

    def forward(self, features: Tensor) -> Tensor:
        first, second = self.groups(features).chunk(2, dim=1)
        second = self.again(first + second)
        of_first, of_second = self.attention(first + second).unbind(dim=1)
        return of_first * first + of_second * second
