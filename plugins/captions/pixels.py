"""Images as bytes, as models of others want them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def as_bytes(images: Tensor) -> NDArray[np.uint8]:
    """Return (N, 3, H, W) images in [0, 1] as (N, H, W, 3) uint8 on the CPU."""
    levels = (images.float().clamp(0, 1) * 255).round().to(torch.uint8)
    return levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
