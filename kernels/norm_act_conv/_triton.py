"""The same pieces in Triton: one pass before the convolution, one after it, and the convolution itself.

Interpreted by TRITON_INTERPRET=1, compiled ahead of time for sm_80 and sm_90 (tests/kernels), measured on no GPU yet.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from .reference import layout_of

triton: Any = None
kernels: Any = None
try:
    triton, kernels = import_module("triton"), import_module("._triton_kernels", __package__)
except ModuleNotFoundError as error:
    if not (error.name or "").startswith("triton"):
        raise

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
BLOCK_PIXELS, BLOCK_FLAT = 256, 1024
# Rows, columns and depth of a tile of the implicit GEMM, and the warps that share it.
BLOCK_M, BLOCK_N, BLOCK_K, NUM_WARPS = 64, 64, 32, 4


def why_not(*tensors: Tensor) -> str | None:
    if triton is None:
        return "the package triton is not installed"
    interpreted = triton.knobs.runtime.interpret
    if not (interpreted or torch.cuda.is_available()):
        return "there is no CUDA device, and TRITON_INTERPRET=1 is not set"
    for tensor in tensors:
        if tensor.device.type != "cuda" and not (interpreted and tensor.device.type == "cpu"):
            return f"it works on CUDA tensors, these are on {tensor.device}"
        if tensor.dtype not in DTYPES:
            return f"it computes in float32, float16 and bfloat16, not {tensor.dtype}"
    if not interpreted and torch.cuda.get_device_capability() < (8, 0):
        return "it needs a GPU of compute capability 8.0 or newer"
    return None


def group_norm_silu(x: Tensor, gamma: Tensor, beta: Tensor, groups: int, eps: float) -> Tensor:
    """silu(group_norm(x)), (B,C,H,W) in x's dtype, channels-last or contiguous; statistics in float32."""
    layout = layout_of(x)
    x = x.contiguous(memory_format=layout)
    out = torch.empty_like(x, memory_format=layout)
    cases, channels, height, width = x.shape
    if not x.numel():
        return out
    of_channel, of_pixel = (1, channels) if layout == torch.channels_last else (height * width, 1)
    block_channels = triton.next_power_of_2(channels // groups)
    kernels.group_norm_silu[(cases * groups,)](
        x,
        gamma.contiguous(),
        beta.contiguous(),
        out,
        channels,
        height * width,
        groups,
        of_channel,
        of_pixel,
        eps,
        BLOCK_C=block_channels,
        BLOCK_P=max(1, 8 * BLOCK_PIXELS // max(8, block_channels)),
    )
    return out


def add_shift_residual_(y: Tensor, shift: Tensor | None, residual: Tensor | None) -> None:
    """y += shift[:, :, None, None] + residual in float32, rounded once; y (B,C,H,W) must be dense."""
    layout = layout_of(y)
    if not y.is_contiguous(memory_format=layout):
        raise ValueError(f"y must be contiguous or channels-last, not of strides {y.stride()}")
    if not y.numel() or (shift is None and residual is None):
        return
    _, channels, height, width = y.shape
    kernels.add_shift_residual[(triton.cdiv(y.numel(), BLOCK_FLAT),)](
        y,
        y if shift is None else shift.contiguous(),
        y if residual is None else residual.contiguous(memory_format=layout),
        y.numel(),
        channels,
        height * width,
        CHANNELS_LAST=layout == torch.channels_last,
        HAS_SHIFT=shift is not None,
        HAS_RESIDUAL=residual is not None,
        BLOCK=BLOCK_FLAT,
    )


def dilated_conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None, shift: Tensor | None, residual: Tensor | None, dilation: int
) -> Tensor:
    """conv2d(x, weight, bias, padding=dilation, dilation) + shift[:, :, None, None] + residual, channels-last.

    Products are summed in float32; float32 maps are multiplied as float32 unless torch allows TF32.
    """
    last = torch.channels_last
    x, weight = x.contiguous(memory_format=last), weight.contiguous(memory_format=last)
    cases, channels, height, width = x.shape
    outputs = weight.shape[0]
    out = torch.empty((cases, outputs, height, width), dtype=x.dtype, device=x.device, memory_format=last)
    if not out.numel():
        return out
    grid = (triton.cdiv(cases * height * width, BLOCK_M), triton.cdiv(outputs, BLOCK_N))
    kernels.dilated_conv2d[grid](
        x,
        weight,
        out if bias is None else bias.contiguous(),
        out if shift is None else shift.contiguous(),
        out if residual is None else residual.contiguous(memory_format=last),
        out,
        cases * height * width,
        channels,
        outputs,
        height,
        width,
        DILATION=dilation,
        HAS_BIAS=bias is not None,
        HAS_SHIFT=shift is not None,
        HAS_RESIDUAL=residual is not None,
        PRECISION="tf32" if torch.backends.cuda.matmul.allow_tf32 else "ieee",
        BLOCK_M=BLOCK_M,
        BLOCK_N=BLOCK_N,
        BLOCK_K=BLOCK_K,
        num_warps=NUM_WARPS,
    )
    return out
