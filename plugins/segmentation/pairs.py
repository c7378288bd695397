"""Images with masks, decoded once where they fit into memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...core.dataset import Dataset
from ...core.errors import DataError

RESIDENT_BYTES = 2**30


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
    """The images and masks of a dataset at one size, kept as bytes on the device if they take at most a gigabyte.

    Args:
        dataset: cases that all have masks.
        size: edge in pixels.
        device: where pairs are wanted.
    """

    def __init__(self, dataset: Dataset, size: int, device: torch.device) -> None:
        self._dataset, self._device = dataset.resized(size), device
        self._resident: tuple[Tensor, Tensor] | None = None
        if 4 * size * size * len(dataset) <= RESIDENT_BYTES:
            images, masks = self._decoded(range(len(dataset)))
            self._resident = images.to(device), masks.to(device)

    def __len__(self) -> int:
        return len(self._dataset)

    def take(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return (N, 3, H, W) fp32 images in [0, 1] and (N, 1, H, W) fp32 masks of ``rows``."""
        if self._resident is None:
            images, masks = (pixels.to(self._device, non_blocking=True) for pixels in self._decoded(rows))
        else:
            index = torch.tensor(list(rows), device=self._device)
            images, masks = (pixels[index] for pixels in self._resident)
        return images.permute(0, 3, 1, 2).float().div_(255), masks.unsqueeze(1).float()

    def _decoded(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        images, masks = self._dataset.images_array(rows), self._dataset.masks_array(rows)
        return torch.from_numpy(images), torch.from_numpy(masks)
