"""The back-ends that write a sentence for each image of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from .attributes import measure
from .reviewed import read_captions
from .wording import describe

if TYPE_CHECKING:
    from ...core.batch import Batch
    from ...core.context import Context
    from .budget import PromptBudget
    from .config import DescriptionConfig


class Captioner(Protocol):
    """Writes sentences about images."""

    def sentences(self, batch: Batch) -> list[str]:
        """Return one sentence for each case of a batch with images."""
        ...


class MeasuredCaptioner:
    """Words what can be measured in image and mask; needs no model."""

    def __init__(self, *, varied: bool, stream: str) -> None:
        self._varied, self._stream = varied, stream

    def sentences(self, batch: Batch) -> list[str]:
        """Return one sentence for each case; without masks they say nothing about lesions."""
        assert batch.images is not None
        return describe(measure(batch.images, batch.masks), batch.seeds, varied=self._varied, stream=self._stream)


class ReviewedCaptioner:
    """Takes the captions that people have reviewed, and asks another captioner about all other images."""

    def __init__(self, captions: Mapping[str, str], other: Captioner) -> None:
        self._captions, self._other = captions, other

    def sentences(self, batch: Batch) -> list[str]:
        """Return one sentence for each case, found by its id or new."""
        rows = [row for row, image_id in enumerate(batch.ids) if image_id not in self._captions]
        new = iter(self._other.sentences(batch.select(rows)) if rows else [])
        return [self._captions[image_id] if image_id in self._captions else next(new) for image_id in batch.ids]


def open_captioner(config: DescriptionConfig, budget: PromptBudget, context: Context) -> Captioner:
    """Return the captioner that ``config`` asks for, its model loaded.

    Raises:
        CheckpointError: the vision-language model cannot be used.
        DataError: the file of reviewed captions cannot be read.
    """
    captioner = _backend(config, budget, context)
    return ReviewedCaptioner(read_captions(Path(config.captions)), captioner) if config.captions else captioner


def _backend(config: DescriptionConfig, budget: PromptBudget, context: Context) -> Captioner:
    if config.backend == "endpoint":
        from .chat_captions import ChatCaptioner

        return ChatCaptioner(config, budget)
    if config.backend == "transformers":
        from .vision_language import VisionLanguageCaptioner

        return VisionLanguageCaptioner(str(config.checkpoint), budget, context)
    return MeasuredCaptioner(varied=config.wording == "varied", stream=context.name or "derm-prompt")
