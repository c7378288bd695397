"""Captions that a training learns from: those that come with the data, or those that an annotator writes."""

from __future__ import annotations

from collections.abc import Callable

from ...core.batch import Batch
from ...core.chain import Chain
from ...core.context import Context
from ...core.dataset import Dataset
from ...core.errors import DataError
from ...core.execution import set_up

BATCH = 32


def captions_for(
    dataset: Dataset, captioner: str, context: Context, *, prepare: Callable[[Batch], Batch] | None = None
) -> list[str]:
    """Return one caption an image, in the dataset's order.

    Args:
        captioner: a chain of annotators such as ``derm-prompt``; empty for the captions that come with the data.
        prepare: applied to every batch before it is captioned, to mirror it, say.

    Raises:
        DataError: an image gets no caption.
    """
    captions: list[str | None]
    if captioner:
        stages = set_up(
            Chain.parse(captioner),
            device=context.device,
            precision=context.precision,
            seed=context.seed,
            registry=context.registry,
        )
        captions = []
        for batch in dataset.batches(BATCH):
            batch = (prepare(batch) if prepare else batch).to(context.device)
            for stage in stages.values():
                batch = stage(batch)
            captions += batch.prompts or [None] * len(batch)
    else:
        captions = [record.caption for record in dataset.records]
    written = [caption for caption in captions if caption]
    if len(written) < len(captions):
        image_id = dataset.ids[next(row for row, caption in enumerate(captions) if not caption)]
        source = f"captioner {captioner!r} gave" if captioner else f"dataset {dataset.name} has"
        raise DataError(f"{source} no caption for image {image_id!r}; every training image needs one")
    return written
