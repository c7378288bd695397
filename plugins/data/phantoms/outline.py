"""Outlines of phantom lesions: random star-shaped curves whose share of the image is exactly the one asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .arithmetic import bump, tree_sum
from .noise import Dice

KNOTS = 256
SLOW_WAVES = (2, 3, 4, 5)
FAST_WAVES = (7, 9, 11, 14, 17)
NOTCHES = 2
BISECTIONS = 28


@dataclass(frozen=True)
class Outline:
    """Star-shaped outlines of N lesions around a centre inside the image, hence one connected component each.

    Lengths are in half image edges.

    Attributes:
        centre: x and y, (N, 1, 1) each.
        radius: (N, 1, 1) radius of the mean outline, the unit of lengths within the lesion.
        knots: (N, KNOTS, 3) at equal steps of the diamond angle: outline radius, slope factor that turns a radial
            distance into one normal to the outline, and relative softness of the edge.
    """

    centre: tuple[Tensor, Tensor]
    radius: Tensor
    knots: Tensor

    def distance(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return (N, H, W) distance to the outline, to first order and negative inside, and relative softness."""
        dx, dy = x - self.centre[0], y - self.centre[1]
        place = diamond_angle(dx, dy) * (KNOTS / 4)
        low = place.floor()
        index = low.to(torch.int64)
        radius, slope, softness = self._between(index & (KNOTS - 1), (index + 1) & (KNOTS - 1), place - low)
        return ((dx * dx + dy * dy).sqrt() - radius) * slope, softness

    def mask(self, x: Tensor, y: Tensor) -> Tensor:
        """Return (N, H, W) bool: pixels whose centres ``x`` (1, 1, W), ``y`` (1, H, 1) lie inside the outline.

        Tips of jags thinner than a pixel may come apart on a coarse grid; only what hangs together with the lesion's
        middle through edges of pixels counts.
        """
        inside = self.distance(x, y)[0] < 0
        dx, dy = x - self.centre[0], y - self.centre[1]
        least = self.knots[:, None, :, 0].amin(-1, keepdim=True).clamp(min=1.5 * 2 / x.shape[-1])
        grown = dx * dx + dy * dy < least * least  # a disc, so it hangs together
        inside = inside | grown
        while True:
            before, grown = grown, grown.clone()
            grown[:, 1:] |= before[:, :-1]
            grown[:, :-1] |= before[:, 1:]
            grown[:, :, 1:] |= before[:, :, :-1]
            grown[:, :, :-1] |= before[:, :, 1:]
            grown &= inside
            if torch.equal(grown, before):
                return grown

    def reach(self, x: Tensor, y: Tensor) -> Tensor:
        """Return (N, 1, 1) distance from the point ``x``, ``y`` (N, 1, 1) to the farthest point of the outline."""
        cosines, sines = _directions(self.knots.device)
        radius = self.knots[:, None, :, 0]
        px, py = self.centre[0] - x + radius * cosines, self.centre[1] - y + radius * sines
        return (px * px + py * py).amax(-1, keepdim=True).sqrt()

    def _between(self, low: Tensor, high: Tensor, weight: Tensor) -> list[Tensor]:
        columns = []
        for column in self.knots.unbind(-1):
            start = column.gather(1, low.flatten(1)).view(low.shape)
            end = column.gather(1, high.flatten(1)).view(low.shape)
            columns.append(start + weight * (end - start))
        return columns


def draw_outline(traits: Mapping[str, Tensor], area: Tensor, dice: Dice, border_touch: float) -> Outline:
    """Draw outlines that cover the share ``area`` (N, 1, 1) of the image.

    Args:
        traits: (N, 1, 1) each, see ``anatomy.PROFILES``.
        area: share of the image, in (0, 1).
        dice: what draws shape and place.
        border_touch: probability that the image's border cuts the lesion; large lesions may touch it anyway.
    """
    radii = _shape(traits, dice)
    centre = _centre((area * (4 / math.pi)).sqrt(), dice, border_touch)
    scale = _scale(radii, _border_distance(centre), area)
    softness = 1 + traits["edge_change"][:, 0] * _waves((1, 2), dice, radii.device) * 2
    radii = radii * scale
    columns = (radii, _slope(radii), softness.clamp(0.15, 2.5))
    return Outline(centre, scale[:, :, None], torch.stack(columns, dim=-1))


def diamond_angle(x: Tensor, y: Tensor) -> Tensor:
    """Return the place of direction (x, y) on the unit diamond, in [0, 4): an angle made of exact operations."""
    span = x.abs() + y.abs()
    slope = y / span.clamp(min=1e-12)
    return torch.where(x < 0, 2 - slope, torch.where(slope < 0, 4 + slope, slope)).clamp(0, 4 - 4e-7)


def knot_angles() -> list[float]:
    """Return the angle in radians of each knot; knots stand at equal steps of the diamond angle."""
    angles = []
    for place in (4 * knot / KNOTS for knot in range(KNOTS)):
        x = 1 - place if place < 2 else place - 3
        y = min(place, 2 - place) if place < 3 else place - 4
        angles.append(math.atan2(y, x) % (2 * math.pi))
    return angles


def _directions(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return cosines and sines (1, KNOTS) of the knots."""
    angles = knot_angles()
    cosines, sines = [math.cos(angle) for angle in angles], [math.sin(angle) for angle in angles]
    return torch.tensor([cosines], device=device), torch.tensor([sines], device=device)


def _waves(orders: tuple[int, ...], dice: Dice, device: torch.device) -> Tensor:
    """Return (N, KNOTS) a random Fourier series of these orders, about within [-1, 1]."""
    angles, total = knot_angles(), torch.zeros(1, KNOTS, device=device)
    for order in orders:
        cosines = torch.tensor([[math.cos(order * angle) for angle in angles]], device=device)
        sines = torch.tensor([[math.sin(order * angle) for angle in angles]], device=device)
        total = total + dice.bell()[:, 0] * cosines + dice.bell()[:, 0] * sines
    return total / math.sqrt(len(orders))


def _shape(traits: Mapping[str, Tensor], dice: Dice) -> Tensor:
    """Return (N, KNOTS) outline radii, 1 on average: an ellipse with waves and dents."""
    device = traits["lobes"].device
    cosines, sines = _directions(device)
    elongation, (along, across) = traits["elongation"][:, 0], (value[:, 0] for value in dice.direction())
    major, minor = cosines * along + sines * across, sines * along - cosines * across
    ellipse = 1 / (major * major / elongation + minor * minor * elongation).sqrt()
    radii = 1 + traits["lobes"][:, 0] * _waves(SLOW_WAVES, dice, device)
    radii = radii + traits["jags"][:, 0] * _waves(FAST_WAVES, dice, device)
    for _ in range(NOTCHES):
        along, across = (value[:, 0] for value in dice.direction())
        width = dice.uniform(0.25, 0.55)[:, 0]
        squared_chord = 2 - 2 * (cosines * along + sines * across)
        radii = radii - traits["notch"][:, 0] * bump(squared_chord / (width * width))
    return ellipse * radii.clamp(min=0.4)


def _centre(radius: Tensor, dice: Dice, border_touch: float) -> tuple[Tensor, Tensor]:
    """Return x and y of the centre: well inside, or so near a side that the lesion is cut."""
    along, across = dice.direction()
    room = dice.uniform() * dice.uniform(0.2, 1) * (0.9 - 1.25 * radius).clamp(min=0.03)
    cut, upright, side = dice.happens(border_touch), dice.happens(0.5), 1 - 2 * dice.happens(0.5)
    near, slide = side * (1 - radius * dice.uniform(0.1, 0.7)).clamp(min=0), dice.uniform(-0.6, 0.6)
    x = torch.where(upright > 0, near, slide)
    y = torch.where(upright > 0, slide, near)
    return torch.where(cut > 0, x, along * room), torch.where(cut > 0, y, across * room)


def _border_distance(centre: tuple[Tensor, Tensor]) -> Tensor:
    """Return (N, KNOTS) distance from the centre to the image's border in each knot's direction."""
    x, y = centre[0][:, 0], centre[1][:, 0]
    cosines, sines = _directions(x.device)
    to_side = (1 - x * cosines.sign()) / cosines.abs().clamp(min=1e-6)
    to_top = (1 - y * sines.sign()) / sines.abs().clamp(min=1e-6)
    return torch.minimum(to_side, to_top)


def _scale(radii: Tensor, border: Tensor, area: Tensor) -> Tensor:
    """Return (N, 1) the factor on ``radii`` at which the part inside the image covers ``area``, by bisection."""
    angles = knot_angles()
    steps = [(angles[(knot + 1) % KNOTS] - angles[knot - 1]) % (2 * math.pi) / 2 for knot in range(KNOTS)]
    eighth = torch.tensor([steps], device=radii.device) / 8  # half for a sector, a quarter for the image's area of 4
    low = torch.zeros_like(area[:, 0])
    high = torch.full_like(low, 8.0)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        inside = torch.minimum(radii * middle, border)
        too_small = tree_sum(inside * inside * eighth)[:, None] < area[:, 0]
        low, high = torch.where(too_small, middle, low), torch.where(too_small, high, middle)
    return (low + high) / 2


def _slope(radii: Tensor) -> Tensor:
    """Return (N, KNOTS) the factor from radial to normal distance, 1 / sqrt(1 + (r'/r)^2)."""
    angles = knot_angles()
    steps = [(angles[(knot + 1) % KNOTS] - angles[knot - 1]) % (2 * math.pi) for knot in range(KNOTS)]
    change = (radii.roll(-1, 1) - radii.roll(1, 1)) / torch.tensor([steps], device=radii.device)
    return 1 / (1 + (change / radii).square()).sqrt()
