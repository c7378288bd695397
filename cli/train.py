"""``lesionforge train``: one trainer on real data, or the trainings of a recipe."""

from __future__ import annotations

from typing import Annotated

import typer

from . import options
from .completion import complete_recipe
from .launch import Launch
from .recipe_argument import default_output, only_trainings, read_training, with_settings


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="TRAINING",
            help="A trainer such as 'segmentation(architecture=\"unet\", steps=300)', a recipe file, or the name of a "
            "built-in recipe.",
            autocompletion=complete_recipe,
            show_default=False,
        ),
    ],
    output: options.Output = None,
    data: options.Data = None,
    job: Annotated[
        str | None,
        typer.Option("--job", metavar="NAME", help="Only this training of the recipe, and those it builds upon."),
    ] = None,
    seed: options.Seed = None,
    settings: options.Settings = None,
    precision: options.Precision = None,
    device: options.Device = "auto",
    resume: options.Resume = False,
    dry_run: options.DryRun = False,
    no_report: options.NoReport = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train on real data and evaluate on the test split; the checkpoint lies in OUTPUT/train/NAME.

    lesionforge train 'segmentation(steps=300)' --data isic2018:PATH --output runs/segmenter
    """
    chosen = only_trainings(read_training(recipe), job)
    wanted = with_settings(chosen, {"data.source": data, "seed": seed, "precision": precision}, settings or [])
    folder = output or default_output(wanted)
    launch = Launch(wanted, folder, resume, device, 1, not no_report, quiet, as_json)
    launch.carry_out(dry_run=dry_run)
