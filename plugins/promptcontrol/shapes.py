"""Size, place and form of lesions, measured from masks a batch at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

MEASURED = 128
"""Edge in pixels at which outlines are measured, whatever the size of the masks."""
PIXEL_VARIANCE = 1 / 12


@dataclass(frozen=True)
class Shapes:
    """Shapes of N lesions; lengths are shares of the image's edge. Values are NaN where a mask is empty.

    Attributes:
        area: (N,) share of the image.
        centre: (N, 2) horizontal and vertical place of the centroid, 0 to 1 from the upper left corner.
        elongation: (N,) ratio of the axes of the ellipse with the lesion's second moments, 1 or more.
        angle: (N,) direction of its long axis in radians, from the horizontal towards the lower edge.
        roughness: (N,) perimeter over that of the ellipse with the lesion's area and elongation, minus 1. What an
            image's edge cuts off counts as outline.
    """

    area: Tensor
    centre: Tensor
    elongation: Tensor
    angle: Tensor
    roughness: Tensor

    @property
    def eccentricity(self) -> Tensor:
        """(N,) eccentricity of the ellipse, 0 for a circle."""
        return (1 - self.elongation**-2).sqrt()

    @property
    def radius(self) -> Tensor:
        """(N,) radius of the disc with the lesion's area."""
        return (self.area / math.pi).sqrt()

    def table(self) -> Tensor:
        """Return the columns side by side, (N, 6)."""
        columns = (self.area, self.centre[:, 0], self.centre[:, 1], self.elongation, self.angle, self.roughness)
        return torch.stack(columns, dim=1)

    @classmethod
    def from_table(cls, table: Tensor) -> Shapes:
        """Take apart what :meth:`table` put together."""
        area, x, y, elongation, angle, roughness = table.unbind(1)
        return cls(area, torch.stack((x, y), dim=1), elongation, angle, roughness)


def measure(masks: Tensor) -> Shapes:
    """Measure masks (N, 1, S, S) of 0 and 1."""
    coarse = interpolate(masks.float(), size=(MEASURED, MEASURED), mode="area")[:, 0]
    pixels = coarse.sum((1, 2))
    weight = coarse / torch.where(pixels > 0, pixels, torch.nan)[:, None, None]
    place = torch.arange(MEASURED, device=masks.device) + 0.5
    columns, rows = weight.sum(1), weight.sum(2)
    centre = torch.stack(((columns * place).sum(1), (rows * place).sum(1)), dim=1)
    dx, dy = place - centre[:, :1], place - centre[:, 1:]
    xx = (columns * dx**2).sum(1) + PIXEL_VARIANCE
    yy = (rows * dy**2).sum(1) + PIXEL_VARIANCE
    xy = (weight * dy[:, :, None] * dx[:, None, :]).sum((1, 2))
    mean, spread = (xx + yy) / 2, ((xx - yy) ** 2 / 4 + xy**2).sqrt()
    elongation = ((mean + spread) / (mean - spread).clamp_min(PIXEL_VARIANCE)).sqrt()
    return Shapes(
        area=torch.where(pixels > 0, pixels / MEASURED**2, torch.nan),
        centre=centre / MEASURED,
        elongation=elongation,
        angle=torch.atan2(2 * xy, xx - yy) / 2,
        roughness=_perimeter(coarse) / _ellipse_perimeter(pixels, elongation) - 1,
    )


def _perimeter(masks: Tensor) -> Tensor:
    """Return (N,) lengths of the outlines of (N, S, S) masks: the total variation of a smoothed mask."""
    smooth = pad(masks, (3, 3, 3, 3))
    # Binomial weights by shifted sums: their bits do not depend on the size of the batch.
    for _ in range(2):
        smooth = (smooth[:, :-2] + 2 * smooth[:, 1:-1] + smooth[:, 2:]) / 4
        smooth = pad((smooth[:, :, :-2] + 2 * smooth[:, :, 1:-1] + smooth[:, :, 2:]) / 4, (1, 1, 1, 1))
    across = (smooth[:, 1:-1, 2:] - smooth[:, 1:-1, :-2]) / 2
    down = (smooth[:, 2:, 1:-1] - smooth[:, :-2, 1:-1]) / 2
    return (across**2 + down**2).sqrt().sum((1, 2))


def _ellipse_perimeter(area: Tensor, elongation: Tensor) -> Tensor:
    """Ramanujan's first approximation for the ellipse of this area and ratio of axes."""
    radius = (area / math.pi).sqrt()
    long, short = radius * elongation.sqrt(), radius / elongation.sqrt()
    return math.pi * (3 * (long + short) - ((3 * long + short) * (long + 3 * short)).sqrt())
