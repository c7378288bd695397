"""Images with masks, decoded once where they fit into memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...core.dataset import Dataset
from ...core.errors import DataError
from ..supervised.images import PixelStore, as_images


def require_masks(dataset: Dataset, purpose: str) -> None:
    """Raise a :class:`DataError` that counts them if any case of ``dataset`` has no mask, or if there is no case."""
    if not len(dataset):
        raise DataError(f"{purpose}: dataset {dataset.name} is empty")
    bare = [record.image_id for record in dataset.records if record.mask is None]
    if bare:
        raise DataError(
            f"{purpose} needs masks, but {len(bare)} of {len(dataset)} images of dataset {dataset.name} have none, "
            f"first {bare[0]!r}; leave them out or annotate them"
        )


class Pairs:
    """The images and masks of a dataset at one size, see :class:`PixelStore`.

    Args:
        dataset: cases that all have masks.
        size: edge in pixels.
        device: where pairs are wanted.
    """

    def __init__(self, dataset: Dataset, size: int, device: torch.device) -> None:
        self._count, data = len(dataset), dataset.resized(size)
        self._pixels = PixelStore(
            data, device, lambda rows: (data.images_array(rows), data.masks_array(rows)), 4 * size * size
        )

    def __len__(self) -> int:
        return self._count

    def take(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return (N, 3, H, W) fp32 images in [0, 1] and (N, 1, H, W) fp32 masks of ``rows``."""
        images, masks = self._pixels.take(rows)
        return as_images(images), masks.unsqueeze(1).float()
