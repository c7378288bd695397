"""Pictures of what the placeholder tokens attend to, beside the masks that they should."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ...core.durable import write_bytes
from ...core.pictures import contact_sheet, heat
from .maps import resized

Pixels = NDArray[np.uint8]


def save_map_sheet(images: Tensor, masks: Tensor, lesion: Tensor, skin: Tensor, file: Path, *, title: str) -> None:
    """Write four rows: images with the outlines of their masks, the masks, and both tokens' maps.

    Args:
        images: (N, 3, H, W) in [0, 1].
        masks: (N, 1, H, W) of 0 and 1.
        lesion, skin: (N, 1, h, w) attention probabilities, each sheet's maps on one scale from 0 to their largest.
    """
    size, count = images.shape[-1], len(images)
    pixels = [_bytes(image) for image in images]
    outlines = [mask[0].byte().cpu().numpy() for mask in masks]
    rows: list[Pixels] = [*pixels, *[_grey(mask) for mask in masks]]
    for maps in (lesion, skin):
        top = float(maps.max().clamp(min=1e-12))
        rows += [heat((resized(one[None], size)[0, 0] / top).float().cpu().numpy()) for one in maps]
    captions = ["image", "mask", "<lesion>", "<skin>"]
    sheet = contact_sheet(
        rows,
        [*outlines, *[None] * (3 * count)],
        columns=count,
        captions=[captions[number // count] for number in range(4 * count)],
        title=title,
        tile=max(size, 96),
    )
    picture = io.BytesIO()
    sheet.save(picture, "PNG")
    file.parent.mkdir(exist_ok=True)
    write_bytes(file, picture.getvalue())


def _bytes(image: Tensor) -> Pixels:
    return image.float().clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).cpu().numpy()


def _grey(mask: Tensor) -> Pixels:
    return np.repeat(mask[0].mul(255).byte().cpu().numpy()[..., None], 3, axis=-1)
