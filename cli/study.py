"""``lesionforge study``: are synthetic cases worth anything? Arms of training data compared on real test images."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options
from .completion import complete_study
from .grid_progress import GridProgress
from .launch import resumable, show_plan
from .output import write_json
from .progress import following
from .recipe_argument import LONGEST_NAME, SHIPPED, read_setting
from .study_summary import print_plan, print_results

if TYPE_CHECKING:
    from ..core.study.recipe import Study
    from ..core.study.results import StudyResults

StudyArgument = Annotated[
    str,
    typer.Argument(
        metavar="STUDY",
        help="A study file, the name of a built-in study, or a study folder together with --resume.",
        autocompletion=complete_study,
        show_default=False,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="DIR", help="Study folder to make.", show_default="runs/NAME"),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Set one value: study.key, data.key, model.NAME.key, arm.NAME.key, external.NAME.key, synthetic.NAME.key, "
        "or synthetic.NAME.set.PATH for a value of the recipe that makes the set. May be repeated.",
        show_default=False,
    ),
]
Shard = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Carry out only part I of N of the trainings; a last call without --shard makes tables and report.",
        show_default=False,
    ),
]
Budget = Annotated[
    str | None,
    typer.Option("--budget", help="steps or epochs: what is equal in all arms; replaces the study's own."),
]
AllowLeak = Annotated[
    bool,
    typer.Option("--allow-leak", help="Go on where training and test data overlap; the report says so in red."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with a study; trainings that are finished are kept.")]
NoReport = Annotated[bool, typer.Option("--no-report", help="Do not write report/index.html; tables are written.")]


def study(
    study: StudyArgument,
    output: Output = None,
    data: options.Data = None,
    settings: Settings = None,
    budget: Budget = None,
    shard: Shard = None,
    allow_leak: AllowLeak = False,
    device: options.Device = "auto",
    resume: Resume = False,
    dry_run: options.DryRun = False,
    no_report: NoReport = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train every model in every arm, at every number of real images and with every seed, and say what follows.

    lesionforge study study-small --data isic2018:PATH
    lesionforge study runs/study-small --resume
    """
    folder = Path(study) if is_study_folder(study) else None
    if folder is not None:
        _check_goes_on(folder, output, resume=resume or shard is not None or dry_run)
    wanted = _with_settings(_read(study), data, budget, settings or [])
    place = folder or output or _default_output(wanted)
    if dry_run:
        show_plan(wanted.plan(output=place, resume=resume), print_plan, as_json=as_json, quiet=quiet)
        return
    with resumable("study", place, is_study_folder), following(quiet=quiet, observer=GridProgress) as observers:
        results = wanted.run(
            output=place,
            resume=resume,
            shard=_part(shard),
            allow_leak=allow_leak,
            device=device,
            observers=observers,
            report=not no_report,
        )
    if as_json:
        write_json({"output": str(place), "assembled": results.assembled, **_summary(results)})
    elif not quiet:
        print_results(results)


def is_study_folder(text: str | Path) -> bool:
    """True where the path is a folder that holds a study."""
    return (Path(text) / "study.toml").is_file()


def _read(text: str) -> Study:
    """Return the study of a folder, of a file, or of a built-in name."""
    from ..core.errors import ConfigError
    from ..core.shipped import shipped_studies
    from ..core.study.recipe import Study

    path = Path(text)
    if is_study_folder(path):
        return Study.load(path / "study.toml")
    if path.is_file():
        return Study.load(path)
    built_in = shipped_studies(SHIPPED)
    if text in built_in:
        return Study.load(built_in[text])
    raise ConfigError(f"there is no study {text}; built in are {', '.join(built_in) or 'none'}")


def _with_settings(study: Study, data: str | None, budget: str | None, settings: Iterable[str]) -> Study:
    """Return the study with the values of options, and above them those of ``--set``."""
    from ..core.errors import ConfigError

    for option, path, value in (("--data", "data.source", data), ("--budget", "study.budget", budget)):
        if value is not None:
            try:
                study = study.with_value(path, value)
            except ConfigError as error:
                raise ConfigError(f"{option}: {str(error).removeprefix(f'--set {path}: ')}") from None
    for setting in settings:
        path, sign, written = setting.partition("=")
        if not sign or not path.strip():
            raise ConfigError(f"--set {setting}: expected PATH=VALUE, for example study.seeds=[0, 1]")
        study = study.with_value(path.strip(), read_setting(written.strip(), path.strip()))
    return study


def _check_goes_on(folder: Path, output: Path | None, *, resume: bool) -> None:
    from ..core.errors import ConfigError

    if not resume:
        raise ConfigError(f"{folder} is a study folder; add --resume to go on with it")
    if output is not None and output.resolve() != folder.resolve():
        raise ConfigError(f"{folder} goes on where it is; leave out --output, or name {folder}/study.toml")


def _part(shard: str | None) -> tuple[int, int] | None:
    from ..core.errors import ConfigError

    if shard is None:
        return None
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", shard)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise ConfigError(f"--shard {shard}: expected I/N with I from 1 to N, for example 2/4")
    return int(match[1]), int(match[2])


def _default_output(study: Study) -> Path:
    name = re.sub(r"[^\w.+-]+", "-", study.name).strip("-.")[:LONGEST_NAME]
    return Path("runs", name or "study")


def _summary(results: StudyResults) -> dict[str, object]:
    page = results.report
    return {**(results.summary() if results.assembled else {}), "report": str(page) if page else None}
