"""Options that several verbs share, with the same name, meaning and help everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .completion import complete_recipe

RecipeArgument = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="A recipe file, the name of a built-in recipe, a chain such as 'phantom(size=64) | mask-quality', "
        "or a run folder together with --resume.",
        autocompletion=complete_recipe,
        show_default=False,
    ),
]
RunArgument = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run folder, as `run` makes it.", show_default=False)
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="DIR", help="Run folder to make.", show_default="runs/NAME"),
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        "-d",
        metavar="SPEC",
        help="Real data, as SOURCE:PATH or SOURCE(key=value):PATH; replaces the recipe's own.",
        show_default=False,
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Set one value: stage.key=VALUE, training.key=VALUE, data.key=VALUE, synthesis.key=VALUE. The value is "
        "written as in TOML; a bare word is text. May be repeated; outranks every other option.",
        show_default=False,
    ),
]
Count = Annotated[int | None, typer.Option("--count", "-n", help="Number of cases to make.", show_default=False)]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of all randomness.", show_default=False)]
BatchSize = Annotated[
    int | None,
    typer.Option(
        "--batch-size", help="Cases that networks see at once; part of a case's identity.", show_default=False
    ),
]
ShardSize = Annotated[
    int | None, typer.Option("--shard-size", help="Cases committed to disk at once.", show_default=False)
]
Workers = Annotated[int, typer.Option("--workers", "-w", min=1, help="Processes that share the shards.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 ...")]
Precision = Annotated[
    str | None,
    typer.Option(
        "--precision", help="auto, fp32 or bf16: arithmetic of networks, in chain and trainings.", show_default=False
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run; the result is the same.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and create nothing.")]
NoReport = Annotated[bool, typer.Option("--no-report", help="Do not write report/index.html.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output, for errors as well.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no summary; errors are still printed.")]
