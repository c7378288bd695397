"""Trainer, annotator and feature extractor around one segmentation network, and the networks that come with them.

The trainer follows EnhancedDDPM (Dilated-UNet, BCE + Dice, RMSprop) and offers networks that the papers compare: those
of segmentation-models-pytorch (MIT) and torchvision (BSD-3-Clause), and any other plugin of the role architecture. No
weights are downloaded; those that the trainer publishes are the user's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from ...core.config import Checkpoint, PluginConfig
from ...core.errors import CheckpointError
from ...core.hookspecs import hookimpl
from ...core.roles import Annotator, Extractor, Plugin, Trainer
from .architectures import ARCHITECTURES
from .config import SegmentationConfig

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from ...core.batch import Batch
    from ...core.context import Context
    from ...core.dataset import Dataset
    from ...core.registry import PluginEntry, Registry


class SegmentationTrainer(Trainer):
    """Trains a lesion segmentation network and measures Dice, IoU, HD95 and ASD on the test split."""

    name = "segmentation"
    Config = SegmentationConfig

    @classmethod
    def uses(cls, config: SegmentationConfig, registry: Registry) -> Sequence[PluginEntry]:
        return [config.network(registry)[0]]

    def train(self, train: Dataset, val: Dataset | None, output: Path) -> None:
        from .trainer import train_segmenter

        train_segmenter(self.config, self.context, train, val, output)

    def evaluate(self, test: Dataset, output: Path) -> Mapping[str, float]:
        from .evaluation import evaluate_segmenter

        return evaluate_segmenter(self.config, self.context, test, output)


class SegmenterAnnotator(Annotator):
    """Finds the lesion in every image with a trained segmentation network; fills masks, soft_masks and a confidence.

    The score ``segmenter_confidence`` in [0, 1] is the Dice that the mask would have in expectation if the network's
    probabilities were calibrated (our choice; see ``prediction.soft_dice_confidence``).
    """

    name = "segmenter"

    class Config(PluginConfig):
        checkpoint: Checkpoint = Field(description="folder that the trainer segmentation wrote, or train:JOB")
        flips: bool = Field(True, description="average over the four mirrorings of each image")
        threshold: float = Field(0.5, gt=0, lt=1, description="probability from which a pixel belongs to the lesion")

    def setup(self, context: Context) -> None:
        from .segmenter import load_segmenter

        super().setup(context)
        segmenter, self._info = load_segmenter(self.config.checkpoint, context.registry)
        self._segmenter = segmenter.on(context.device)

    def annotate(self, batch: Batch) -> Batch:
        from .prediction import lesion_probabilities, soft_dice_confidence

        batch.require("images", stage=self.context.name or self.name)
        assert batch.images is not None
        size, flips = self._info.size, self.config.flips
        soft = lesion_probabilities(self._segmenter, batch.images, size=size, context=self.context, flips=flips)
        masks = (soft >= self.config.threshold).float()
        confidence = soft_dice_confidence(soft, masks)
        return batch.with_columns(masks=masks, soft_masks=soft, scores={"segmenter_confidence": confidence})


class SegmenterExtractor(Extractor):
    """Features from the encoder of a segmentation checkpoint trained on the real data: works offline, for any domain.

    A vector is the spatial mean of the encoder's two deepest maps, side by side. Distances in it are named after it and
    cannot be compared with FID or LPIPS, nor between two checkpoints.
    """

    name = "segmenter"

    class Config(PluginConfig):
        model: None = Field(None, description="unused: the checkpoint says which network it is")
        weights: Checkpoint = Field(description="folder that the trainer segmentation wrote, or train:JOB")

    def setup(self, context: Context) -> None:
        from .segmenter import load_segmenter

        super().setup(context)
        segmenter, self._info = load_segmenter(self.config.weights, context.registry)
        if not segmenter.has_encoder:
            raise CheckpointError(
                f"{self.config.weights} holds {self._info.architecture}, which hands out no maps to measure with"
            )
        self._segmenter = segmenter.on(context.device)

    @property
    def label(self) -> str:
        return "segmenter encoder (trained on phantoms)" if self._info.phantom else "segmenter encoder"

    @property
    def weights_hash(self) -> str:
        from ..supervised.checkpoint import weights_hash

        return weights_hash(self.config.weights)

    def feature_maps(self, images: Tensor) -> Sequence[Tensor]:
        from .prediction import encoder_maps

        return encoder_maps(self._segmenter, images, size=self._info.size)

    def features(self, images: Tensor) -> Tensor:
        import torch

        deepest = self.feature_maps(images)[-2:]
        return torch.cat([features.mean(dim=(2, 3)) for features in deepest], dim=1)


@hookimpl
def register_plugins() -> list[type[Plugin]]:
    """Register what this module offers."""
    return [SegmentationTrainer, SegmenterAnnotator, SegmenterExtractor, *ARCHITECTURES]
