"""Dilated-UNet of EnhancedDDPM (section 3.2.1): a U-Net whose bottleneck is two sequential dilated convolutions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .network import SegmentationNetwork


class DilatedUNet(SegmentationNetwork):
    """U-Net (Ronneberger et al. 2015) with batch norm, zero padding, and a dilated bottleneck.

    The paper leaves width, depth and dilation rate open; batch norm and transposed convolutions are our choice too.
    ``dilations=(1, 1)`` is the plain U-Net with exactly as many parameters, as in the paper's Table 6.

    Args:
        width: channels of the first level; each level below has twice as many.
        depth: how often the resolution is halved; the input's edges must be multiples of ``2**depth``.
        dilations: rates of the bottleneck's two 3x3 convolutions.
    """

    def __init__(self, width: int = 64, depth: int = 4, dilations: tuple[int, int] = (2, 2)) -> None:
        super().__init__()
        channels = [width * 2**level for level in range(depth + 1)]
        self.encoder = _Encoder(channels, dilations)
        shallower = list(zip(channels[1:], channels[:-1], strict=True))[::-1]
        self.upsamplings = nn.ModuleList(nn.ConvTranspose2d(deep, shallow, 2, stride=2) for deep, shallow in shallower)
        self.decoder = nn.ModuleList(_two_convolutions(2 * shallow, shallow) for _, shallow in shallower)
        self.head = nn.Conv2d(width, 1, 1)

    def encoder_module(self) -> nn.Module:
        return self.encoder

    def forward(self, images: Tensor) -> Tensor:
        *skips, features = self.encoder(images)
        for upsampling, block, skip in zip(self.upsamplings, self.decoder, reversed(skips), strict=True):
            features = block(torch.cat([skip, upsampling(features)], dim=1))
        return self.head(features)

    def encode(self, images: Tensor) -> list[Tensor]:
        return self.encoder(images)


class _Encoder(nn.Module):
    def __init__(self, channels: list[int], dilations: tuple[int, int]) -> None:
        super().__init__()
        inputs = [3, *channels[:-1]]
        blocks = [_two_convolutions(*pair) for pair in zip(inputs[:-1], channels[:-1], strict=True)]
        self.levels = nn.ModuleList([*blocks, _two_convolutions(channels[-2], channels[-1], dilations)])
        self.halve = nn.MaxPool2d(2)

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = [self.levels[0](images)]
        for level in self.levels[1:]:
            maps.append(level(self.halve(maps[-1])))
        return maps


def _two_convolutions(inputs: int, outputs: int, dilations: tuple[int, int] = (1, 1)) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels, dilation in zip((inputs, outputs), dilations, strict=True):
        convolution = nn.Conv2d(channels, outputs, 3, padding=dilation, dilation=dilation, bias=False)
        layers += [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
