"""Binary masks from soft maps: Otsu's threshold, closing, largest component; a batch at a time, where it lies.

A map is worked on in 256 levels. Bytes are their own levels. A floating-point map is stretched over its own range,

    level = (x - min) / (max - min) * 255,   rounded half up after resizing and smoothing, all in float32,

as DiDGen does before thresholding attention maps. From the levels on everything is exact and equal on every backend:

    threshold   the smallest level t that maximises (n S(t) - n(t) S)^2 / (n(t) (n - n(t))), n(t) and S(t) the count
                and sum of the levels <= t, in integers up to the square; foreground lies above t     (Otsu, eq. 18)
    closing     dilation, then erosion, by OpenCV's elliptical element; what lies outside the image is ignored
    component   of 8-connected components the largest; of equal ones that whose first pixel, row by row, comes first

A constant map has nothing above its threshold, and a map with a NaN or an infinity has no threshold (NaN): both give
empty masks. Masks have no gradient.

Source: Otsu: "A threshold selection method from gray-level histograms", IEEE Trans. SMC 9(1), 1979.
"""

from __future__ import annotations

import math
import operator

import torch
from torch import Tensor

from .. import native
from ..cuda import why_not as why_not_cuda
from ..dispatch import Backend, Op, unmeasured
from . import cpu, cuda, reference

__all__ = ["OPS", "clean_masks", "extract_masks", "otsu_threshold"]

MAX_SIZE = 8192  # beyond it the exact sums of Otsu's criterion would leave 64 bits


def _probe_maps(device: str) -> Tensor:
    """Soft discs with a ripple, from constants alone: what diagnostics compare backends on."""
    axis = torch.linspace(-1, 1, 40, device=device)
    radius = (axis[:, None] ** 2 + axis**2).sqrt()
    centres = torch.tensor([0.3, 0.5, 0.7], device=device)
    return torch.sigmoid((centres[:, None, None] - radius) * 9 + torch.sin(31 * axis))[:, None]


_threshold = Op(
    "otsu_threshold",
    Backend("cpu", cpu.otsu_threshold, native.why_not),
    Backend("cuda", cuda.otsu_threshold, why_not_cuda, unmeasured),
    Backend("reference", reference.otsu_threshold, reference.why_not),
    probe=lambda device: (_probe_maps(device), 256),
)
_masks = Op(
    "extract_masks",
    Backend("cpu", cpu.extract_masks, native.why_not),
    Backend("cuda", cuda.extract_masks, why_not_cuda, unmeasured),
    Backend("reference", reference.extract_masks, reference.why_not),
    probe=lambda device: (_probe_maps(device), 97, 5, True, [0.25, 0.5, 0.25]),
)
_clean = Op(
    "clean_masks",
    Backend("cpu", cpu.clean_masks, native.why_not),
    Backend("cuda", cuda.clean_masks, why_not_cuda, unmeasured),
    Backend("reference", reference.clean_masks, reference.why_not),
    probe=lambda device: ((_probe_maps(device) > 0.5).byte(), 5, True),
)
OPS = (_threshold, _masks, _clean)


def otsu_threshold(maps: Tensor, *, bins: int = 256, backend: str = "auto") -> Tensor:
    """Otsu's threshold of each map: (N, 1, H, W) or (N, H, W) -> (N,); `maps > threshold` is the foreground.

    It is the largest value of the background, and so a value of the map. Bytes give bytes; floating-point maps, taken
    as float32, are sorted into `bins` levels over their own range and give float32: NaN where a map is not finite.
    Raises TypeError for another dtype, ValueError for another shape or bins outside [2, 256] (256 alone for bytes),
    BackendUnavailable if `backend` cannot serve.
    """
    maps = _checked_maps(maps)
    if not 2 <= operator.index(bins) <= 256:
        raise ValueError(f"bins must be in [2, 256], not {bins}")
    if maps.dtype == torch.uint8 and bins != 256:
        raise ValueError(f"maps of bytes have 256 levels; bins must be 256, not {bins}")
    return _otsu_threshold(maps, bins, backend)


def extract_masks(
    soft_masks: Tensor,
    size: int,
    *,
    closing: int = 5,
    largest_component: bool = True,
    smoothing: float = 0.0,
    backend: str = "auto",
) -> Tensor:
    """Binary masks of soft masks: (N, 1, h, w) or (N, h, w) -> (N, 1, size, size), float32 of 0 and 1.

    In this order: stretch to [0, 255], resize bilinearly (half-pixel centres, no antialiasing), smooth by a Gaussian of
    standard deviation `smoothing` pixels (0: not; cut at 4 deviations, mirrored at the border), round to levels,
    threshold by Otsu, close by an ellipse of `closing` pixels across (odd; 0: not), keep the largest component. DiDGen
    resizes, thresholds and closes but names no size; size, component and smoothing are our choice.
    Raises TypeError for a dtype that is neither uint8 nor floating point, ValueError for another shape, `size` outside
    [1, 8192], an even or negative `closing`, a `smoothing` that is negative or above 1000, BackendUnavailable if
    `backend` cannot serve.
    """
    maps = _checked_maps(soft_masks)
    if not 1 <= operator.index(size) <= MAX_SIZE:
        raise ValueError(f"size must be in [1, {MAX_SIZE}], not {size}")
    _check_closing(closing)
    if not 0 <= smoothing <= 1000:
        raise ValueError(f"smoothing must be in [0, 1000] pixels, not {smoothing}")
    return _extract_masks(maps, size, closing, largest_component, _gaussian(smoothing), backend)


def clean_masks(masks: Tensor, *, closing: int = 5, largest_component: bool = True, backend: str = "auto") -> Tensor:
    """Closes binary masks and keeps the largest component of each: (N, 1, H, W) or (N, H, W) -> the same, of 0 and 1.

    What is not 0 is inside; the dtype is kept. `closing` and `largest_component` are those of `extract_masks`.
    Raises TypeError for a dtype that is neither bool, uint8 nor floating point, ValueError for another shape or an even
    or negative `closing`, BackendUnavailable if `backend` cannot serve.
    """
    if masks.dtype not in (torch.bool, torch.uint8) and not masks.dtype.is_floating_point:
        raise TypeError(f"masks must be bool, uint8 or floating point, not {masks.dtype}")
    _check_closing(closing)
    made = _clean_masks(_batched((masks.detach() != 0).byte()), closing, largest_component, backend)
    return made.to(masks.dtype).reshape(masks.shape)


@torch.library.custom_op("lesionforge::otsu_threshold", mutates_args=())
def _otsu_threshold(maps: Tensor, bins: int, backend: str) -> Tensor:
    return _threshold.choose(backend, maps).run(maps, bins)


@_otsu_threshold.register_fake
def _(maps: Tensor, bins: int, backend: str) -> Tensor:
    return maps.new_empty(maps.shape[0])


@torch.library.custom_op("lesionforge::extract_masks", mutates_args=())
def _extract_masks(
    maps: Tensor, size: int, closing: int, largest_component: bool, taps: list[float], backend: str
) -> Tensor:
    return _masks.choose(backend, maps).run(maps, size, closing, largest_component, taps)


@_extract_masks.register_fake
def _(maps: Tensor, size: int, closing: int, largest_component: bool, taps: list[float], backend: str) -> Tensor:
    return maps.new_empty((maps.shape[0], 1, size, size), dtype=torch.float32)


@torch.library.custom_op("lesionforge::clean_masks", mutates_args=())
def _clean_masks(masks: Tensor, closing: int, largest_component: bool, backend: str) -> Tensor:
    return _clean.choose(backend, masks).run(masks, closing, largest_component)


@_clean_masks.register_fake
def _(masks: Tensor, closing: int, largest_component: bool, backend: str) -> Tensor:
    return masks.new_empty(masks.shape, dtype=torch.float32)


def _checked_maps(maps: Tensor) -> Tensor:
    """(N, 1, H, W), uint8 or float32, cut off from the graph."""
    if maps.dtype != torch.uint8 and not maps.dtype.is_floating_point:
        raise TypeError(f"maps must be uint8 or floating point, not {maps.dtype}")
    maps = _batched(maps)
    return maps.detach() if maps.dtype == torch.uint8 else maps.detach().float()


def _check_closing(closing: int) -> None:
    if operator.index(closing) < 0 or (closing and closing % 2 == 0) or closing > MAX_SIZE:
        raise ValueError(f"closing must be 0 or an odd number of pixels up to {MAX_SIZE}, not {closing}")


def _batched(maps: Tensor) -> Tensor:
    """(N, 1, H, W)."""
    if maps.ndim == 3:
        maps = maps[:, None]
    if maps.ndim != 4 or maps.shape[1] != 1:
        raise ValueError(f"maps must have shape (N, 1, H, W) or (N, H, W), not {tuple(maps.shape)}")
    if not (1 <= maps.shape[2] <= MAX_SIZE and 1 <= maps.shape[3] <= MAX_SIZE):
        raise ValueError(f"maps must measure 1 to {MAX_SIZE} pixels a side, not {maps.shape[2]} x {maps.shape[3]}")
    return maps


def _gaussian(deviation: float) -> list[float]:
    """Taps of a Gaussian cut at four deviations, as SciPy and scikit-image cut it; none without smoothing."""
    radius = int(4 * deviation + 0.5)
    if radius == 0:
        return []
    weights = [math.exp(-0.5 * (x / deviation) ** 2) for x in range(-radius, radius + 1)]
    total = math.fsum(weights)
    return [weight / total for weight in weights]
