"""Shape of lesions from their masks: asymmetry, elongation and irregularity of the border, a batch at a time.

A mask is first drawn in a frame of its own, centred on the lesion, turned and scaled to it, so that asymmetry and
irregularity depend neither on where the lesion lies nor on how large it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from .smoothing import gaussian_blur

FRAME = 96
"""Edge in pixels of the lesion's own frame."""
REACH = 2.5
"""Half its edge in radii, the radius being that of a disc of the lesion's area."""
BLUR = 1.5
"""Standard deviation in frame pixels (0.08 radii), below which a border's teeth are taken for the annotator's."""
AXES = 12
"""Pairs of perpendicular axes that are tried, beginning with those of the lesion's second moments."""


@dataclass(frozen=True)
class Shape:
    """Shape of N lesions; NaN where the mask is empty.

    Attributes:
        area: (N,) share of the image.
        centre: (N, 2) horizontal and vertical place of the centroid, 0 to 1 from the upper left corner.
        edge: (N,) share of the image's outermost pixels that is lesion.
        elongation: (N,) ratio of the axes of the ellipse with the lesion's second moments, 1 or more.
        asymmetry: (N, 2) share of the lesion that folding leaves uncovered, along the better and the worse axis of
            the most symmetric pair of perpendicular axes (ABCD rule; Nachbar et al. 1994).
        irregularity: (N,) perimeter over that of the ellipse of same area and elongation, minus 1.
    """

    area: Tensor
    centre: Tensor
    edge: Tensor
    elongation: Tensor
    asymmetry: Tensor
    irregularity: Tensor


def measure_shape(masks: Tensor) -> Shape:
    """Measure (N, 1, H, W) masks of 0 and 1."""
    lesion = masks[:, 0]
    height, width = lesion.shape[1:]
    pixels = lesion.sum((1, 2))
    weight = lesion / torch.where(pixels > 0, pixels, torch.nan)[:, None, None]
    y = torch.arange(height, device=masks.device, dtype=masks.dtype) + 0.5
    x = torch.arange(width, device=masks.device, dtype=masks.dtype) + 0.5
    rows, columns = weight.sum(2), weight.sum(1)
    centre = torch.stack([(columns * x).sum(1), (rows * y).sum(1)], 1)
    dx, dy = x - centre[:, :1], y - centre[:, 1:]
    xx, yy, xy = (columns * dx**2).sum(1), (rows * dy**2).sum(1), torch.einsum("nhw,nh,nw->n", weight, dy, dx)
    elongation = _axis_ratio(xx, yy, xy)
    framed = _own_frame(masks, centre, (pixels / math.pi).sqrt(), torch.atan2(2 * xy, xx - yy) / 2)
    outer = torch.cat([lesion[:, 0], lesion[:, -1], lesion[:, 1:-1, 0], lesion[:, 1:-1, -1]], 1)
    found = Shape(
        area=pixels / (height * width),
        centre=centre / centre.new_tensor([width, height]),
        edge=outer.mean(1),
        elongation=elongation,
        asymmetry=_asymmetry(framed),
        irregularity=_perimeter(framed) / _ellipse_perimeter(framed.sum((1, 2, 3)), elongation) - 1,
    )
    return _only_where(pixels > 0, found)


def _axis_ratio(xx: Tensor, yy: Tensor, xy: Tensor) -> Tensor:
    # A pixel is a square of variance 1/12 itself: without it a line of pixels would have no width.
    mean, difference = (xx + yy) / 2 + 1 / 12, ((xx - yy) ** 2 / 4 + xy**2).sqrt()
    return ((mean + difference) / (mean - difference).clamp_min(1 / 12)).sqrt()


def _own_frame(masks: Tensor, centre: Tensor, radius: Tensor, angle: Tensor) -> Tensor:
    """Return (N, 1, FRAME, FRAME) masks, each in its lesion's own frame, the long axis lying across."""
    size = centre.new_tensor([masks.shape[3], masks.shape[2]])
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(-1, 2, 2)
    scaled = turn * (2 * REACH * radius)[:, None, None] / size[:, None]
    affine = torch.cat([scaled, (2 * centre / size - 1)[:, :, None]], 2)
    grid = affine_grid(affine.nan_to_num(), [len(masks), 1, FRAME, FRAME], align_corners=False)
    return grid_sample(masks, grid, align_corners=False)


def _asymmetry(framed: Tensor) -> Tensor:
    """Return the two shares (N, 2) that folding along the best pair of axes leaves uncovered."""
    angles = torch.arange(2 * AXES, device=framed.device, dtype=framed.dtype) * (math.pi / (2 * AXES))
    cos, sin, zero = (2 * angles).cos(), (2 * angles).sin(), torch.zeros_like(angles)
    mirrors = torch.stack([torch.stack([cos, sin, zero], 1), torch.stack([sin, -cos, zero], 1)], 1)
    count = len(framed)
    grid = affine_grid(mirrors, [2 * AXES, 1, FRAME, FRAME], align_corners=False)
    # The axes become rows of one tall grid, so that the lesions need not be copied.
    tall = grid.view(1, 2 * AXES * FRAME, FRAME, 2).expand(count, -1, -1, -1)
    folded = grid_sample(framed, tall, align_corners=False).view(count, 2 * AXES, FRAME, FRAME)
    uncovered = (folded - framed).abs().sum((2, 3)) / (2 * framed.sum((1, 2, 3)))[:, None]
    pairs = torch.stack([uncovered[:, :AXES], uncovered[:, AXES:]], 2)
    best = pairs.sum(2).nan_to_num().argmin(1)
    return pairs[torch.arange(count, device=framed.device), best].sort(1).values


def _perimeter(framed: Tensor) -> Tensor:
    """Return the (N,) lengths of the smoothed outlines: the total variation of a mask is its perimeter."""
    smooth = gaussian_blur(framed, BLUR)
    across = (smooth[:, 0, 1:-1, 2:] - smooth[:, 0, 1:-1, :-2]) / 2
    down = (smooth[:, 0, 2:, 1:-1] - smooth[:, 0, :-2, 1:-1]) / 2
    return (across**2 + down**2).sqrt().sum((1, 2))


def _ellipse_perimeter(area: Tensor, elongation: Tensor) -> Tensor:
    """Ramanujan's first approximation for the ellipse of this area and ratio of axes."""
    radius = (area / math.pi).sqrt()
    long, short = radius * elongation.sqrt(), radius / elongation.sqrt()
    return math.pi * (3 * (long + short) - ((3 * long + short) * (long + 3 * short)).sqrt())


def _only_where(present: Tensor, shape: Shape) -> Shape:
    columns = {}
    for name, column in vars(shape).items():
        keep = present if column.ndim == 1 else present[:, None]
        columns[name] = torch.where(keep, column, torch.nan)
    return Shape(**columns)
