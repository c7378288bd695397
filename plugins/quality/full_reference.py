"""How near images are to their references: MSE, PSNR, SSIM and MS-SSIM of each pair, in float64.

Images are (N, 3, H, W) in [0, data_range]. Every score is the mean over the three channels' pixels, without
conversion to grey.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from ...core.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

WINDOW, SIGMA = 11, 1.5  # of Wang et al. 2004
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of Wang et al. 2003
SMALLEST_MULTISCALE = (WINDOW - 1) * 2 ** (len(SCALE_WEIGHTS) - 1) + 1


def mse(first: Tensor, second: Tensor, data_range: float) -> Tensor:
    """Return (N,) mean squared differences, in units of the squared ``data_range``."""
    return (first.double() - second.double()).square().mean((1, 2, 3))


def psnr(first: Tensor, second: Tensor, data_range: float) -> Tensor:
    """Return (N,) 10 log10(data_range^2 / MSE) in dB; infinite for equal images."""
    return 10 * torch.log10(data_range**2 / mse(first, second, data_range))


def ssim(first: Tensor, second: Tensor, data_range: float) -> Tensor:
    """Return (N,) mean structural similarities under an 11x11 Gaussian window, sigma 1.5, K = (0.01, 0.03).

    Wang et al., Image Quality Assessment (2004), eq. 13; only windows that lie whole in the image count.

    Raises:
        DataError: an edge is shorter than the window.
    """
    _check_size(first, WINDOW, "SSIM")
    luminance, contrast = _similarities(first.double(), second.double(), data_range)
    return (luminance * contrast).mean((1, 2, 3))


def ms_ssim(first: Tensor, second: Tensor, data_range: float) -> Tensor:
    """Return (N,) structural similarities over five scales, each half the size of the one before.

    Wang et al., Multi-Scale Structural Similarity (2003), eq. 7 with its weights. A negative factor counts as 0, since
    it has no real power.

    Raises:
        DataError: an edge has less than 161 pixels.
    """
    _check_size(first, SMALLEST_MULTISCALE, "MS-SSIM")
    first, second = first.double(), second.double()
    product = first.new_ones(len(first))
    for scale, weight in enumerate(SCALE_WEIGHTS, 1):
        luminance, contrast = _similarities(first, second, data_range)
        factor = contrast if scale < len(SCALE_WEIGHTS) else luminance * contrast
        product = product * factor.mean((1, 2, 3)).clamp_min(0) ** weight
        first, second = (functional.avg_pool2d(images, 2) for images in (first, second))
    return product


def _similarities(first: Tensor, second: Tensor, data_range: float) -> tuple[Tensor, Tensor]:
    """Return (N, 3, H - 10, W - 10) similarities of luminance, and of contrast and structure together."""
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    moments = torch.stack([first, second, first * first, second * second, first * second])
    mean_a, mean_b, square_a, square_b, product = _windowed(moments.flatten(0, 1)).unflatten(0, moments.shape[:2])
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    variances = square_a - mean_a**2 + square_b - mean_b**2
    return luminance, (2 * (product - mean_a * mean_b) + c2) / (variances + c2)


def _windowed(images: Tensor) -> Tensor:
    """Return the Gaussian-weighted means of all whole windows."""
    offsets = torch.arange(WINDOW, dtype=images.dtype, device=images.device) - WINDOW // 2
    window = (-0.5 * (offsets / SIGMA) ** 2).exp()
    window = (window / window.sum()).expand(images.shape[1], 1, -1)
    rows = functional.conv2d(images, window[:, :, :, None], groups=images.shape[1])
    return functional.conv2d(rows, window[:, :, None, :], groups=images.shape[1])


def _check_size(images: Tensor, smallest: int, name: str) -> None:
    height, width = images.shape[2:]
    if min(height, width) < smallest:
        raise DataError(f"{name} needs images of at least {smallest}x{smallest} pixels, not {width}x{height}")
