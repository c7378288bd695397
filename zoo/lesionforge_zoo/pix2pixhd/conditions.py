"""What the networks are told: the lesion mask, once more in the plane of its class where classes are learnt."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

import lesionforge as lf


def condition_planes(masks: Tensor, labels: Sequence[str], classes: Sequence[str]) -> Tensor:
    """Return (N, 1 + C, H, W): masks (N, 1, H, W) of 0 and 1, and C planes, the label's a copy of the mask.

    A plane of ones would tell nothing: instance normalisation takes out what is constant over an image. ``labels`` are
    not read where ``classes`` is empty.
    """
    if not classes:
        return masks
    chosen = torch.tensor([classes.index(label) for label in labels], device=masks.device)
    planes = torch.nn.functional.one_hot(chosen, len(classes)).to(masks.dtype)
    return torch.cat((masks, planes[:, :, None, None] * masks), dim=1)


class TrainingPairs:
    """The cases of a dataset that have a mask, and a label where classes are learnt.

    Attributes:
        classes: class names in the order of their planes; empty where no classes are learnt.
    """

    def __init__(self, dataset: lf.Dataset, size: int, *, classes: bool) -> None:
        """Take what can be learnt from.

        Raises:
            DataError: no case has a mask, or none a label where classes are asked for.
        """
        self._dataset = dataset.with_masks().resized(size)
        self.classes: tuple[str, ...] = ()
        if classes:
            self._dataset = self._dataset.where(lambda record: record.label is not None)
            self.classes = self._dataset.classes
            if not self.classes:
                raise lf.DataError(f"dataset {dataset.name} has no labels beside masks, which classes=true needs")

    def __len__(self) -> int:
        return len(self._dataset)

    def take(self, rows: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
        """Return conditions (N, 1 + C, size, size) and images (N, 3, size, size) in [-1, 1] of ``rows``, fp32."""
        masks = torch.from_numpy(self._dataset.masks_array(rows)).to(device).unsqueeze(1).float()
        # Kept channels-last: permuting is free and the networks want it so.
        images = torch.from_numpy(self._dataset.images_array(rows)).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
        labels = [str(self._dataset.records[row].label) for row in rows]
        return condition_planes(masks, labels, self.classes), images


def randomly_flipped(condition: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """Mirror conditions and their images left-right and up-down, each with probability 1/2, case by case."""
    for axis in (2, 3):
        chosen = (torch.rand(len(images)) < 0.5).to(images.device)[:, None, None, None]
        condition = torch.where(chosen, condition.flip(axis), condition)
        images = torch.where(chosen, images.flip(axis), images)
    return condition, images
