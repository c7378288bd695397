"""Renders batches of phantoms: anatomy -> outline -> painted skin -> photograph, with the exact mask beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ....kernels import seeded_uniform
from .anatomy import draw_anatomy
from .arithmetic import pixel_centres
from .noise import Cells, Dice, Noise
from .outline import draw_outline
from .painting import paint
from .photograph import expose, photograph

if TYPE_CHECKING:
    from ..phantom import Look

CELLS_SIZE = 128
VIEW_DRAWS = 256


class Phantoms(NamedTuple):
    """N rendered phantoms.

    Attributes:
        images: (N, 3, size, size) fp32 in [0, 1].
        masks: (N, 1, size, size) fp32, 1 where a pixel's centre lies inside the lesion's outline.
        labels: (N,) class numbers.
        ita: (N,) skin tone, individual typology angle in degrees before light and camera.
    """

    images: Tensor
    masks: Tensor
    labels: Tensor
    ita: Tensor


def render(
    lesion_seeds: Sequence[int],
    view_seeds: Sequence[int],
    labels: Sequence[int | None],
    look: Look,
    *,
    size: int,
    stream: int,
    device: torch.device,
) -> Phantoms:
    """Render N phantoms of ``size`` pixels; the same seeds show the same lesion at any size.

    Args:
        lesion_seeds: what draws each lesion and the skin around it.
        view_seeds: what draws its photograph: hairs, light, camera, orientation.
        labels: class numbers, None where the lesion's seed decides.
        look: how phantoms look.
        stream: noise stream.
        device: where to compute.
    """
    anatomy = draw_anatomy(lesion_seeds, look, labels, stream, device)
    outline = draw_outline(anatomy.traits, anatomy.area, anatomy.dice, look.border_touch)
    waves = Noise(lesion_seeds, stream=stream, step=1, size=size, device=device)
    factor = -(-CELLS_SIZE // size)
    cells = Cells(lesion_seeds, stream=stream, step=2, size=size, factor=factor, device=device)
    centres = pixel_centres(size, device)
    x, y = centres[None, None, :], centres[None, :, None]
    images = paint(anatomy, outline, x, y, waves, cells, texture=look.texture)
    view = Dice(view_seeds, VIEW_DRAWS, stream=stream, step=3, device=device)
    clouds = Noise(view_seeds, stream=stream, step=4, size=size, device=device)
    images = photograph(images, x, y, outline, look, view, clouds)
    grain = seeded_uniform(view_seeds, (2, size, size), step=5, stream=stream, device=device)
    images = expose(images, look, view, grain)
    masks = outline.mask(x, y).float()[:, None]
    return Phantoms(*_turned(images, masks, view), anatomy.labels, anatomy.ita[:, 0, 0])


def _turned(images: Tensor, masks: Tensor, view: Dice) -> tuple[Tensor, Tensor]:
    """Return both in one of the eight orientations of a square, since a second photograph may be held otherwise."""
    mirrored, upside_down, sideways = (view.happens(0.5)[:, None] > 0 for _ in range(3))

    def turn(picture: Tensor) -> Tensor:
        picture = torch.where(mirrored, picture.flip(-1), picture)
        picture = torch.where(upside_down, picture.flip(-2), picture)
        return torch.where(sideways, picture.transpose(-1, -2), picture)

    return turn(images), turn(masks)
