"""The training set as the networks see it: images and masks at one size, a prompt and a class for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...core.context import Context
from ...core.dataset import Dataset, image_tensor, mask_tensor
from ...core.errors import DataError
from ..stable_diffusion.kept import kept_captions
from .wording import class_prompt, with_template

if TYPE_CHECKING:
    from .plugin import SkinDualGenTrainerConfig


@dataclass(frozen=True)
class Examples:
    """Everything that fine-tuning learns from.

    Attributes:
        dataset: the images that have a mask and a label, at the trained size.
        prompts: one an image.
    """

    dataset: Dataset
    prompts: Sequence[str]

    def __len__(self) -> int:
        return len(self.prompts)

    def pairs(self, rows: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
        """Return images (N, 3, S, S) in [0, 1] and masks (N, 1, S, S) of 0 and 1.

        Raises:
            DataError: a mask holds other values.
        """
        masks = self.dataset.masks_array(rows)
        for row, mask in zip(rows, masks, strict=True):
            if mask.max() > 1:
                raise DataError(
                    f"dataset {self.dataset.name}: the mask of image {self.dataset.ids[row]!r} is not binary, it holds "
                    f"{mask.max()}; give 0 for skin and 1 for lesion"
                )
        return image_tensor(self.dataset.images_array(rows)).to(device), mask_tensor(masks).to(device)


def prompted_examples(dataset: Dataset, config: SkinDualGenTrainerConfig, context: Context, output: Path) -> Examples:
    """Return the images with mask and label, each with its class's prompt or its caption, which ``output`` keeps.

    Raises:
        DataError: no image has both, or an image has no caption.
    """
    masked = dataset.with_masks()
    dataset = masked.where(lambda record: record.label is not None).resized(config.size)
    if not len(dataset):
        raise DataError(f"dataset {masked.name}: no image with a mask has a label, and prompts name the class")
    named = [str(record.label) for record in dataset.records]
    if config.prompts == "class":
        return Examples(dataset, [class_prompt(label, config.terms) for label in named])
    captions = kept_captions(dataset, config.captioner, context, output)
    pairs = zip(captions, named, strict=True)
    return Examples(dataset, [with_template(text, label, config.terms) for text, label in pairs])
