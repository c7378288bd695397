"""Pictures for people: reconstructions beside their images, and curves."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from ....core.durable import write_bytes
from ....core.pictures import contact_sheet
from ..samples import levels, save_sheet


def save_reconstructions(images: Tensor, decoded: Tensor, folder: Path, step: int) -> None:
    """Write ``step-NNNNNN.png``: (N, 3, H, W) images in [-1, 1] in the upper row, what comes back in the lower."""
    both = [*levels((images + 1) / 2), *levels((decoded + 1) / 2)]
    sheet = contact_sheet(both, columns=len(images), tile=images.shape[-1], title="images, and decoded again")
    save_sheet(sheet, folder, step)


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
