"""Pictures of training pairs beside what the network predicts of them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ...core.durable import write_bytes
from ...core.pictures import contact_sheet
from .widening import COLOURS

Pixels = NDArray[np.uint8]


def save_pair_sheet(images: Tensor, masks: Tensor, channels: Tensor, file: Path, *, title: str) -> None:
    """Write three rows: images with their masks' outlines, decoded images with decoded masks' outlines, soft masks.

    Args:
        images: (N, 3, H, W) in [0, 1].
        masks: (N, 1, H, W) of 0 and 1.
        channels: (N, 4, H, W), decoded colours in [-1, 1] and logits.
    """
    count, soft = len(images), channels[:, COLOURS:].sigmoid()
    decoded = (channels[:, :COLOURS] + 1) / 2
    pictures = [_pixels(picture) for part in (images, decoded, soft.expand(-1, COLOURS, -1, -1)) for picture in part]
    outlines = [mask[0].byte().cpu().numpy() for mask in (*masks, *(soft >= 0.5))]
    words = ["image and mask", "predicted pair", "predicted soft mask"]
    sheet = contact_sheet(
        pictures,
        [*outlines, *[None] * count],
        columns=count,
        captions=[words[number // count] for number in range(3 * count)],
        title=title,
        tile=max(images.shape[-1], 96),
    )
    picture = io.BytesIO()
    sheet.save(picture, "PNG")
    file.parent.mkdir(exist_ok=True)
    write_bytes(file, picture.getvalue())


def _pixels(picture: Tensor) -> Pixels:
    return picture.float().clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).cpu().numpy()
