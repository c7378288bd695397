"""A picture of what the generator draws into known masks, above the photographs that they came from."""

from __future__ import annotations

import io
import math

import torch
from PIL import Image
from torch import Tensor

LEAST_TILE = 96


def sheet(masks: Tensor, made: Tensor, real: Tensor) -> bytes:
    """Return a PNG of three rows: masks (N, 1, H, W) in [0, 1], images made from them and real ones in [-1, 1]."""
    rows = [masks.expand(-1, 3, -1, -1), (made + 1) / 2, (real + 1) / 2]
    factor = math.ceil(LEAST_TILE / masks.shape[-1])
    lines = [torch.cat(list(row.float().cpu().clamp(0, 1)), dim=2) for row in rows]
    pixels = torch.cat(lines, dim=1).repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    file = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).mul(255).round().to(torch.uint8).numpy()).save(file, "PNG")
    return file.getvalue()
