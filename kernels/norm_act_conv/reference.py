"""GroupNorm, SiLU and dilated convolution in plain torch: the definition of truth, on any device and in any dtype."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def why_not(*tensors: Tensor) -> str | None:
    return None


def norm_act_conv2d(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    groups: int,
    eps: float,
    dilation: int,
    shift: Tensor | None,
    residual: Tensor | None,
) -> Tensor:
    y = F.conv2d(group_norm_silu(x, gamma, beta, groups, eps), weight, bias, padding=dilation, dilation=dilation)
    return add_shift_residual(y, shift, residual)


def group_norm_silu(x: Tensor, gamma: Tensor, beta: Tensor, groups: int, eps: float) -> Tensor:
    # Only the CPU's group_norm takes gamma and beta of another dtype than x.
    wide = x if x.device.type == "cpu" else x.to(gamma.dtype)
    # torch's function, since the one in torch.nn refuses a group of a single number.
    y = F.silu(torch.group_norm(wide, groups, gamma, beta, eps)).to(x.dtype)
    return y.contiguous(memory_format=layout_of(x))


def add_shift_residual(y: Tensor, shift: Tensor | None, residual: Tensor | None) -> Tensor:
    if shift is not None:
        y = y + shift.to(y.dtype)[:, :, None, None]
    return y if residual is None else y + residual.to(y.dtype)


def layout_of(x: Tensor) -> torch.memory_format:
    """Channels-last for maps that are stored so, else contiguous."""
    if x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
        return torch.channels_last
    return torch.contiguous_format
