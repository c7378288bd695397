"""Writes the captions of a dataset for people to review."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.context import Context, choose_device, choose_precision
from ...core.durable import write_bytes, write_text
from .budget import PromptBudget
from .captioners import open_captioner
from .reviewed import caption_lines
from .sheet import caption_sheet

if TYPE_CHECKING:
    from ...core.dataset import Dataset
    from .config import DescriptionConfig

CAPTION_FILE = "captions.jsonl"
SHEET_FILE = "captions.jpg"
BATCH_SIZE = 16


def export_captions(dataset: Dataset, config: DescriptionConfig, size: int, output: Path) -> None:
    """Write ``captions.jsonl`` with a sentence for each image, looked at in ``size`` pixels, and a picture of some."""
    device = choose_device()
    context = Context(device, choose_precision("auto", device), name="derm-prompt")
    budget = PromptBudget(config.prefix, config.max_tokens, config.terms)
    captioner = open_captioner(config, budget, context)
    captions: list[tuple[str, str]] = []
    for batch in dataset.resized(size).batches(BATCH_SIZE, masks="filled"):
        found = budget.sentences(batch, captioner.sentences(batch.to(device)))
        captions += zip(batch.ids, found, strict=True)
    write_text(output / CAPTION_FILE, caption_lines(captions))
    sheet = io.BytesIO()
    caption_sheet(dataset, [caption for _, caption in captions]).save(sheet, format="JPEG", quality=80)
    write_bytes(output / SHEET_FILE, sheet.getvalue())
