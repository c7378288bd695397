"""What several of the networks are made of."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def convolution(
    inputs: int, outputs: int, size: int = 3, *, dilation: int = 1, groups: int = 1, activation: bool = True
) -> nn.Sequential:
    """Return a convolution that keeps the maps' size, batch norm and, with ``activation``, ReLU."""
    padding = dilation * (size // 2)
    layers = [
        nn.Conv2d(inputs, outputs, size, padding=padding, dilation=dilation, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, *([nn.ReLU(inplace=True)] if activation else []))


def separable_convolution(inputs: int, outputs: int, size: int = 3, *, activation: bool = True) -> nn.Sequential:
    """Return a depthwise convolution and a pointwise one, each with batch norm, the second with ReLU if wanted."""
    depthwise = convolution(inputs, inputs, size, groups=inputs, activation=False)
    return nn.Sequential(depthwise, convolution(inputs, outputs, 1, activation=activation))


def shortcut(inputs: int, outputs: int) -> nn.Module:
    """Return the way around a residual block: a projection where the number of channels changes."""
    return nn.Identity() if inputs == outputs else convolution(inputs, outputs, 1, activation=False)


def enlarged(maps: Tensor, like: Tensor) -> Tensor:
    """Return ``maps`` at the height and width of ``like``, bilinear."""
    return F.interpolate(maps, like.shape[-2:], mode="bilinear", align_corners=False)
