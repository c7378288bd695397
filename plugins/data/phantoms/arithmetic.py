"""Arithmetic on phantoms that gives a case the same bits in any batch.

Everything here is elementwise and uses only operations that IEEE 754 rounds exactly: +, -, *, /, sqrt, floor,
comparisons. sin, exp or pow may differ in the last bit between a vector register and its tail, and a library's
reduction between batch shapes.
"""

from __future__ import annotations

import torch
from torch import Tensor


def pixel_centres(size: int, device: torch.device) -> Tensor:
    """Return (size,) coordinates of pixel centres; the image spans [-1, 1], so lengths are in half image edges."""
    return (2 * torch.arange(size, device=device, dtype=torch.float32) + 1) / size - 1


def smoothstep(low: float | Tensor, high: float | Tensor, value: Tensor) -> Tensor:
    """Return the cubic that rises from 0 at ``low`` to 1 at ``high``."""
    t = ((value - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def bump(squared: Tensor) -> Tensor:
    """Return (1 - squared)^2 inside the unit disc, 0 outside, for squared distances from its centre."""
    t = (1 - squared).clamp(min=0)
    return t * t


def coverage(distance: Tensor, half_width: float | Tensor, pitch: float) -> Tensor:
    """Return how much of a pixel of edge ``pitch`` a line covers whose axis is ``distance`` away, in [0, 1]."""
    reach = torch.minimum(distance + pitch / 2, torch.as_tensor(half_width, device=distance.device))
    start = torch.maximum(distance - pitch / 2, -torch.as_tensor(half_width, device=distance.device))
    return (reach - start).clamp(min=0) / pitch


def decay(density: Tensor) -> Tensor:
    """Return exp(-density) within 1e-3 for densities above -0.5: the eighth power of a rational approximation."""
    step = density / 8
    t = 1 / (1 + step + step * step * (0.5 + step / 6))
    t = t * t
    t = t * t
    return t * t


def tree_sum(values: Tensor) -> Tensor:
    """Return the sum over the last axis, whose length is a power of two, in an order that no batch shape changes."""
    while values.shape[-1] > 1:
        half = values.shape[-1] // 2
        values = values[..., :half] + values[..., half:]
    return values[..., 0]


def box_mean(image: Tensor, factor: int) -> Tensor:
    """Return (..., H, W) averaged over squares of ``factor`` pixels, summed in a fixed order."""
    rows = image[..., 0::factor, :]
    for offset in range(1, factor):
        rows = rows + image[..., offset::factor, :]
    total = rows[..., 0::factor]
    for offset in range(1, factor):
        total = total + rows[..., offset::factor]
    return total / factor**2


def soft_blur(image: Tensor, radius: Tensor, limit: int) -> Tensor:
    """Return (N, C, H, W) blurred by a separable bump of ``radius`` (N, 1, 1, 1) pixels, at most ``limit`` pixels."""
    for axis in (-2, -1):
        total, weights = image, torch.ones_like(radius)
        edge = image.shape[axis]
        positions = torch.arange(edge, device=image.device)
        for offset in range(1, limit + 1):
            weight = bump((offset * offset) / (radius * radius))
            before = image.index_select(axis, (positions - offset).clamp(min=0))
            after = image.index_select(axis, (positions + offset).clamp(max=edge - 1))
            total, weights = total + weight * (before + after), weights + 2 * weight
        image = total / weights
    return image
