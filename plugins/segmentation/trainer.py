"""Training of a segmentation network from the first step, or from where a killed job stopped, to its checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ...core.context import Context
from ...core.dataset import Dataset
from ...core.durable import write_bytes
from ...core.registry import Registry
from ...core.seeding import name_seed
from ...core.training import Losses, Snapshot, TrainingLoop, Validation
from ..supervised.checkpoint import save_checkpoint
from ..supervised.training import (
    batch_rows,
    check_input,
    make_augmentation,
    supervised_loop,
    training_steps,
    validation_steps,
)
from .config import SegmentationConfig, SegmenterInfo
from .losses import Loss, make_loss
from .metrics import Overlap
from .pairs import Pairs, require_masks
from .pictures import outline_sheet
from .prediction import lesion_probabilities
from .segmenter import Segmenter, load_encoder

AUXILIARY_WEIGHT = 0.5
SHEET_CASES = 16
SHEETS = 5
THRESHOLD = 0.5


def train_segmenter(
    config: SegmentationConfig, context: Context, train: Dataset, val: Dataset | None, output: Path
) -> None:
    """Train on ``train``, keep the weights that are best on ``val`` (the last ones without it), publish to ``output``.

    Raises:
        DataError: a case has no mask, or a file cannot be used.
        CheckpointError: the encoder's weights or the state to resume from cannot be used.
    """
    require_masks(train, "training a segmenter")
    if val is not None:
        require_masks(val, "validating a segmenter")
    info = SegmenterInfo(**config.network_values(context.registry), dataset=train.name, phantom=train.phantom)
    segmenter = initial_segmenter(info, config, context.seed, context.registry).to(context.device)
    pairs = Pairs(train, config.size, context.device)
    held_out = None if val is None else Pairs(val, config.size, context.device)
    loop = supervised_loop(config, segmenter, examples=len(train), output=output, context=context)
    every = validation_steps(config, len(train))
    steps = training_steps(config, len(train))
    loop.run(
        _losses(config, loop, segmenter, pairs),
        validation=None if held_out is None else _validation(config, context, held_out, every),
        snapshot=_snapshot(context, pairs if held_out is None else held_out, steps, output),
    )
    save_checkpoint(output, segmenter, info)


def _losses(config: SegmentationConfig, loop: TrainingLoop, segmenter: Segmenter, pairs: Pairs) -> Losses:
    augment = make_augmentation(config)
    loss = make_loss(config)
    total = getattr(segmenter.network, "training_loss", training_loss)

    def losses(rows: list[int], step: int) -> Mapping[str, Tensor]:
        images, masks = augment(*pairs.take(batch_rows(rows)))
        return {"loss": total(loop.network(images), masks, loss)}

    return losses


def _validation(config: SegmentationConfig, context: Context, held_out: Pairs, every: int) -> Validation:
    return Validation(
        every=every,
        evaluate=lambda model: {"val_dice": mean_dice(model, held_out, config, context)},
        monitor="val_dice",
        higher_is_better=True,
        patience=config.patience or None,
    )


def _snapshot(context: Context, pairs: Pairs, steps: int, output: Path) -> Snapshot:
    images, masks = pairs.take(range(min(SHEET_CASES, len(pairs))))

    def take(model: nn.Module, step: int) -> None:
        probabilities = lesion_probabilities(model, images, size=images.shape[-1], context=context)
        sheet = outline_sheet(images, masks > THRESHOLD, probabilities >= THRESHOLD)
        folder = output / "samples"
        folder.mkdir(exist_ok=True)
        write_bytes(folder / f"step-{step:08d}.png", sheet)

    return Snapshot(max(1, steps // SHEETS), take)


def initial_segmenter(
    info: SegmenterInfo, config: SegmentationConfig, seed: int, registry: Registry | None = None
) -> Segmenter:
    """Return the untrained network: the same one for every job with this seed, so that arms of a study start alike.

    Raises:
        CheckpointError: the encoder's weights cannot be used.
        ConfigError: the encoder is unknown or made for images of another size.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(name_seed(str(seed), "segmenter weights") >> 1)
        segmenter = Segmenter(info, registry)
    if config.encoder_weights is not None:
        load_encoder(segmenter, Path(config.encoder_weights))
    check_input(segmenter, info.size, name=info.architecture)
    return segmenter


def training_loss(logits: Tensor, masks: Tensor, loss: Loss) -> Tensor:
    """Return the loss of the first channel plus, weighted, the mean of those of auxiliary heads' channels."""
    final, *others = (loss(channel, masks) for channel in logits.split(1, dim=1))
    return final + AUXILIARY_WEIGHT * sum(others) / len(others) if others else final


def mean_dice(model: nn.Module, pairs: Pairs, config: SegmentationConfig, context: Context) -> float:
    """Return the mean Dice over images of ``model``, in evaluation mode, on ``pairs``."""
    scores = []
    for first in range(0, len(pairs), config.batch_size):
        images, masks = pairs.take(range(first, min(first + config.batch_size, len(pairs))))
        probabilities = lesion_probabilities(model, images, size=config.size, context=context)
        scores.append(Overlap.of(probabilities >= THRESHOLD, masks > THRESHOLD).dice)
    return float(torch.cat(scores).mean())
