"""``lesionforge demo``: the whole of it in a few minutes, on phantoms unless data are given."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options
from .launch import Launch
from .recipe_argument import is_run_folder, read_recipe, with_settings

RECIPE = "demo"


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Run folder; what stands there is gone on with.")
    ] = Path("runs/demo"),
    data: options.Data = None,
    count: options.Count = None,
    device: options.Device = "auto",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a small diffusion model and a segmenter, make cases, screen them, and write the report.

    Without --data it works on procedural phantoms: quick, and nothing to conclude from.
    """
    recipe = with_settings(read_recipe(RECIPE), {"data.source": data, "synthesis.count": count}, [])
    Launch(recipe, output, is_run_folder(output), device, 1, True, quiet, as_json).carry_out(dry_run=False)
