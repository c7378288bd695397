"""Mask extraction in plain torch, batched: the definition of every mask, on any device with float64.

It is also the fastest we know in plain torch: pooling for morphology, pointer jumping for components.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .ellipse import half_widths


def why_not(*tensors: Tensor) -> str | None:
    for tensor in tensors:
        if tensor.device.type == "mps":
            return "it computes in float64, which mps lacks"
    return None


def otsu_threshold(maps: Tensor, bins: int) -> Tensor:
    """(N, 1, H, W) uint8 or float32 -> (N,) of its dtype."""
    if maps.dtype == torch.uint8:
        return otsu_level(maps).to(torch.uint8)
    scaled, finite = stretched(maps, bins - 1)
    background = rounded(scaled) <= otsu_level(rounded(scaled))[:, None, None, None]
    values = maps.masked_fill(~background, -torch.inf).flatten(1).amax(1)
    return values.masked_fill(~finite, torch.nan)


def extract_masks(maps: Tensor, size: int, closing: int, largest_component: bool, taps: list[float]) -> Tensor:
    """(N, 1, h, w) uint8 or float32 -> (N, 1, size, size) float32 of 0 and 1."""
    levels = extract_levels(maps, size, taps)
    return _cleaned(levels > otsu_level(levels)[:, None, None, None], closing, largest_component)


def clean_masks(masks: Tensor, closing: int, largest_component: bool) -> Tensor:
    """(N, 1, H, W) uint8, 0 outside -> (N, 1, H, W) float32 of 0 and 1."""
    return _cleaned(masks != 0, closing, largest_component)


def _cleaned(masks: Tensor, closing: int, largest_component: bool) -> Tensor:
    if closing:
        masks = closed(masks, closing)
    return (largest(masks) if largest_component else masks).float()


def extract_levels(maps: Tensor, size: int, taps: list[float]) -> Tensor:
    """(N, 1, size, size) uint8: stretched, resized, smoothed, rounded. Maps that are not finite are 0 throughout."""
    scaled = maps.float() if maps.dtype == torch.uint8 else stretched(maps, 255)[0]
    return rounded(smoothed(resized(scaled, size), taps))


def stretched(maps: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """Each map's own range mapped to [0, top], and which (N,) maps are finite; the others, and constants, become 0."""
    if not len(maps):
        return maps, maps.new_empty(0, dtype=torch.bool)
    low, high = maps.amin((1, 2, 3), keepdim=True), maps.amax((1, 2, 3), keepdim=True)
    span = high - low
    finite = torch.isfinite(span)
    scaled = torch.where(finite & (span > 0), (maps - low) / span * top, 0.0)
    return scaled, finite.flatten()


def rounded(levels: Tensor) -> Tensor:
    return (levels + 0.5).to(torch.uint8)


def resized(maps: Tensor, size: int) -> Tensor:
    """Bilinear, columns first; written out since the library's rounding differs from device to device."""
    for axis in (-1, -2):
        length = maps.shape[axis]
        place = torch.arange(size, dtype=torch.float64, device=maps.device)
        place = ((place + 0.5) * (length / size) - 0.5).clamp(0, length - 1)
        before = place.floor().long()
        weight = (place - before).float()
        first = maps.index_select(axis, before)
        step = maps.index_select(axis, (before + 1).clamp(max=length - 1)) - first
        maps = first + step * (weight if axis == -1 else weight[:, None])
    return maps


def smoothed(maps: Tensor, taps: list[float]) -> Tensor:
    """Columns first, taps added in order; mirrored at the border without repeating it, as OpenCV does by default."""
    for axis in (-1, -2) if taps else ():
        length, radius = maps.shape[axis], len(taps) // 2
        total = torch.zeros_like(maps)
        for shift, tap in enumerate(taps, start=-radius):
            place = mirrored(torch.arange(length, device=maps.device) + shift, length)
            total = total + maps.index_select(axis, place) * tap
        maps = total
    return maps


def mirrored(place: Tensor, length: int) -> Tensor:
    period = max(2 * (length - 1), 1)
    place = place % period
    return torch.minimum(place, period - place).clamp(max=length - 1)


def otsu_level(levels: Tensor) -> Tensor:
    """(N,) int64 thresholds of (N, 1, H, W) uint8 levels."""
    flat = levels.flatten(1).long()
    counts = flat.new_zeros(len(flat), 256).scatter_add_(1, flat, torch.ones_like(flat))
    below = counts.cumsum(1)
    sums = (counts * torch.arange(256, device=flat.device)).cumsum(1)
    difference = (below[:, -1:] * sums - below * sums[:, -1:]).double()
    weights = below.double() * (below[:, -1:] - below).double()
    between = torch.where(weights > 0, difference * difference / weights, -1.0)
    constant = (counts > 0).sum(1) == 1
    return torch.where(constant, flat[:, 0], between.argmax(1))


def closed(masks: Tensor, diameter: int) -> Tensor:
    return ~dilated(~dilated(masks, diameter), diameter)


def dilated(masks: Tensor, diameter: int) -> Tensor:
    """Union of the rows of the element: each a horizontal pooling, shifted."""
    height, radius = masks.shape[-2], diameter // 2
    grown = torch.zeros_like(masks)
    widths = half_widths(diameter)
    for width in sorted(set(widths)):
        row = F.max_pool2d(masks.float(), (1, 2 * width + 1), stride=1, padding=(0, width)) > 0
        for shift in (i - radius for i, other in enumerate(widths) if other == width):
            if abs(shift) < height:
                up, down = max(shift, 0), max(-shift, 0)
                grown[:, :, down : height - up] |= row[:, :, up : height - down]
    return grown


def largest(masks: Tensor) -> Tensor:
    """The largest 8-connected component of each mask; of equal ones the first, row by row."""
    if not len(masks):
        return masks
    roots = components(masks)
    pixels = masks[0].numel()
    sizes = torch.zeros(len(masks) * pixels, dtype=torch.int64, device=masks.device)
    sizes.scatter_add_(0, roots[masks], torch.ones_like(roots[masks]))
    best = sizes.view(len(masks), pixels).argmax(1) + torch.arange(len(masks), device=masks.device) * pixels
    return masks & (roots == best[:, None, None, None])


def components(masks: Tensor) -> Tensor:
    """(N, 1, H, W) int64: at each pixel the flat number, over the batch, of its component's first pixel."""
    nothing = masks.numel()
    numbers = torch.arange(nothing, device=masks.device).view(masks.shape)
    # A run of a row starts as one label, which spares rounds.
    starts = masks & ~F.pad(masks, (1, 0))[..., :-1]
    labels = torch.where(masks, torch.where(starts, numbers, 0).flatten().cummax(0).values.view(masks.shape), nothing)
    parents = torch.arange(nothing + 1, device=masks.device)
    while True:
        lowest = torch.where(masks, lowest_around(labels, nothing), nothing)
        if torch.equal(lowest, labels):
            return labels
        parents.scatter_reduce_(0, labels.flatten(), lowest.flatten(), "amin")
        while not torch.equal(parents, jumped := parents[parents]):
            parents = jumped
        labels = parents[labels]


def lowest_around(labels: Tensor, nothing: int) -> Tensor:
    """Minimum over each 3 x 3 neighbourhood."""
    padded = F.pad(labels, (1, 1, 1, 1), value=nothing)
    across = torch.minimum(torch.minimum(padded[..., :-2], padded[..., 1:-1]), padded[..., 2:])
    return torch.minimum(torch.minimum(across[..., :-2, :], across[..., 1:-1, :]), across[..., 2:, :])
