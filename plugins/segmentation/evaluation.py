"""How well a trained segmenter does on held-out real images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from ...core.architectures import parameter_count
from ...core.context import Context
from ...core.dataset import Dataset
from ...core.predictions import FoundMasks
from ..supervised.tables import write_table
from .config import SegmentationConfig
from .metrics import Overlap
from .pairs import require_masks
from .prediction import lesion_probabilities
from .segmenter import load_segmenter
from .surfaces import SurfaceDistances, surface_distances

COLUMNS = ("image_id", "dice", "iou", "hd95", "asd")
THRESHOLD = 0.5


def evaluate_segmenter(
    config: SegmentationConfig, context: Context, test: Dataset, output: Path
) -> Mapping[str, float]:
    """Evaluate the checkpoint in ``output`` at its own size; write ``per_image.csv`` and ``masks.npz`` there.

    Returns:
        Means over images of ``dice``, ``iou``, ``hd95`` and ``asd`` (pixels at that size), ``dice_aggregated``,
        ``parameters``, and ``distances_undefined``: the number of images left out of the means of ``hd95`` and
        ``asd`` because one of both masks is empty.

    Raises:
        DataError: a test case has no mask.
        CheckpointError: the checkpoint cannot be used.
    """
    require_masks(test, "evaluating a segmenter")
    segmenter, info = load_segmenter(output, context.registry)
    segmenter.on(context.device)
    overlaps: list[Overlap] = []
    masks = FoundMasks()
    distances: list[SurfaceDistances] = []
    for batch in test.resized(info.size).batches(config.batch_size, masks=True):
        assert batch.images is not None and batch.masks is not None
        images = batch.images.to(context.device)
        probabilities = lesion_probabilities(segmenter, images, size=info.size, context=context)
        found, truth = (probabilities >= THRESHOLD).cpu(), batch.masks > THRESHOLD
        overlaps.append(Overlap.of(found, truth))
        masks.add(batch.ids, found[:, 0].numpy())
        pairs = zip(found[:, 0].numpy(), truth[:, 0].numpy(), strict=True)
        distances += [surface_distances(*pair, convention=config.surface_convention) for pair in pairs]
        context.progress(len(distances), len(test), {})
    overlap = Overlap.joined(overlaps)
    columns = (overlap.dice.tolist(), overlap.iou.tolist(), [d.hd95 for d in distances], [d.asd for d in distances])
    write_table(output / "per_image.csv", COLUMNS, zip(test.ids, *columns, strict=True))
    masks.write(output)
    means = {name: _mean_of_defined(column) for name, column in zip(COLUMNS[1:], columns, strict=True)}
    return {
        **means,
        "dice_aggregated": overlap.aggregated_dice,
        "parameters": float(parameter_count(segmenter.network)),
        "distances_undefined": float(sum(math.isnan(d.asd) for d in distances)),
    }


def _mean_of_defined(values: list[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return math.fsum(defined) / len(defined) if defined else float("nan")
