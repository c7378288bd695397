"""The coarse-to-fine generator and the discriminators at several scales (paper, sections 3.1 and 3.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import GeneratorShape

WIDEST = 8
"""Most channels of a discriminator's layer, times its width."""


def halved(pixels: Tensor) -> Tensor:
    """Return (N, C, H, W) at half the edge: means over 3 x 3 pixels, those outside left out."""
    return F.avg_pool2d(pixels, 3, stride=2, padding=1, count_include_pad=False)


class GlobalFeatures(nn.Module):
    """G1 up to its last features: (N, C, H, W) condition to (N, width, H, W)."""

    def __init__(self, channels: int, shape: GeneratorShape) -> None:
        super().__init__()
        levels = [shape.width * 2**level for level in range(shape.downsamplings + 1)]
        self.front = nn.Sequential(first(channels, levels[0]), *map(down, levels[:-1]))
        self.blocks = nn.Sequential(*(ResNetBlock(levels[-1]) for _ in range(shape.blocks)))
        self.back = nn.Sequential(*map(up, reversed(levels[1:])))

    def forward(self, condition: Tensor) -> Tensor:
        return self.back(self.blocks(self.front(condition)))


class GlobalGenerator(nn.Module):
    """G1: (N, C, H, W) condition to (N, 3, H, W) images in [-1, 1]."""

    def __init__(self, features: GlobalFeatures, width: int) -> None:
        super().__init__()
        self.features, self.output = features, output(width)

    def forward(self, condition: Tensor) -> Tensor:
        return self.output(self.features(condition))


class EnhancedGenerator(nn.Module):
    """G2 around G1: its front's features at half the edge and G1's last features are added (paper, figure 3)."""

    def __init__(self, features: GlobalFeatures, channels: int, shape: GeneratorShape) -> None:
        super().__init__()
        self.features = features
        self.front = nn.Sequential(first(channels, shape.width // 2), down(shape.width // 2))
        self.blocks = nn.Sequential(*(ResNetBlock(shape.width) for _ in range(shape.enhancer_blocks)))
        self.back = nn.Sequential(up(shape.width), output(shape.width // 2))

    def forward(self, condition: Tensor) -> Tensor:
        return self.back(self.blocks(self.front(condition) + self.features(halved(condition))))


def build_generator(shape: GeneratorShape, classes: int) -> GlobalGenerator | EnhancedGenerator:
    """Return the untrained generator for a condition of one mask and ``classes`` planes."""
    features = GlobalFeatures(1 + classes, shape)
    if not shape.enhancer:
        return GlobalGenerator(features, shape.width)
    return EnhancedGenerator(features, 1 + classes, shape)


class ResNetBlock(nn.Module):
    """Two convolutions with instance normalisation whose output is added to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = (reflected(channels, channels, 3) for _ in range(2))

    def forward(self, features: Tensor) -> Tensor:
        inner = F.relu(F.instance_norm(self.first(features)))
        return features + F.instance_norm(self.second(inner))


def first(channels: int, width: int) -> nn.Sequential:
    """Return c7s1: a convolution over 7 x 7 pixels, instance normalisation, ReLU."""
    return normalised(reflected(channels, width, 7), width)


def down(channels: int) -> nn.Sequential:
    """Return d: half the edge, twice the channels."""
    return normalised(nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1, bias=False), 2 * channels)


def up(channels: int) -> nn.Sequential:
    """Return u: twice the edge, half the channels."""
    layer = nn.ConvTranspose2d(channels, channels // 2, 3, stride=2, padding=1, output_padding=1, bias=False)
    return normalised(layer, channels // 2)


def output(width: int) -> nn.Sequential:
    """Return the last convolution over 7 x 7 pixels, and tanh."""
    return nn.Sequential(reflected(width, 3, 7, bias=True), nn.Tanh())


def reflected(channels: int, width: int, kernel: int, *, bias: bool = False) -> nn.Conv2d:
    """Return a convolution that keeps the edge and reflects at the border; a bias before normalisation is pointless."""
    return nn.Conv2d(channels, width, kernel, padding=kernel // 2, padding_mode="reflect", bias=bias)


def normalised(layer: nn.Module, channels: int) -> nn.Sequential:
    """Return the layer with instance normalisation, which learns nothing, and ReLU."""
    return nn.Sequential(layer, nn.InstanceNorm2d(channels), nn.ReLU())


class PatchDiscriminator(nn.Module):
    """Judges patches: layers that halve the edge, one more that does not, and a map of scores.

    With three halving layers, each score sees 70 x 70 pixels.
    """

    def __init__(self, channels: int, width: int, halvings: int) -> None:
        super().__init__()
        widths = [width * min(2**level, WIDEST) for level in range(halvings + 1)]
        self.layers = nn.ModuleList([nn.Sequential(nn.Conv2d(channels, width, 4, 2, padding=2), nn.LeakyReLU(0.2))])
        for number in range(1, halvings + 1):
            stride = 2 if number < halvings else 1
            layer = nn.Conv2d(widths[number - 1], widths[number], 4, stride, padding=2, bias=False)
            self.layers.append(nn.Sequential(layer, nn.InstanceNorm2d(widths[number]), nn.LeakyReLU(0.2)))
        self.layers.append(nn.Conv2d(widths[-1], 1, 4, padding=2))

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Return every layer's features, and the scores last."""
        found = [pixels]
        for layer in self.layers:
            found.append(layer(found[-1]))
        return found[1:]


class Discriminators(nn.Module):
    """Discriminators of one architecture at the full edge, a half, a quarter ..."""

    def __init__(self, channels: int, *, count: int, width: int, halvings: int) -> None:
        super().__init__()
        self.scales = nn.ModuleList(PatchDiscriminator(channels, width, halvings) for _ in range(count))

    def forward(self, condition: Tensor, images: Tensor) -> list[list[Tensor]]:
        """Return for each scale, the full one first, what :class:`PatchDiscriminator` does."""
        pixels = torch.cat((condition, images), dim=1)
        judged = []
        for number, discriminator in enumerate(self.scales):
            pixels = halved(pixels) if number else pixels
            judged.append(discriminator(pixels))
        return judged


@torch.no_grad()
def draw_weights(network: nn.Module) -> None:
    """Draw all weights from the Gaussian of deviation 0.02 (paper) by torch's random state; biases become 0."""
    for parameter in network.parameters():
        parameter.normal_(0, 0.02) if parameter.ndim > 1 else parameter.zero_()
