"""The same pieces in Triton: one pass before the convolution, one after it, and the convolution itself.

Interpreted by TRITON_INTERPRET=1, compiled ahead of time for sm_80 and sm_90 (tests/kernels), measured on no GPU yet.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import triton_runtime
from ..triton_runtime import why_not
from .reference import layout_of

__all__ = ["add_shift_residual_", "dilated_conv2d", "group_norm_silu", "why_not"]

kernels = triton_runtime.kernels_of(__name__)
BLOCK_PIXELS, BLOCK_FLAT = 256, 1024
# Rows, columns and depth of a tile of the implicit GEMM, and the warps that share it.
BLOCK_M, BLOCK_N, BLOCK_K, NUM_WARPS = 64, 64, 32, 4


def group_norm_silu(x: Tensor, gamma: Tensor, beta: Tensor, groups: int, eps: float) -> Tensor:
    """silu(group_norm(x)), (B,C,H,W) in x's dtype, channels-last or contiguous; statistics in float32."""
    layout = layout_of(x)
    x = x.contiguous(memory_format=layout)
    out = torch.empty_like(x, memory_format=layout)
    cases, channels, height, width = x.shape
    if not x.numel():
        return out
    of_channel, of_pixel = (1, channels) if layout == torch.channels_last else (height * width, 1)
    block_channels = 1 << (channels // groups - 1).bit_length()
    with torch.cuda.device_of(x):
        kernels().group_norm_silu[(cases * groups,)](
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
    with torch.cuda.device_of(y):
        kernels().add_shift_residual[(-(-y.numel() // BLOCK_FLAT),)](
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

    Products are summed in float32; float32 maps are multiplied as float32 unless cuDNN's convolutions may take TF32.
    """
    last = torch.channels_last
    x, weight = x.contiguous(memory_format=last), weight.contiguous(memory_format=last)
    cases, channels, height, width = x.shape
    outputs = weight.shape[0]
    out = torch.empty((cases, outputs, height, width), dtype=x.dtype, device=x.device, memory_format=last)
    if not out.numel():
        return out
    grid = (-(-cases * height * width // BLOCK_M), -(-outputs // BLOCK_N))
    with torch.cuda.device_of(x):
        kernels().dilated_conv2d[grid](
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
            PRECISION=_precision(),
            BLOCK_M=BLOCK_M,
            BLOCK_N=BLOCK_N,
            BLOCK_K=BLOCK_K,
            num_warps=NUM_WARPS,
        )
    return out


def _precision() -> str:
    """By the switch of cuDNN's convolutions; the older `allow_tf32` raises once the newer one has been set."""
    convolutions = torch.backends.cudnn.conv  # pyright: ignore[reportAttributeAccessIssue]
    return "tf32" if convolutions.fp32_precision == "tf32" else "ieee"
