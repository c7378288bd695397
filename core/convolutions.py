"""A way around wrong gradients of dilated convolutions in bfloat16 on a CPU.

Seen with torch 2.14 on a processor with AVX-512 BF16 and without AMX, on channels-last maps of 32 pixels and more:
where the channels of a group do not fill blocks of 16, oneDNN leaves what was in memory before in the gradient of a
dilated convolution's weights. Nothing is raised, and numbers are not always so wild that a loss would tell.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

BLOCK = 16


class Float32Conv2d(nn.Conv2d):
    """A convolution that computes in float32 under any autocast, and returns what autocast asks for."""

    def forward(self, input: Tensor) -> Tensor:
        device = input.device.type
        with torch.autocast(device, enabled=False):
            made = super().forward(input.float())
        return made.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else made


def compute_soundly(model: nn.Module) -> None:
    """Let those convolutions of ``model`` compute in float32 whose gradients bfloat16 spoils on a CPU.

    Their weights and names stay. A module that does not call its convolution, but takes its weights, must ask whether
    it is a :class:`Float32Conv2d`.
    """
    for module in model.modules():
        if type(module) is nn.Conv2d and _is_spoilt(module):
            module.__class__ = Float32Conv2d


def _is_spoilt(convolution: nn.Conv2d) -> bool:
    return max(convolution.dilation) > 1 and convolution.in_channels // convolution.groups % BLOCK > 0
