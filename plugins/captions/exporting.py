"""Writes the captions of a dataset for people to review."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...core.context import Context, choose_device, choose_precision
from ...core.durable import write_text
from .budget import PromptBudget
from .captioners import open_captioner
from .reviewed import caption_lines

if TYPE_CHECKING:
    from ...core.dataset import Dataset
    from .config import DescriptionConfig

CAPTION_FILE = "captions.jsonl"
BATCH_SIZE = 16


def export_captions(dataset: Dataset, config: DescriptionConfig, size: int, output: Path) -> None:
    """Write ``captions.jsonl`` with a sentence for each image, looked at in ``size`` pixels."""
    device = choose_device()
    context = Context(device, choose_precision("auto", device), name="derm-prompt")
    budget = PromptBudget(config.prefix, config.max_tokens)
    captioner = open_captioner(config, budget, context)
    captions: list[tuple[str, str]] = []
    for batch in dataset.resized(size).batches(BATCH_SIZE):
        found = budget.sentences(batch, captioner.sentences(batch.to(device)))
        captions += zip(batch.ids, found, strict=True)
    write_text(output / CAPTION_FILE, caption_lines(captions))
