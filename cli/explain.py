"""``lesionforge explain``: where classifiers look, on one sheet."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options
from .data_argument import load
from .output import columns, console, number, printable, write_json
from .progress import following, tell

if TYPE_CHECKING:
    from ..core.explaining import Explained

ALL_SPLITS = "all"

Checkpoints = Annotated[
    list[str],
    typer.Argument(
        metavar="CHECKPOINT",
        help="Folders that the trainer classification wrote, such as RUN/train/R RUN/train/R+S.",
        show_default=False,
    ),
]
Data = Annotated[
    str,
    typer.Option(
        "--data",
        "-d",
        metavar="SPEC",
        help="Data as SOURCE:PATH or SOURCE(key=value):PATH, or a run folder, whose accepted cases are meant.",
        show_default=False,
    ),
]
Sheet = Annotated[
    Path, typer.Option("--output", "-o", metavar="FILE.png", help="Write the sheet there.", show_default=False)
]
Split = Annotated[str, typer.Option("--split", help=f"train, val or test; {ALL_SPLITS} for all cases.")]
Methods = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        "-m",
        metavar="METHODS",
        help="Some of gradcam, saliency and occlusion, with commas between; may be repeated.",
        show_default="all three",
    ),
]
Count = Annotated[
    int, typer.Option("--count", "-n", min=1, max=64, help="Number of cases, as many of each class, evenly chosen.")
]


def explain(
    checkpoints: Checkpoints,
    data: Data,
    output: Sheet,
    split: Split = "test",
    method: Methods = None,
    count: Count = 8,
    size: Annotated[int, typer.Option("--size", min=32, max=1024, help="Edge of its pictures in pixels.")] = 160,
    device: options.Device = "auto",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Draw where classifiers look: GradCAM, saliency and occlusion, a row a case, several classifiers side by side.

    lesionforge explain RUN/train/R RUN/train/R+S --data isic2018:PATH --output sheet.png
    """
    from ..core.durable import write_bytes
    from ..core.explaining import METHODS, explain
    from ..core.heat_sheet import heat_sheet

    dataset = load(data, None if split == ALL_SPLITS else split)
    methods = [name.strip() for names in method or METHODS for name in names.split(",")]
    with following(quiet=quiet) as observers:
        progress = partial(tell, observers, "explaining")
        found = explain(checkpoints, dataset, methods=methods, count=count, device=device, progress=progress)
        picture = io.BytesIO()
        heat_sheet(found, tile=size).save(picture, format="PNG")
        write_bytes(output, picture.getvalue())
    if as_json:
        write_json({**found.as_dict(), "split": split, "sheet": str(output)})
    elif not quiet:
        _print(found, output)


def _print(found: Explained, sheet: Path) -> None:
    rows: list[list[object]] = []
    for case in found.cases:
        said = [f"{one.predicted} {number(one.probability)}" for one in case.explanations]
        rows.append([case.image_id, case.label or "no label", *said])
    out = console()
    out.print(columns(rows, header=("image", "label", *found.checkpoints)))
    out.print(printable(sheet), soft_wrap=True)
