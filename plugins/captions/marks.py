"""What lies around a lesion: hairs, a ruler, surgical ink, coloured markers and dark corners."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from .lines import find_ruler

HAIR_REDNESS = 8.0
"""How much more a* than skin a line may have: vessels have more."""
BLACK = 25.0
"""L* below which wide areas are the instrument's rim, or bars around the picture; no hair is counted beside them."""
RIM_REACH = 12
RULER_SCORE = 0.57
RULER_REACH = 16
"""Distance in pixels from a ruler's line within which no hair is counted."""
LEAST_GROUND = 0.05
"""Share of the image that must be left for hairs to be looked for."""
INK = {"b": -2.0, "a": 4.0, "bluer": 12.0, "darker": 5.0, "lightness": 18.0}
"""Gentian violet: b* below, a* and L* above, and b* and L* this much below the skin's."""
MARKER_CHROMA = 20.0
"""How much more colourful than skin a marker is, or greener, or bluer without being darker."""
MARKER_DISTANCE = 28.0
"""How far in CIELAB a marker is from skin, lightness left out."""
CORNER = 0.12
"""Radius of a corner in image edges."""


@dataclass(frozen=True)
class Marks:
    """What lies around the lesions of N images.

    Attributes:
        hair: (N,) share of the ground outside the lesion that is dark hair.
        ruler: (N,) likeness to a ruler, 0 to 1.
        ink: (N,) share of the image that is violet ink.
        marker: (N,) share of the image that is a coloured marker.
        corners: (N,) lightness of the darkest corners (the second darkest one) over that of the skin.
    """

    hair: Tensor
    ruler: Tensor
    ink: Tensor
    marker: Tensor
    corners: Tensor


def dilated(where: Tensor, reach: int) -> Tensor:
    """Return (N, 1, H, W) bool grown by ``reach`` pixels in each direction."""
    across = max_pool2d(where.float(), (1, 2 * reach + 1), 1, (0, reach))
    return max_pool2d(across, (2 * reach + 1, 1), 1, (reach, 0)) > 0.5


def opened(where: Tensor, reach: int) -> Tensor:
    """Return (N, 1, H, W) bool without parts narrower than ``2 reach + 1`` pixels; what lies outside counts as in."""
    return dilated(~dilated(~where, reach), reach)


def find_ink(lab: Tensor, skin: Tensor) -> Tensor:
    """Return where (N, 3, H, W) CIELAB has the violet of surgical ink beside (N, 3) skin."""
    lightness, a, b = lab.split(1, dim=1)
    own_lightness, _, own_b = skin[:, :, None, None, None].unbind(1)
    violet = (b < INK["b"]) & (a > INK["a"]) & (own_b - b > INK["bluer"])
    return violet & (own_lightness - lightness > INK["darker"]) & (lightness > INK["lightness"])


def find_marker(lab: Tensor, skin: Tensor) -> Tensor:
    """Return where (N, 3, H, W) CIELAB is far more colourful than, and unlike, (N, 3) skin."""
    chroma = lab[:, 1:].norm(dim=1, keepdim=True)
    own = skin[:, 1:].norm(dim=1)[:, None, None, None]
    unlike = (lab[:, 1:] - skin[:, 1:, None, None]).norm(dim=1, keepdim=True)
    own_lightness, own_a, own_b = skin[:, :, None, None, None].unbind(1)
    greener = own_a - lab[:, 1:2] > MARKER_CHROMA
    bluer = (own_b - lab[:, 2:3] > MARKER_CHROMA) & (lab[:, :1] > own_lightness)
    return ((chroma - own > MARKER_CHROMA) | greener | bluer) & (unlike > MARKER_DISTANCE)


def measure_marks(lab: Tensor, lesion: Tensor, skin: Tensor, ridges: Tensor, strands: Tensor) -> Marks:
    """Measure what lies outside the lesions.

    Args:
        lab: (N, 3, S, S) CIELAB.
        lesion: (N, 1, S, S) bool.
        skin: (N, 3) colour of the skin, NaN where unknown.
        ridges: (N, 1, S, S) dark lines, see :func:`.lines.dark_ridges`.
        strands: (N, 1, S, S) bool, see :func:`.lines.find_strands`.
    """
    outside = ~lesion
    ink, marker = find_ink(lab, skin) & outside, find_marker(lab, skin) & outside
    marker &= ~ink
    ruler = find_ruler(ridges)
    on_ruler = (ruler.distance < RULER_REACH) & (ruler.score > RULER_SCORE)[:, None, None, None]
    rim = dilated(opened(lab[:, :1] < BLACK, 6), RIM_REACH)
    ground = outside & ~on_ruler & ~dilated(ink | marker, 6) & ~rim
    hair = strands & ground & (lab[:, 1:2] - skin[:, 1, None, None, None] < HAIR_REDNESS)
    return Marks(
        hair=_share(hair, ground),
        ruler=ruler.score,
        ink=ink.float().mean((1, 2, 3)),
        marker=marker.float().mean((1, 2, 3)),
        corners=_corner_lightness(lab[:, :1].masked_fill(lesion, torch.nan)[:, 0]) / skin[:, 0].clamp_min(1),
    )


def _share(part: Tensor, whole: Tensor) -> Tensor:
    enough = whole.float().mean((1, 2, 3)) >= LEAST_GROUND
    return torch.where(enough, part.float().mean((1, 2, 3)) / whole.float().mean((1, 2, 3)), torch.nan)


def _corner_lightness(lightness: Tensor) -> Tensor:
    """Return the mean L* of each image's second darkest corner, NaN pixels left out and corners of nothing else too."""
    edge = lightness.shape[-1]
    reach = int(CORNER * edge)
    near = torch.arange(reach, device=lightness.device) + 0.5
    quarter = (near**2 + near[:, None] ** 2) < reach**2
    corners = [
        lightness.flip(axes)[:, :reach, :reach][:, quarter].nanmean(1) for axes in ((), (1,), (2,), (1, 2))
    ]
    return torch.stack(corners, 1).sort(1).values[:, 1]
