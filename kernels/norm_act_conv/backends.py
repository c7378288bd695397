"""The whole op from its fused pieces: which backend takes which piece, and why automatic choice passes one over."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from . import reference
from .passes import add_shift_residual_, dilated_conv2d, group_norm_silu

SMALL_MAP = 64
"""Pixels up to which plain torch was measured to be faster than our passes, see docs/kernels.md."""


def with_triton_conv(
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
    y = group_norm_silu(x, gamma, beta, groups, eps, "triton")
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        y, weight = y.to(dtype), weight.to(dtype)
    made = dilated_conv2d(y, weight, bias, shift, residual, dilation)
    return made.contiguous(memory_format=reference.layout_of(x))


def around_convolution(
    backend: str,
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
    y = group_norm_silu(x, gamma, beta, groups, eps, backend)
    y = F.conv2d(y, weight, bias, padding=dilation, dilation=dilation)
    if shift is None and residual is None:
        return y
    if _wants_gradient(y, shift, residual):
        return reference.add_shift_residual(y, shift, residual)
    add_shift_residual_(y, shift, residual, backend)
    return y


on_cpu = partial(around_convolution, "cpu")
with_triton = partial(around_convolution, "triton")


def reservation(*tensors: Tensor) -> str | None:
    if _wants_gradient(*tensors):
        return "a gradient is wanted, and the backward pass of plain torch reads what its forward pass kept"
    if tensors and tensors[0].shape[2:].numel() <= SMALL_MAP:
        return f"on maps of at most {SMALL_MAP} pixels the convolution is nearly all, and plain torch is faster"
    return None


def _wants_gradient(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
