"""What can be measured in a dermoscopic image and its mask, for a whole batch at once, without any trained model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ...core.errors import DataError
from .colours import COLOURS, colour_shares, lab, masked_median, typology_angle
from .lines import dark_ridges, find_strands
from .marks import dilated, measure_marks
from .shape import measure_shape

EDGE = 256
"""Edge in pixels at which everything is measured; all lengths of this package refer to it."""
HALO = 6
"""Pixels around a lesion that are neither lesion nor skin."""
HAIR_WIDTH = 2
"""Pixels beside the middle of a hair that are hair, and give a lesion no colour."""
DARKEST_SKIN = 15.0
"""L* below which a pixel is taken for the instrument's black rim."""
LEAST_SKIN = 0.03
"""Share of the image that must be skin, so that something can be said about it."""
WIDTHS = {"centre": 2, "asymmetry": 2, "colours": len(COLOURS) + 1}


@dataclass(frozen=True)
class Attributes:
    """Measured attributes of N cases, (N,) fp32 unless said otherwise; NaN where an attribute could not be measured.

    Attributes:
        area: share of the image that is lesion.
        centre: (N, 2) horizontal and vertical place of the lesion's centroid, 0 to 1 from the upper left corner.
        edge: share of the image's outermost pixels that is lesion.
        elongation: ratio of the lesion's axes, 1 or more.
        asymmetry: (N, 2) share left uncovered by folding, better axis first, see :mod:`.shape`.
        irregularity: perimeter over that of an ellipse of same area and elongation, minus 1.
        colours: (N, 7) shares of the lesion: ``colours.COLOURS`` in order, then what looks like the skin around it.
        skin_tone: individual typology angle of the surrounding skin in degrees.
        hair: share of the ground around the lesion that is dark hair.
        ruler: likeness of the most ruler-like line to a ruler, 0 to 1.
        ink: share of the image that is violet ink.
        marker: share of the image that is a coloured marker, such as a colour chart.
        corners: lightness of the darker corners over that of the skin.
    """

    area: Tensor
    centre: Tensor
    edge: Tensor
    elongation: Tensor
    asymmetry: Tensor
    irregularity: Tensor
    colours: Tensor
    skin_tone: Tensor
    hair: Tensor
    ruler: Tensor
    ink: Tensor
    marker: Tensor
    corners: Tensor

    def __len__(self) -> int:
        return len(self.area)

    def columns(self) -> dict[str, Tensor]:
        """Return all columns by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def select(self, rows: Tensor | Sequence[int]) -> Self:
        """Return the cases at ``rows``, in that order."""
        index = torch.as_tensor(rows, device=self.area.device)
        return type(self)(**{name: column[index] for name, column in self.columns().items()})

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Return the cases of all ``parts`` as one table."""
        tables = [part.columns() for part in parts]
        return cls(**{name: torch.cat([table[name] for table in tables]) for name in tables[0]})

    @classmethod
    def unknown(cls, count: int, device: torch.device | str = "cpu") -> Self:
        """Return ``count`` cases of which nothing is known."""
        sizes = {field.name: (count, WIDTHS[field.name]) if field.name in WIDTHS else (count,) for field in fields(cls)}
        return cls(**{name: torch.full(size, torch.nan, device=device) for name, size in sizes.items()})


@torch.no_grad()
def measure(images: Tensor, masks: Tensor | None = None) -> Attributes:
    """Measure (N, 3, H, W) images in [0, 1], with the lesion's masks (N, 1, H, W) where there are any.

    Images are stretched to 256 px squares first, as datasets stretch them for networks. A case without a mask, or
    with an empty one, has no attributes of a lesion; its skin is then sought in the image's outer eighth.

    Raises:
        DataError: images and masks do not belong together.
    """
    if masks is not None and (len(masks) != len(images) or masks.shape[-2:] != images.shape[-2:]):
        raise DataError(f"masks of {tuple(masks.shape)} do not belong to images of {tuple(images.shape)}")
    if not len(images):
        return Attributes.unknown(0, images.device)
    images = _resized(images.float()).clamp(0, 1)
    lesion = torch.zeros_like(images[:, :1]) if masks is None else (_resized(masks.float()) > 0.5).float()
    shape = measure_shape(lesion)
    surrounded = torch.where(lesion.any((1, 2, 3), keepdim=True), dilated(lesion, HALO), _middle(images))
    colour = lab(images)
    skin = ~surrounded & (colour[:, :1] > DARKEST_SKIN)
    skin &= skin.float().mean((1, 2, 3), keepdim=True) >= LEAST_SKIN
    skin_colour = masked_median(colour, skin)
    ridges = dark_ridges(colour[:, :1])
    strands = find_strands(ridges)
    marks = measure_marks(colour, surrounded, skin_colour, ridges, strands)
    pigment = (lesion > 0.5) & ~dilated(strands, HAIR_WIDTH)
    return Attributes(
        **vars(shape),
        colours=colour_shares(images, pigment, skin),
        skin_tone=typology_angle(skin_colour),
        **vars(marks),
    )


def measure_masks(masks: Tensor) -> Attributes:
    """Measure what (N, 1, H, W) masks alone tell; everything else is NaN."""
    known: Mapping[str, Tensor] = vars(measure_shape((_resized(masks.float()) > 0.5).float()))
    return Attributes(**{**Attributes.unknown(len(masks), masks.device).columns(), **known})


def _resized(tensor: Tensor) -> Tensor:
    if tensor.shape[-2:] == (EDGE, EDGE):
        return tensor
    return interpolate(tensor, (EDGE, EDGE), mode="bilinear", antialias=True, align_corners=False)


def _middle(images: Tensor) -> Tensor:
    """Return (1, 1, EDGE, EDGE) bool, true but for the outer eighth."""
    middle = torch.zeros(1, 1, EDGE, EDGE, dtype=torch.bool, device=images.device)
    margin = EDGE // 8
    middle[..., margin:-margin, margin:-margin] = True
    return middle
