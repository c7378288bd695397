"""The two passes around oneDNN's convolution in C++ (csrc/norm_act_conv2d.cpp), on torch's number of threads."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import native
from .reference import layout_of

DTYPES = (torch.float32, torch.bfloat16)


def why_not(*tensors: Tensor) -> str | None:
    for tensor in tensors:
        if tensor.dtype not in DTYPES:
            return f"it computes in float32 and bfloat16, not {tensor.dtype}"
    return native.why_not(*tensors)


def group_norm_silu(
    x: Tensor, gamma: Tensor, beta: Tensor, groups: int, eps: float, *, instruction_set: str = "widest"
) -> Tensor:
    """silu(group_norm(x)), (B,C,H,W) in x's dtype, channels-last or contiguous; statistics in float32 and float64."""
    layout = layout_of(x)
    x, gamma, beta = x.contiguous(memory_format=layout), gamma.float().contiguous(), beta.float().contiguous()
    out = torch.empty_like(x, memory_format=layout)
    native.module().group_norm_silu(
        x.data_ptr(),
        gamma.data_ptr(),
        beta.data_ptr(),
        out.data_ptr(),
        *_described(x),
        groups,
        eps,
        instruction_set,
        torch.get_num_threads(),
    )
    return out


def add_shift_residual_(
    y: Tensor, shift: Tensor | None, residual: Tensor | None, *, instruction_set: str = "widest"
) -> None:
    """y += shift[:, :, None, None] + residual in float32, rounded once; y (B,C,H,W) must be dense."""
    layout = layout_of(y)
    if not y.is_contiguous(memory_format=layout):
        raise ValueError(f"y must be contiguous or channels-last, not of strides {y.stride()}")
    shift = None if shift is None else shift.float().contiguous()
    residual = None if residual is None else residual.to(y.dtype).contiguous(memory_format=layout)
    native.module().add_shift_residual(
        y.data_ptr(),
        0 if shift is None else shift.data_ptr(),
        0 if residual is None else residual.data_ptr(),
        *_described(y),
        instruction_set,
        torch.get_num_threads(),
    )


def _described(x: Tensor) -> tuple[int, int, int, bool, bool]:
    """Cases, channels, pixels, channels-last or not, bfloat16 or not."""
    cases, channels, height, width = x.shape
    channels_last = layout_of(x) == torch.channels_last
    return cases, channels, height * width, channels_last, x.dtype == torch.bfloat16
