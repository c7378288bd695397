"""Images from lesion masks by a trained generator."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

import lesionforge as lf

from .checkpoint import load_checkpoint
from .conditions import condition_planes


class MaskPainter:
    """A loaded generator that fills images into batches with masks."""

    def __init__(self, checkpoint: Path, context: lf.Context) -> None:
        """Load the checkpoint onto the context's device.

        Raises:
            CheckpointError: there is none, or it is damaged or of another kind.
        """
        self._network, self._card = load_checkpoint(checkpoint)
        self._network.to(context.device, memory_format=torch.channels_last)
        self._context = context

    @torch.no_grad()
    def fill(self, batch: lf.Batch) -> lf.Batch:
        """Return the batch with images (N, 3, S, S) in [0, 1].

        Raises:
            PluginError: masks are missing, of another size or not binary; a label is missing or unknown.
        """
        masks = self._masks(batch)
        condition = condition_planes(masks, self._labels(batch), self._card.classes)
        with self._context.autocast():
            images = self._network(condition)
        return batch.with_columns(images=((images.float() + 1) / 2).clamp(0, 1).contiguous())

    def _masks(self, batch: lf.Batch) -> Tensor:
        where, size = f"stage {self._context.name}", self._card.size
        batch.require("masks", stage=self._context.name)
        masks = batch.masks
        if tuple(masks.shape[2:]) != (size, size):
            raise lf.PluginError(
                f"{where}: masks of {masks.shape[2]} x {masks.shape[3]} pixels, but the checkpoint draws images of "
                f"{size} x {size}; give the stage that makes the masks size={size}"
            )
        if not bool(((masks == 0) | (masks == 1)).all()):
            raise lf.PluginError(f"{where}: masks have values other than 0 and 1; give the masks, not soft masks")
        return masks.float()

    def _labels(self, batch: lf.Batch) -> tuple[str, ...]:
        classes = self._card.classes
        if not classes:
            return ()
        batch.require("labels", stage=self._context.name)
        for case, label in zip(batch.ids, batch.labels, strict=True):
            if label not in classes:
                raise lf.PluginError(
                    f"stage {self._context.name}: label {label!r} of {case} is unknown to the checkpoint; it knows "
                    f"{', '.join(classes)}"
                )
        return batch.labels
