"""Training images as the networks see them: decoded, scaled to [-1, 1], mirrored, cropped."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ....core.dataset import Dataset

POSES = 4
"""An image's mirrored poses. Bit 0 of a pose's number flips left-right, bit 1 up-down."""


def pixels(dataset: Dataset, rows: Sequence[int], device: torch.device) -> Tensor:
    """Return (N, 3, H, W) fp32 in [-1, 1], kept channels-last."""
    return torch.from_numpy(dataset.images_array(rows)).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


def in_poses(images: Tensor, poses: Tensor) -> Tensor:
    """Return (N, C, H, W) images, each mirrored as its number in ``poses`` (N,) says."""
    for bit, axis in ((1, 3), (2, 2)):
        chosen = (poses & bit).bool().to(images.device)
        images = torch.where(chosen[:, None, None, None], images.flip(axis), images)
    return images


def random_crops(images: Tensor, edge: int) -> Tensor:
    """Return a crop of ``edge`` pixels of each image, its place drawn uniformly from torch's random state."""
    height, width = images.shape[-2:]
    tops = torch.randint(height - edge + 1, (len(images),)).tolist()
    lefts = torch.randint(width - edge + 1, (len(images),)).tolist()
    crops = [
        image[:, top : top + edge, left : left + edge] for image, top, left in zip(images, tops, lefts, strict=True)
    ]
    return torch.stack(crops).contiguous(memory_format=torch.channels_last)
