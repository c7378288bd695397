"""Lesion masks drawn a batch at a time: deformed ellipses, and real masks moved and deformed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from ...kernels import clean_masks, seeded_normal
from .shapes import Shapes, measure

REACH = 3.0
"""Radii from the lesion's centre up to which it is deformed; the field goes on unchanged beyond."""
LATTICES = (6, 12, 24, 48)
"""Points along the field's edge at which each octave of the deformation is drawn, coarse to fine."""


@dataclass(frozen=True)
class Finish:
    """What is done to every mask: Gaussian blur with threshold one half, opening, closing, the largest component.

    Widths are shares of the image's edge: the blur's standard deviation and the ellipses' diameters; 0 is none.
    """

    smoothing: float
    opening: float
    closing: float

    def __call__(self, masks: Tensor) -> Tensor:
        """Return masks (N, 1, S, S) of 0 and 1, each with one 8-connected component, or none."""
        size = masks.shape[-1]
        if self.smoothing:
            masks = (blurred(masks, self.smoothing * size) > 0.5).float()
        if self.opening:
            # Opening is closing of the ground.
            masks = 1 - clean_masks(1 - masks, closing=odd(self.opening * size), largest_component=False)
        return clean_masks(masks, closing=odd(self.closing * size) if self.closing else 0)


def odd(width: float) -> int:
    """Return the odd number of pixels that is nearest to ``width``."""
    return 2 * round((max(width, 1.0) - 1) / 2) + 1


def blurred(masks: Tensor, deviation: float) -> Tensor:
    """Blur (N, 1, S, S) by a Gaussian of ``deviation`` pixels, cut at four; what lies at the edge goes on beyond it."""
    reach = math.ceil(4 * deviation)
    shifts = torch.arange(-reach, reach + 1, device=masks.device)
    weights = torch.softmax(-(shifts**2) / (2 * deviation**2), dim=0)
    size = masks.shape[-1]
    places = (torch.arange(size, device=masks.device)[:, None] + shifts).clamp(0, size - 1)
    smear = masks.new_zeros(size, size).scatter_add_(1, places, weights.expand(size, -1).to(masks.dtype))
    return smear @ masks @ smear.T


def deformation_fields(seeds: Sequence[int], falloff: Tensor, *, stream: int, step: int) -> Tensor:
    """Return smooth random displacements (N, 2, L, L) of unit variance or so, each case's from its own seed.

    Args:
        falloff: (N,) amplitude of each octave over that of the octave twice as coarse.
    """
    sizes = [2 * points**2 for points in LATTICES]
    noise = seeded_normal(seeds, (sum(sizes),), stream=stream, step=step, device=falloff.device).split(sizes, dim=1)
    finest = LATTICES[-1]
    fields = torch.zeros(len(seeds), 2, finest, finest, device=falloff.device)
    for octave, (points, values) in enumerate(zip(LATTICES, noise, strict=True)):
        lattice = values.view(-1, 2, points, points)
        amplitude = (falloff / 2) ** octave
        fields = fields + amplitude[:, None, None, None] * interpolate(lattice, size=(finest, finest), mode="bicubic")
    return fields


def draw(shapes: Shapes, strength: Tensor, fields: Tensor, size: int, finish: Finish) -> Tensor:
    """Draw ellipses with the area, centre, elongation and angle of ``shapes``, deformed; (N, 1, size, size).

    A pixel belongs to the lesion if the deformation takes it into the ellipse. The ellipse is grown or shrunk until the
    lesion covers its area within the image, whatever the deformation moves and the image's edge cuts off.

    Args:
        strength: (N,) deformation in radii of the lesion's disc.
        fields: see :func:`deformation_fields`.
    """
    offset = _pixels(size, fields.device) - shapes.centre[:, None, None]
    offset = offset / shapes.radius[:, None, None, None]
    moved = offset + strength[:, None, None, None] * _sampled(fields, offset)
    cos, sin = shapes.angle.cos()[:, None, None], shapes.angle.sin()[:, None, None]
    long = (cos * moved[..., 0] + sin * moved[..., 1]) / shapes.elongation.sqrt()[:, None, None]
    short = (cos * moved[..., 1] - sin * moved[..., 0]) * shapes.elongation.sqrt()[:, None, None]
    distance = (long**2 + short**2).flatten(1)
    count = (shapes.area * size**2).round().long().clamp(1, size**2)
    level = distance.sort(dim=1).values.gather(1, count[:, None] - 1)
    return finish((distance <= level).float().view(-1, 1, size, size))


def transform(masks: Tensor, scale: Tensor, turn: Tensor, strength: Tensor, fields: Tensor, finish: Finish) -> Tensor:
    """Resize, turn and deform masks (N, 1, S, S) about their centroids, which stay in place.

    What an image's edge cuts off goes on beyond it as it is at the edge.

    Args:
        scale: (N,) factor on lengths.
        turn: (N,) angle in radians.
        strength, fields: as for :func:`draw`.
    """
    shapes = measure(masks)
    offset = _pixels(masks.shape[-1], masks.device) - shapes.centre[:, None, None]
    radius = (scale * shapes.radius)[:, None, None, None]
    moved = offset + radius * strength[:, None, None, None] * _sampled(fields, offset / radius)
    cos, sin = (turn.cos() / scale)[:, None, None], (turn.sin() / scale)[:, None, None]
    turned = torch.stack((cos * moved[..., 0] + sin * moved[..., 1], cos * moved[..., 1] - sin * moved[..., 0]), dim=-1)
    grid = 2 * (turned + shapes.centre[:, None, None]) - 1
    return finish((grid_sample(masks, grid, padding_mode="border", align_corners=False) > 0.5).float())


def _pixels(size: int, device: torch.device) -> Tensor:
    """Return the pixels' centres (size, size, 2) as x and y from 0 to 1."""
    place = (torch.arange(size, device=device) + 0.5) / size
    return torch.stack(torch.meshgrid(place, place, indexing="xy"), dim=-1)


def _sampled(fields: Tensor, offset: Tensor) -> Tensor:
    """Return displacements (N, S, S, 2) at ``offset`` radii from the lesions' centres."""
    sampled = grid_sample(fields, offset / REACH, mode="bicubic", padding_mode="border", align_corners=False)
    return sampled.permute(0, 2, 3, 1)
