"""The back-ends that write a sentence for each image of a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from .attributes import measure
from .wording import describe

if TYPE_CHECKING:
    from ...core.batch import Batch
    from ...core.context import Context
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


def open_captioner(config: DescriptionConfig, context: Context) -> Captioner:
    """Return the captioner that ``config`` asks for, ready to work."""
    return MeasuredCaptioner(varied=config.wording == "varied", stream=context.name or "derm-prompt")
