"""Triton kernels of norm_act_conv2d; _triton.py checks, lays out and launches."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def group_norm_silu(
    x,
    gamma,
    beta,
    out,
    channels,
    pixels,
    groups,
    of_channel,
    of_pixel,
    eps,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """One group of one case a program: its second reading comes out of the cache."""
    program = tl.program_id(0)
    width = channels // groups
    lane = tl.arange(0, BLOCK_C)
    channel = (program % groups) * width + lane
    start = (program // groups).to(tl.int64) * channels * pixels
    column = channel[None, :].to(tl.int64) * of_channel
    # Sums around the median of three numbers: around zero, or an outlier, they would lose the variance of maps that
    # lie far from it.
    begin_of_group = x + start + (program % groups) * width * of_channel
    low = tl.load(begin_of_group + tl.cast(pixels // 4, tl.int64) * of_pixel).to(tl.float32)
    middle = tl.load(begin_of_group + tl.cast(pixels // 2, tl.int64) * of_pixel).to(tl.float32)
    high = tl.load(begin_of_group + tl.cast(pixels - 1 - pixels // 4, tl.int64) * of_pixel).to(tl.float32)
    pivot = tl.maximum(tl.minimum(low, middle), tl.minimum(tl.maximum(low, middle), high))
    first = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    second = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    for begin in range(0, pixels, BLOCK_P):
        pixel = begin + tl.arange(0, BLOCK_P)
        inside = (pixel < pixels)[:, None] & (lane < width)[None, :]
        value = tl.load(x + start + pixel[:, None].to(tl.int64) * of_pixel + column, mask=inside, other=0.0)
        distance = tl.where(inside, value.to(tl.float32) - pivot, 0.0)
        first += distance
        second += distance * distance
    count = (pixels * width).to(tl.float32)
    offset = tl.sum(tl.sum(first, 1), 0) / count
    # Plain comparison, so that a NaN stays one.
    variance = tl.sum(tl.sum(second, 1), 0) / count - offset * offset
    variance = tl.where(variance < 0.0, 0.0, variance)
    scale = tl.load(gamma + channel, mask=lane < width, other=0.0).to(tl.float32) / tl.sqrt(variance + eps)
    added = tl.load(beta + channel, mask=lane < width, other=0.0).to(tl.float32)
    for begin in range(0, pixels, BLOCK_P):
        pixel = begin + tl.arange(0, BLOCK_P)
        inside = (pixel < pixels)[:, None] & (lane < width)[None, :]
        place = start + pixel[:, None].to(tl.int64) * of_pixel + column
        value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
        normal = (value - pivot - offset) * scale[None, :] + added[None, :]
        tl.store(out + place, (normal * tl.sigmoid(normal)).to(out.dtype.element_ty), mask=inside)


@triton.jit
def add_shift_residual(
    y,
    shift,
    residual,
    size,
    channels,
    pixels,
    CHANNELS_LAST: tl.constexpr,
    HAS_SHIFT: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    BLOCK: tl.constexpr,
):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < size
    value = tl.load(y + place, mask=inside, other=0.0).to(tl.float32)
    if HAS_SHIFT:
        case = place // (channels.to(tl.int64) * pixels)
        channel = place % channels if CHANNELS_LAST else place // pixels % channels
        value += tl.load(shift + case * channels + channel, mask=inside, other=0.0).to(tl.float32)
    if HAS_RESIDUAL:
        value += tl.load(residual + place, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + place, value.to(y.dtype.element_ty), mask=inside)


@triton.jit
def dilated_conv2d(
    x,
    weight,
    bias,
    shift,
    residual,
    out,
    rows,
    channels,
    outputs,
    height,
    width,
    DILATION: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_SHIFT: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Implicit GEMM: a row is an output pixel of a case, a column an output channel, the depth 9 taps of channels.

    x (B,H,W,C), weight (D,3,3,C), out and residual (B,H,W,D), shift (B,D), all dense.
    """
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    real_row, real_column = row < rows, column < outputs
    case = row // (height * width)
    line, place = row // width % height, row % width
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for tap in range(9):
        source_line = line + (tap // 3 - 1) * DILATION
        source_place = place + (tap % 3 - 1) * DILATION
        inside = (source_line >= 0) & (source_line < height) & (source_place >= 0) & (source_place < width) & real_row
        source = ((case * height + source_line).to(tl.int64) * width + source_place) * channels
        for begin in range(0, channels, BLOCK_K):
            depth = begin + tl.arange(0, BLOCK_K)
            real = depth < channels
            left = tl.load(x + source[:, None] + depth[None, :], mask=inside[:, None] & real[None, :], other=0.0)
            right = tl.load(
                weight + (column[None, :].to(tl.int64) * 9 + tap) * channels + depth[:, None],
                mask=real_column[None, :] & real[:, None],
                other=0.0,
            )
            total = tl.dot(left, right, total, input_precision=PRECISION)
    both = real_row[:, None] & real_column[None, :]
    target = row[:, None].to(tl.int64) * outputs + column[None, :]
    if HAS_BIAS:
        total += tl.load(bias + column, mask=real_column, other=0.0).to(tl.float32)[None, :]
    if HAS_SHIFT:
        total += tl.load(shift + case[:, None] * outputs + column[None, :], mask=both, other=0.0).to(tl.float32)
    if HAS_RESIDUAL:
        total += tl.load(residual + target, mask=both, other=0.0).to(tl.float32)
    tl.store(out + target, total.to(out.dtype.element_ty), mask=both)
