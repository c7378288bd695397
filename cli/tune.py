"""``lesionforge tune``: search the settings of a chain for those with the best metric."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options
from .completion import complete_metric, complete_recipe
from .launch import resumable, show_plan
from .output import complain, write_json
from .progress import following
from .recipe_argument import default_output, read_recipe, with_settings
from .tuning_summary import print_plan, print_tuning

if TYPE_CHECKING:
    from ..core.tuning.search import Search

USUAL_TRIALS = 20

Recipe = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="A recipe file, the name of a built-in recipe, a chain such as 'phantom(size=64) | mask-quality', or the "
        "folder of a search together with --resume.",
        autocompletion=complete_recipe,
        show_default=False,
    ),
]
Searched = Annotated[
    list[str] | None,
    typer.Option(
        "--search",
        "-s",
        metavar="PLACE.KEY=VALUES",
        help="Values to try for a key of a stage or training: LOW..HIGH, LOW..HIGH:log, LOW..HIGH:step=N, or a|b|c. "
        "May be repeated.",
        show_default=False,
    ),
]
Metric = Annotated[
    str | None,
    typer.Option(
        "--metric",
        "-m",
        metavar="METRIC",
        help="What to optimise: a metric as name or name(key=value) between real and accepted cases, score:NAME (mean "
        "over accepted cases), kept (share of accepted cases), or TRAINING.val_NAME (best of a validation curve).",
        autocompletion=complete_metric,
        show_default=False,
    ),
]
Direction = Annotated[
    str | None,
    typer.Option("--direction", help="minimize or maximize, where the metric does not tell.", show_default=False),
]
Split = Annotated[
    str | None,
    typer.Option("--split", help="Real split that metrics compare with: val or train.", show_default="val"),
]
Trials = Annotated[
    int | None,
    typer.Option("--trials", "-t", min=1, help="Number of trials.", show_default=str(USUAL_TRIALS)),
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="DIR", help="Folder to make.", show_default="runs/NAME-tuned"),
]
Count = Annotated[
    int | None, typer.Option("--count", "-n", help="Cases of a trial.", show_default="the recipe's own number")
]
MinKept = Annotated[int, typer.Option("--min-kept", help="Accepted cases below which a trial fails.")]
KeepGoing = Annotated[
    bool, typer.Option("--keep-going", help="Count a trial in which a plugin fails as failed, instead of stopping.")
]


def tune(
    recipe: Recipe,
    search: Searched = None,
    metric: Metric = None,
    trials: Trials = None,
    output: Output = None,
    data: options.Data = None,
    count: Count = None,
    min_kept: MinKept = 1,
    split: Split = None,
    direction: Direction = None,
    seed: options.Seed = None,
    settings: options.Settings = None,
    batch_size: options.BatchSize = None,
    shard_size: options.ShardSize = None,
    precision: options.Precision = None,
    device: options.Device = "auto",
    workers: options.Workers = 1,
    keep_going: KeepGoing = False,
    resume: options.Resume = False,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Search the settings of a chain with Optuna; each trial is a run, and no trial sees the test split.

    lesionforge tune skindualgen --data isic2017:PATH --search 'skindualgen.num_inference_steps=10..60'
    --search 'skindualgen.guidance_scale=1.0..8.0:log' --metric kid --count 256
    lesionforge tune runs/skindualgen-tuned --resume --trials 40
    """
    values = {
        "data.source": data,
        "seed": seed,
        "synthesis.batch_size": batch_size,
        "synthesis.shard_size": shard_size,
        "synthesis.precision": precision,
    }
    if is_tuning_folder(recipe):
        given = {**values, "search": search, "metric": metric, "count": count, "split": split, "direction": direction}
        given["min-kept"] = None if min_kept == 1 else min_kept
        _check_alone(Path(recipe), {**given, "set": settings}, output, resume=resume)
        wanted, folder = _stored(Path(recipe), trials), Path(recipe)
    else:
        tuned = with_settings(read_recipe(recipe), values, settings or [])
        wanted = _planned(
            tuned,
            search,
            metric,
            trials=USUAL_TRIALS if trials is None else trials,
            count=count,
            min_kept=min_kept,
            split=split or "val",
            direction=direction,
        )
        folder = output or default_output(tuned).with_name(f"{default_output(tuned).name}-tuned")
    if dry_run:
        _plan(wanted, folder, resume=resume, as_json=as_json, quiet=quiet)
        return
    from ..core.tuning.tuner import carry_out

    with resumable("tune", folder, is_tuning_folder), following(quiet=quiet) as observers:
        tuning = carry_out(
            wanted,
            output=folder,
            resume=resume,
            keep_going=keep_going,
            device=device,
            workers=workers,
            observers=observers,
        )
    if as_json:
        write_json(tuning.as_dict())
    elif not quiet:
        print_tuning(tuning)
    if tuning.best is None:
        complain(f"no trial has a value; the last one: {tuning.trials[-1].reason}")
        raise typer.Exit(2)


def is_tuning_folder(text: str | Path) -> bool:
    """True where the path is a folder that holds a search."""
    return (Path(text) / "tuning.json").is_file()


def _planned(tuned: Any, search: list[str] | None, metric: str | None, **options: Any) -> Search:
    from ..core.errors import ConfigError
    from ..core.registry import default_registry
    from ..core.tuning.search import plan_search

    if metric is None:
        raise ConfigError("nothing to optimise: name one --metric, such as kid, score:NAME, kept or TRAINING.val_NAME")
    return plan_search(tuned, search or [], metric, registry=default_registry(), **options)


def _stored(folder: Path, trials: int | None) -> Search:
    """Return the search of a folder, with another number of trials where one is given."""
    from ..core.tuning.results import Tuning

    return Tuning(folder).search(trials=trials)


def _check_alone(folder: Path, values: dict[str, Any], output: Path | None, *, resume: bool) -> None:
    """Raise ConfigError where a search's folder is not to be gone on with, or something else is asked for as well."""
    from ..core.errors import ConfigError

    if not resume:
        raise ConfigError(f"{folder} holds a search; add --resume to go on with it")
    given = [path.rpartition(".")[2].replace("_", "-") for path, value in values.items() if value not in (None, [])]
    given += ["output"] if output is not None and output.resolve() != folder.resolve() else []
    if given:
        named = ", ".join(f"--{'data' if name == 'source' else name}" for name in given)
        raise ConfigError(f"{folder} goes on with its own search; leave out {named}")


def _plan(search: Search, folder: Path, *, resume: bool, as_json: bool, quiet: bool) -> None:
    from ..core.tuning.plan import plan_tuning

    show_plan(plan_tuning(search, output=folder, resume=resume), print_plan, as_json=as_json, quiet=quiet)
