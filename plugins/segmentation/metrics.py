"""Overlap of masks: Dice and IoU of each image, and Dice aggregated over a test set.

Where both masks are empty they agree: Dice and IoU are 1. Where one of them is empty both are 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Overlap:
    """Pixel counts of N pairs of masks, exact int64 on the masks' device.

    Attributes:
        intersection, predicted, truth: (N,) numbers of pixels.
    """

    intersection: Tensor
    predicted: Tensor
    truth: Tensor

    @classmethod
    def of(cls, predicted: Tensor, truth: Tensor) -> Overlap:
        """Count (N, 1, H, W) masks, bool or numbers of which those above 0.5 are inside.

        Raises:
            ValueError: the shapes differ.
        """
        if predicted.shape != truth.shape:
            raise ValueError(f"predicted masks are {tuple(predicted.shape)} but true ones {tuple(truth.shape)}")
        inside, lesion = (masks if masks.dtype == torch.bool else masks > 0.5 for masks in (predicted, truth))
        return cls(*(masks.flatten(1).sum(1) for masks in (inside & lesion, inside, lesion)))

    @property
    def dice(self) -> Tensor:
        """(N,) fp64 Dice coefficient 2 |A and B| / (|A| + |B|) of each pair."""
        return _ratio(2 * self.intersection, self.predicted + self.truth)

    @property
    def iou(self) -> Tensor:
        """(N,) fp64 intersection over union of each pair."""
        return _ratio(self.intersection, self.predicted + self.truth - self.intersection)

    @property
    def aggregated_dice(self) -> float:
        """Dice of all pixels of all pairs taken as one image; large lesions count more than in the mean of ``dice``."""
        totals = (2 * self.intersection.sum(), self.predicted.sum() + self.truth.sum())
        return float(_ratio(*totals))

    @classmethod
    def joined(cls, parts: list[Overlap]) -> Overlap:
        """Return the pairs of all ``parts`` as one."""
        columns = ([part.intersection, part.predicted, part.truth] for part in parts)
        return cls(*(torch.cat(column) for column in zip(*columns, strict=True)))


def _ratio(shared: Tensor, total: Tensor) -> Tensor:
    return torch.where(total > 0, shared.double() / total.clamp(min=1).double(), 1.0)
