"""Gaussian smoothing of image batches."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """Blur (N, C, H, W) with a Gaussian of standard deviation ``sigma`` pixels; the outermost pixels are repeated."""
    reach = math.ceil(3 * sigma)
    offsets = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    weights = (-(offsets**2) / (2 * sigma**2)).exp()
    weights = (weights / weights.sum()).expand(images.shape[1], 1, -1)
    padded = pad(images, (reach,) * 4, mode="replicate")
    across = conv2d(padded, weights[:, :, None, :], groups=images.shape[1])
    return conv2d(across, weights[:, :, :, None], groups=images.shape[1])
