"""``lesionforge metrics``: how alike are two datasets, or the images of the same cases in both?"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options
from .completion import complete_metric
from .data_argument import load
from .output import columns, complain, console, number, plain, printable, write_json
from .progress import following, tell

if TYPE_CHECKING:
    from ..core.metrics import Measurement, Results

DATA_HELP = "Data as SOURCE:PATH or SOURCE(key=value):PATH, or a run folder, whose accepted cases are meant."
First = Annotated[str, typer.Argument(metavar="A", help=DATA_HELP, show_default=False)]
Second = Annotated[str, typer.Argument(metavar="B", help="The data to compare with, named alike.", show_default=False)]
Metrics = Annotated[
    list[str] | None,
    typer.Option(
        "--metric",
        "-m",
        metavar="METRIC",
        help="Metric as name or name(key=value); may be repeated. By default all that need no settings, those of "
        "paired images only where image ids are shared.",
        autocompletion=complete_metric,
        show_default=False,
    ),
]
SplitA = Annotated[str | None, typer.Option("--split-a", help="Only this split of A.", show_default=False)]
SplitB = Annotated[str | None, typer.Option("--split-b", help="Only this split of B.", show_default=False)]
Size = Annotated[
    int | None,
    typer.Option("--size", min=1, help="Edge in pixels to which all images are resized.", show_default="their own"),
]
JsonFile = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="Write the results there as JSON.", show_default=False),
]
ChosenSeed = Annotated[int, typer.Option("--seed", help="Seed of random pairs and of resamples.")]


def metrics(
    first: First,
    second: Second,
    metric: Metrics = None,
    split_a: SplitA = None,
    split_b: SplitB = None,
    size: Size = None,
    seed: ChosenSeed = 0,
    device: options.Device = "auto",
    output: JsonFile = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure how alike two datasets are, by FID, KID, LPIPS, SSIM ...; exit with 2 where a metric is refused."""
    from ..core.durable import write_text
    from ..core.metrics import compare

    a, b = load(first, split_a, size=size), load(second, split_b, size=size)
    with following(quiet=quiet) as observers:
        results = compare(a, b, metric or (), device=device, seed=seed, progress=partial(tell, observers))
    document = {**results.as_dict(), "size": size, "splits": [split_a, split_b]}
    if output is not None:
        write_text(output, json.dumps(plain(document), indent=2, allow_nan=False) + "\n")
    if as_json:
        write_json(document)
    elif not quiet:
        _print(results)
    for refusal in results.refused:
        complain(f"{refusal.metric}: {refusal.reason}", label="refused")
    if results.refused:
        raise typer.Exit(2)


def _print(results: Results) -> None:
    out = console()
    for letter, data in zip("AB", results.datasets, strict=True):
        out.print(f"{letter}  {printable(data['name'])}: {_counted(data)}", soft_wrap=True)
    if results.measured:
        rows = [_row(measurement) for measurement in results.measured]
        header = ("metric", "value", "95 % interval", "images", "lesions", "pairs", "conventions")
        out.print()
        out.print(columns(rows, header=header, right=(1, 3, 4, 5)))


def _counted(data: Mapping[str, Any]) -> str:
    noun = "procedural phantoms" if data["phantom"] else "images"
    return f"{number(data['images'])} {noun} of {number(data['lesions'])} lesions"


def _row(found: Measurement) -> Sequence[object]:
    interval = "" if found.low is None or found.high is None else f"{number(found.low)} to {number(found.high)}"
    counts = [" | ".join(map(number, both)) for both in (found.images, found.groups)]
    pairs = "" if found.pairs is None else number(found.pairs)
    conventions = ", ".join(f"{key} {number(value)}" for key, value in found.conventions.items())
    return [found.name, number(found.value), interval, *counts, pairs, conventions]
