"""Pictures of what a segmenter found, beside the truth."""

from __future__ import annotations

import io
import math

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

TRUE_COLOUR = (0.0, 0.9, 0.2)
FOUND_COLOUR = (1.0, 0.1, 0.8)
LEAST_TILE = 128


def outline_sheet(images: Tensor, truth: Tensor, found: Tensor) -> bytes:
    """Return a PNG of (N, 3, H, W) images in [0, 1] in a square arrangement, small ones enlarged.

    The outline of ``truth`` is green and that of ``found`` pink, on top; both are (N, 1, H, W) bool.
    """
    factor = math.ceil(LEAST_TILE / images.shape[-1])
    pictures = _enlarged(images.float(), factor)
    for masks, colour in ((truth, TRUE_COLOUR), (found, FOUND_COLOUR)):
        paint = torch.tensor(colour, device=images.device).view(1, 3, 1, 1)
        pictures = torch.where(_outlines(_enlarged(masks.float(), factor)), paint, pictures)
    columns = math.ceil(math.sqrt(len(pictures)))
    blank = pictures.new_ones(columns * math.ceil(len(pictures) / columns) - len(pictures), *pictures.shape[1:])
    tiles = torch.cat([pictures, blank])
    rows = [torch.cat(list(row), dim=2) for row in tiles.split(columns)]
    pixels = torch.cat(rows, dim=1).permute(1, 2, 0).mul(255).round().to(torch.uint8).cpu().numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _enlarged(images: Tensor, factor: int) -> Tensor:
    return F.interpolate(images, scale_factor=factor, mode="nearest") if factor > 1 else images


def _outlines(masks: Tensor) -> Tensor:
    """Return where masks of 0 and 1 have both values within a 3x3 window."""
    padded = F.pad(masks, (1, 1, 1, 1))
    return (masks > 0) & (-F.max_pool2d(-padded, 3, stride=1) == 0)
