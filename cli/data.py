"""``lesionforge data``: look at datasets, and write them in other layouts."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options
from .completion import complete_exporter
from .data_argument import load
from .outcome import Verb
from .output import columns, console, number, printable, write_json
from .progress import following, tell

if TYPE_CHECKING:
    from ..core.inspection import Inspection

SHOWN_SIZES = 5
SHOWN_PROBLEMS = 10

app = typer.Typer(help="Look at datasets, and write them in other layouts.", no_args_is_help=True)

DataArgument = Annotated[
    str,
    typer.Argument(
        metavar="SPEC",
        help="Data as SOURCE:PATH or SOURCE(key=value):PATH, or a run folder, whose accepted cases are meant.",
        show_default=False,
    ),
]
Split = Annotated[str | None, typer.Option("--split", help="Only this split: train, val or test.", show_default=False)]


@app.command(cls=Verb)
def inspect(
    spec: DataArgument,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE.png", help="Write a contact sheet there.", show_default=False),
    ] = None,
    size: Annotated[int, typer.Option("--size", min=32, max=1024, help="Edge of its pictures in pixels.")] = 160,
    split: Split = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Decode every image and mask, and tell what is there and what is wrong."""
    from ..core.durable import write_bytes
    from ..core.inspection import inspect
    from ..core.pictures import dataset_sheet

    dataset = load(spec, split)
    with following(quiet=quiet) as observers:
        found = inspect(dataset, progress=partial(tell, observers, "decoding"))
        if output is not None:
            sheet = io.BytesIO()
            dataset_sheet(dataset, tile=size).save(sheet, format="PNG")
            write_bytes(output, sheet.getvalue())
    if as_json:
        write_json({**found.as_dict(), "sheet": str(output) if output else None})
    elif not quiet:
        _print(found, output)


@app.command(cls=Verb)
def export(
    spec: DataArgument,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="EXPORTER",
            help="Exporter as name or name(key=value).",
            autocompletion=complete_exporter,
            show_default=False,
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="New folder to write.", show_default=False)
    ],
    split: Split = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write data, or the accepted cases of a run, in a layout that other programs read."""
    from ..core.exporting import export_dataset

    dataset = load(spec, split)
    with following(quiet=quiet):
        export_dataset(dataset, to, output)
    if as_json:
        write_json({"output": str(output), "cases": len(dataset), "phantom": dataset.phantom})
    elif not quiet:
        noun = "phantoms" if dataset.phantom else "images"
        console().print(f"{len(dataset):,} {noun} in {printable(output)}", soft_wrap=True)


def _print(found: Inspection, sheet: Path | None) -> None:
    kind = "procedural phantoms" if found.phantom else "images"
    rows: list[Sequence[object]] = [["data", found.name], [kind, _with_parts(found.cases, found.splits)]]
    repeated = f", {number(found.repeated_lesions)} of them seen more than once" if found.repeated_lesions else ""
    rows += [["lesions", f"{number(found.lesions)}{repeated}"]]
    sizes = [f"{size} ({number(count)})" for size, count in list(found.sizes.items())[:SHOWN_SIZES]]
    more = len(found.sizes) - SHOWN_SIZES
    rows += [["pixels", ", ".join(sizes) + (f" and {more:,} other sizes" if more > 0 else "")]]
    rows += [["masks", _but_missing(found.masks, found.missing_masks)]]
    if found.mask_statistics:
        area = found.mask_statistics.area
        spread = f"median {area['median']:.1%}, from {area['p5']:.1%} (5th percentile) to {area['p95']:.1%} (95th)"
        rows += [["  lesion area", spread], ["  cut by border", f"{found.mask_statistics.border_touching:.1%}"]]
    rows += [["captions", _but_missing(found.captions, found.cases - found.captions)]]
    rows += [["labels", _but_missing(found.cases - found.missing_labels, found.missing_labels)]]
    for label, splits in found.labels.items():
        rows.append([f"  {label}", _with_parts(sum(splits.values()), splits)])
    rows.append(["problems", number(len(found.problems)) if found.problems else "none"])
    rows += [[f"  {kind}", number(count)] for kind, count in found.problem_counts.items()]
    if sheet is not None:
        rows.append(["sheet", sheet])
    out = console()
    out.print(columns(rows))
    shown = Counter[str]()
    for problem in found.problems:
        shown[problem.kind] += 1
        if shown[problem.kind] <= SHOWN_PROBLEMS:
            out.print(f"  {problem.kind}: {printable(problem.message)}", style="yellow", soft_wrap=True)


def _but_missing(present: int, missing: int) -> str:
    if not present:
        return "none"
    return f"{number(present)}, {number(missing)} images have none" if missing else number(present)


def _with_parts(total: int, parts: Mapping[str, int]) -> str:
    listed = ", ".join(f"{name} {number(count)}" for name, count in parts.items())
    return number(total) if set(parts) == {"unassigned"} else f"{number(total)}, of which {listed}"
