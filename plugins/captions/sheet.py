"""A picture of images with their captions below, for a first look before the review."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from ...core.dataset import Dataset

TILE = 192
COLUMNS = 6
SHOWN = 24
LETTERS = 35
"""Letters a line."""
LINES = 7
LINE_HEIGHT = 11


def caption_sheet(dataset: Dataset, captions: Sequence[str]) -> Image.Image:
    """Return up to 24 images of ``dataset``, evenly chosen, each above its caption of ``captions``."""
    count = min(SHOWN, len(dataset))
    chosen = [place * len(dataset) // count for place in range(count)]
    height = TILE + LINES * LINE_HEIGHT + 6
    sheet = Image.new("RGB", (min(COLUMNS, count) * TILE, -(-count // COLUMNS) * height), "white")
    pen, font = ImageDraw.Draw(sheet), _font()
    for place, row in enumerate(chosen):
        x, y = place % COLUMNS * TILE, place // COLUMNS * height
        sheet.paste(Image.fromarray(dataset.resized(TILE - 4).image(row)), (x + 2, y))
        lines = textwrap.wrap(captions[row], LETTERS, max_lines=LINES)
        for number, line in enumerate(lines):
            pen.text((x + 2, y + TILE - 2 + number * LINE_HEIGHT), line, fill="black", font=font)
    return sheet


def _font() -> ImageFont.FreeTypeFont:
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), 9)
