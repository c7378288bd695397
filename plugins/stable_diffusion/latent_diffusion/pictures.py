"""Pictures for people: reconstructions beside their images, samples with their captions, curves."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from ....core.durable import write_bytes
from ....core.pictures import contact_sheet

CAPTION_COLUMNS = 26
CAPTION_LINES = 4


def save_reconstructions(images: Tensor, decoded: Tensor, folder: Path, step: int) -> None:
    """Write ``step-NNNNNN.png``: (N, 3, H, W) images in [-1, 1] in the upper row, what comes back in the lower."""
    both = [*_arrays(images), *_arrays(decoded)]
    sheet = contact_sheet(both, columns=len(images), tile=images.shape[-1], title="images, and decoded again")
    _save(sheet, folder, step)


def save_samples(images: Tensor, captions: Sequence[str], folder: Path, step: int) -> None:
    """Write ``step-NNNNNN.png``: (N, 3, H, W) images in [-1, 1] with their captions below."""
    lines = ["\n".join(textwrap.wrap(caption, CAPTION_COLUMNS)[:CAPTION_LINES]) for caption in captions]
    sheet = contact_sheet(_arrays(images), captions=lines, tile=max(images.shape[-1], 160), title=f"step {step}")
    _save(sheet, folder, step)


def save_curves(tables: Sequence[Path], file: Path) -> None:
    """Draw every column of every table of curves over its steps, one row of plots a table."""
    from matplotlib.figure import Figure

    read = [_columns(table) for table in tables]
    widest = max(map(len, read))
    figure = Figure(figsize=(3.2 * widest, 2.4 * len(read)), layout="constrained")
    for row, (table, columns) in enumerate(zip(tables, read, strict=True)):
        for column, (name, (steps, values)) in enumerate(columns.items()):
            axes = figure.add_subplot(len(read), widest, row * widest + column + 1)
            axes.plot(steps, values, linewidth=1)
            axes.set_title(f"{table.parent.name}: {name}" if row == 0 else name, fontsize=8)
            axes.tick_params(labelsize=7)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=100)
    write_bytes(file, picture.getvalue())


def _columns(table: Path) -> dict[str, tuple[list[float], list[float]]]:
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name not in ("step", "learning_rate")]
    return {name: ([float(row["step"]) for row in rows], [float(row[name]) for row in rows]) for name in names}


def _arrays(images: Tensor) -> list:
    pixels = ((images.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return list(pixels)


def _save(sheet: Image.Image, folder: Path, step: int) -> None:
    folder.mkdir(exist_ok=True)
    picture = io.BytesIO()
    sheet.save(picture, "PNG")
    write_bytes(folder / f"step-{step:06d}.png", picture.getvalue())
