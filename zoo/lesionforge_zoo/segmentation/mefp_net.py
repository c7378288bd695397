"""MEFP-Net: S. Hao, Z. Yu, B. Zhang, C. Dai, Z. Fan, Z. Ji and I. Ganchev, "MEFP-Net: A Dual-Encoding Multi-Scale
Edge Feature Perception Network for Skin Lesion Segmentation", IEEE Access 12, 140039-140052 (2024).

EnhancedDDPM trains it. We could read the abstract only. It gives: a second encoder branch with Global Information
Extraction Modules beside the usual one; Multi-scale Adaptive Feature Fusion Modules in the decoder, which draw features
of several scales from the channels and fuse them adaptively, each followed by a CBAM (Woo et al. 2018, which says all
of it); an Atrous Pooling Dense Perception Module at the end, for boundaries; BCE + Dice (the trainer's to choose).

Ours is what is inside the modules, and all sizes: a context module is a depthwise 7x7 convolution gated by the means of
rows, of columns and of the whole map; a fusion module splits its channels into four groups, convolves one after the
other with dilations 1 to 4, and weighs them by a softmax over the groups; the dense module stacks dilated convolutions
that all see the ones before, beside the map less its local mean, which is largest at edges. This is a re-creation, not
the authors' network.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import convolution, enlarged, shortcut

GROUPS = 4
RATES = (1, 2, 4)


class MefpNet(nn.Module):
    """Maps (N, 3, H, W) normalised images to (N, 1, H, W) logits; edges are multiples of ``2**depth``.

    Args:
        width: channels of the first level; each level below has twice as many.
        depth: how often the resolution is halved.
    """

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        channels = [width * 2**level for level in range(depth + 1)]
        pairs = list(zip([3, *channels[:-1]], channels, strict=True))
        self.detail = nn.ModuleList(
            nn.Sequential(convolution(inputs, outputs), convolution(outputs, outputs)) for inputs, outputs in pairs
        )
        self.context = nn.ModuleList(ContextModule(*pair) for pair in pairs)
        self.halve = nn.MaxPool2d(2)
        self.joined = nn.ModuleList(convolution(2 * outputs, outputs, 1) for outputs in channels)
        steps = list(zip(channels[1:], channels[:-1], strict=True))[::-1]
        self.decoder = nn.ModuleList(
            nn.Sequential(FusionModule(deep + skip, skip), BlockAttention(skip)) for deep, skip in steps
        )
        self.head = nn.Sequential(DensePerception(width), nn.Conv2d(width, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        *skips, features = self.encode(images)
        for block, skip in zip(self.decoder, reversed(skips), strict=True):
            features = block(torch.cat([enlarged(features, skip), skip], dim=1))
        return self.head(features)

    def encode(self, images: Tensor) -> list[Tensor]:
        """Return the maps of both encoders joined, shallow to deep."""
        detail = context = images
        maps: list[Tensor] = []
        for fine, wide, join in zip(self.detail, self.context, self.joined, strict=True):
            if maps:
                detail, context = self.halve(detail), self.halve(context)
            detail, context = fine(detail), wide(context)
            maps.append(join(torch.cat([detail, context], dim=1)))
        return maps


class ContextModule(nn.Module):
    """Global information extraction: a wide view, gated by what rows, columns and the whole map hold on average."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.project = convolution(inputs, outputs, 1)
        self.wide = convolution(outputs, outputs, 7, groups=outputs)
        self.gate = nn.Conv2d(outputs, outputs, 1)
        self.mix = convolution(outputs, outputs, 1, activation=False)
        self.around = shortcut(inputs, outputs)

    def forward(self, features: Tensor) -> Tensor:
        projected = self.project(features)
        rows, columns = projected.mean(3, keepdim=True), projected.mean(2, keepdim=True)
        means = rows + columns + rows.mean(2, keepdim=True)
        return torch.relu(self.around(features) + self.mix(self.wide(projected) * self.gate(means).sigmoid()))


class FusionModule(nn.Module):
    """Multi-scale adaptive fusion: groups of channels seen ever wider, one after the other, weighed and mixed."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        part = outputs // GROUPS
        self.reduce = convolution(inputs, outputs, 1)
        self.views = nn.ModuleList(convolution(part, part, dilation=rate) for rate in range(1, GROUPS + 1))
        self.weigh = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(outputs, outputs, 1), nn.Unflatten(1, (GROUPS, part)), nn.Softmax(dim=1)
        )
        self.mix = convolution(outputs, outputs, 1, activation=False)

    def forward(self, features: Tensor) -> Tensor:
        features = self.reduce(features)
        scales: list[Tensor] = []
        for view, part in zip(self.views, features.chunk(GROUPS, dim=1), strict=True):
            scales.append(view(part + scales[-1] if scales else part))
        seen = torch.stack(scales, dim=1)
        # Times GROUPS: equal weights change nothing.
        weighed = (GROUPS * self.weigh(seen.flatten(1, 2)) * seen).flatten(1, 2)
        return torch.relu(features + self.mix(weighed))


class BlockAttention(nn.Module):
    """CBAM (Woo et al. 2018): a gate over channels, then one over pixels, each from means and maxima."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // 16, 4)
        self.channels = nn.Sequential(
            nn.Conv2d(channels, hidden, 1), nn.ReLU(inplace=True), nn.Conv2d(hidden, channels, 1)
        )
        self.pixels = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, features: Tensor) -> Tensor:
        means, maxima = features.mean((2, 3), keepdim=True), features.amax((2, 3), keepdim=True)
        features = features * (self.channels(means) + self.channels(maxima)).sigmoid()
        told = torch.cat([features.mean(1, keepdim=True), features.amax(1, keepdim=True)], dim=1)
        return features * self.pixels(told).sigmoid()


class DensePerception(nn.Module):
    """Atrous pooling dense perception: dilated convolutions that see all before them, and what stands out locally."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        growth = channels // 2
        self.views = nn.ModuleList(
            convolution(channels + number * growth, growth, dilation=rate) for number, rate in enumerate(RATES)
        )
        self.edges = convolution(channels, growth)
        self.mix = convolution(channels + (len(RATES) + 1) * growth, channels, 1, activation=False)

    def forward(self, features: Tensor) -> Tensor:
        seen = [features]
        for view in self.views:
            seen.append(view(torch.cat(seen, dim=1)))
        edges = features - F.avg_pool2d(features, 3, stride=1, padding=1, count_include_pad=False)
        return torch.relu(features + self.mix(torch.cat([*seen, self.edges(edges)], dim=1)))
