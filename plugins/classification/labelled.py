"""Images with labels: which cases can be used, what their classes are, and their pixels in memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...core.dataset import Dataset
from ...core.errors import DataError
from ..supervised.images import PixelStore, as_images


def labelled(dataset: Dataset, purpose: str) -> Dataset:
    """Return the cases that have a label.

    Raises:
        DataError: none has; ``purpose`` opens the message.
    """
    part = dataset.where(lambda record: record.label is not None)
    if not len(part):
        raise DataError(
            f"{purpose} needs labels, but none of the {len(dataset)} images of dataset {dataset.name} has one"
        )
    return part


def class_rows(dataset: Dataset, classes: Sequence[str], purpose: str) -> Tensor:
    """Return the (N,) int64 numbers in ``classes`` of the labels of cases that all have one.

    Raises:
        DataError: a label is none of ``classes``; ``purpose`` opens the message.
    """
    numbers = {name: number for number, name in enumerate(classes)}
    for record in dataset.records:
        if record.label not in numbers:
            raise DataError(
                f"{purpose}: image {record.image_id!r} of dataset {dataset.name} is labelled {record.label!r}, none of "
                f"the classes {', '.join(classes)}; name all classes in the setting classes, or leave the image out"
            )
    return torch.tensor([numbers[str(record.label)] for record in dataset.records], dtype=torch.long)


class LabelledImages:
    """The images and class numbers of a dataset at one size, see :class:`PixelStore`.

    Args:
        dataset: cases that all have a label.
        labels: (N,) numbers of their classes.
        size: edge in pixels.
        device: where images and labels are wanted.
    """

    def __init__(self, dataset: Dataset, labels: Tensor, size: int, device: torch.device) -> None:
        self.labels, data = labels.to(device), dataset.resized(size)
        self._pixels = PixelStore(data, device, lambda rows: (data.images_array(rows),), 3 * size * size)

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return (N, 3, H, W) fp32 images in [0, 1] and (N,) class numbers of ``rows``."""
        (images,) = self._pixels.take(rows)
        return as_images(images), self.labels[torch.tensor(list(rows), device=self.labels.device)]
