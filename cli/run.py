"""``lesionforge run``: carry out a recipe or a chain."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import options
from .launch import Launch
from .recipe_argument import default_output, is_run_folder, read_recipe, with_settings

if TYPE_CHECKING:
    from ..core.recipe import Recipe


def run(
    recipe: options.RecipeArgument,
    output: options.Output = None,
    data: options.Data = None,
    count: options.Count = None,
    seed: options.Seed = None,
    settings: options.Settings = None,
    batch_size: options.BatchSize = None,
    shard_size: options.ShardSize = None,
    precision: options.Precision = None,
    device: options.Device = "auto",
    workers: options.Workers = 1,
    resume: options.Resume = False,
    dry_run: options.DryRun = False,
    no_report: options.NoReport = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Make cases with a recipe or a chain, screen them, train on them, and write the report.

    lesionforge run demo
    lesionforge run 'phantom(size=64) | mask-quality' --count 100 --output runs/first
    lesionforge run runs/first --resume
    """
    values = {
        "data.source": data,
        "synthesis.count": count,
        "seed": seed,
        "synthesis.batch_size": batch_size,
        "synthesis.shard_size": shard_size,
        "synthesis.precision": precision,
    }
    if is_run_folder(recipe):
        wanted, folder = _stored(Path(recipe), values, settings or [], output, resume=resume), Path(recipe)
    else:
        wanted = with_settings(read_recipe(recipe), values, settings or [])
        folder = output or default_output(wanted)
    launch = Launch(wanted, folder, resume, device, workers, not no_report, quiet, as_json)
    launch.carry_out(dry_run=dry_run)


def _stored(folder: Path, values: dict[str, Any], settings: list[str], output: Path | None, *, resume: bool) -> Recipe:
    """Return the recipe of a run folder; raises ConfigError where another one is asked for at the same time."""
    from ..core.errors import ConfigError
    from ..core.run import Run

    given = [path.rpartition(".")[2].replace("_", "-") for path, value in values.items() if value is not None]
    given += ["set"] if settings else []
    given += ["output"] if output is not None and output.resolve() != folder.resolve() else []
    if not resume:
        raise ConfigError(f"{folder} is a run folder; add --resume to go on with it")
    if given:
        options_given = ", ".join(f"--{'data' if name == 'source' else name}" for name in given)
        raise ConfigError(f"{folder} goes on with its own recipe; leave out {options_given}")
    return Run(folder).recipe
