"""DFF-UNet: S. Khan, A. Khan and Y. Teng, "DFF-UNet: A Lightweight Deep Feature Fusion UNet Model for Skin Lesion
Segmentation", IEEE Transactions on Instrumentation and Measurement 74, 5030214 (2025).

EnhancedDDPM trains it (as "ChimeraNet + LAMA" in one table, as DFF-UNet with 0.19 M parameters in another). We could
read the abstract only. It gives three modules and their order: a Residual Feature Refinement Encoder with "adaptive
convolutional layers" and residual connections, a Parallel Dilated Contextual Pyramid between encoder and decoder, and
a Bottleneck Skip Fusion Decoder of bottleneck blocks and skip connections.

Ours is everything else: what refines (two separable convolutions and a gate over channels that adapts to the image),
linear growth of the channels, four dilation rates, bilinear enlarging, batch norm, and the width, which is set so that
there are 0.19 M parameters. This is a re-creation, not the authors' network.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import convolution, enlarged, separable_convolution, shortcut


class DffUNet(nn.Module):
    """Maps (N, 3, H, W) normalised images to (N, 1, H, W) logits; edges are multiples of ``2**depth``.

    Args:
        width: channels of the first level; level n has n times as many.
        depth: how often the resolution is halved.
        rates: dilation of each branch of the pyramid.
    """

    def __init__(self, width: int, depth: int, rates: tuple[int, ...]) -> None:
        super().__init__()
        channels = [width * (level + 1) for level in range(depth + 1)]
        inputs = zip([3, *channels[:-1]], channels, strict=True)
        self.encoder = nn.ModuleList(RefinementBlock(*pair) for pair in inputs)
        self.halve = nn.MaxPool2d(2)
        self.pyramid = ContextPyramid(channels[-1], rates)
        steps = list(zip(channels[1:], channels[:-1], strict=True))[::-1]
        self.decoder = nn.ModuleList(FusionBlock(deep + shallow, shallow) for deep, shallow in steps)
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        *skips, deepest = self.encode(images)
        features = self.pyramid(deepest)
        for block, skip in zip(self.decoder, reversed(skips), strict=True):
            features = block(torch.cat([enlarged(features, skip), skip], dim=1))
        return self.head(features)

    def encode(self, images: Tensor) -> list[Tensor]:
        """Return the encoder's maps, shallow to deep."""
        maps = [self.encoder[0](images)]
        for block in self.encoder[1:]:
            maps.append(block(self.halve(maps[-1])))
        return maps


class RefinementBlock(nn.Module):
    """Two separable convolutions whose channels are weighed by what the image as a whole shows, around a shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            separable_convolution(inputs, outputs), separable_convolution(outputs, outputs, activation=False)
        )
        hidden = max(outputs // 4, 4)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(outputs, hidden, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, outputs, 1),
            nn.Sigmoid(),
        )
        self.around = shortcut(inputs, outputs)

    def forward(self, features: Tensor) -> Tensor:
        refined = self.body(features)
        return torch.relu(self.around(features) + refined * self.gate(refined))


class ContextPyramid(nn.Module):
    """Dilated convolutions side by side on a quarter of the channels each, joined around a shortcut."""

    def __init__(self, channels: int, rates: tuple[int, ...]) -> None:
        super().__init__()
        hidden = max(channels // 4, 4)
        self.branches = nn.ModuleList(
            nn.Sequential(convolution(channels, hidden, 1), convolution(hidden, hidden, dilation=rate))
            for rate in rates
        )
        self.join = convolution(hidden * len(rates), channels, 1, activation=False)

    def forward(self, features: Tensor) -> Tensor:
        return torch.relu(features + self.join(torch.cat([branch(features) for branch in self.branches], dim=1)))


class FusionBlock(nn.Module):
    """A bottleneck of 1x1, 3x3 and 1x1 convolutions over the enlarged maps and the skip, around a shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        hidden = max(outputs // 2, 4)
        self.body = nn.Sequential(
            convolution(inputs, hidden, 1),
            convolution(hidden, hidden),
            convolution(hidden, outputs, 1, activation=False),
        )
        self.around = shortcut(inputs, outputs)

    def forward(self, features: Tensor) -> Tensor:
        return torch.relu(self.around(features) + self.body(features))
