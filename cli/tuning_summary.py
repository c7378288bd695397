"""What is said about a search after it, and about its plan before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .output import columns, console, number, printable
from .summary import PHANTOM_NOTICE, data_line, training_rows, values_line

if TYPE_CHECKING:
    from rich.table import Table

    from ..core.recipe import Job
    from ..core.tuning.plan import TuningPlan
    from ..core.tuning.results import Trial, Tuning

SHOWN_TRIALS = 15
SHOWN_REASONS = 5


def print_tuning(tuning: Tuning) -> None:
    """Print the best trials, the reasons of failed ones, the best values and where everything lies."""
    out, best = console(), tuning.best
    better = "lower" if tuning.direction == "minimize" else "higher"
    out.print(f"\n{printable(tuning.measured)}, {better} is better", soft_wrap=True)
    out.print(_trials(tuning))
    reasons = _reasons(tuning)
    for reason, numbers in list(reasons.items())[:SHOWN_REASONS]:
        noun = "trial" if len(numbers) == 1 else "trials"
        named = f"{noun} {', '.join(map(str, numbers))} failed"
        out.print(f"{named}: {printable(reason)}", style="yellow", soft_wrap=True)
    if len(reasons) > SHOWN_REASONS:
        out.print(f"and {len(reasons) - SHOWN_REASONS} more reasons in history.csv", style="yellow")
    out.print()
    places, rows = tuning.places, list[Sequence[object]]()
    if best is not None:
        rows += [["best", f"trial {best.number}, {number(best.value)}"], ["run", best.run], ["recipe", places.best]]
    rows += [["history", places.history], ["picture", places.picture], ["study", places.study]]
    out.print(columns(rows), soft_wrap=True)
    if tuning.is_phantom():
        out.print(PHANTOM_NOTICE, style="dim")


def _trials(tuning: Tuning) -> Table:
    """Return the best trials and the failed ones, as many as are easily looked at."""
    sign = 1 if tuning.direction == "minimize" else -1
    measured = [trial for trial in tuning.trials if trial.value is not None]
    failed = [trial for trial in tuning.trials if trial.value is None]
    shown = [*sorted(measured, key=lambda trial: sign * (trial.value or 0)), *failed][:SHOWN_TRIALS]
    intervals, made = any(trial.low is not None for trial in shown), any(trial.cases for trial in shown)
    header = ["trial", "value", *(["95 % interval"] if intervals else []), *(["kept"] if made else [])]
    rows = [_row(trial, tuning, intervals=intervals, made=made) for trial in shown]
    paths = [space.path for space in tuning.spaces]
    table = columns(rows, header=[*header, *map(printable, paths)], right=(0, 1))
    left = len(tuning.trials) - len(shown)
    if left:
        table.caption, table.caption_justify = f"and {left:,} more in history.csv", "left"
    return table


def _row(trial: Trial, tuning: Tuning, *, intervals: bool, made: bool) -> list[object]:
    from rich.text import Text

    best = tuning.best is not None and trial.number == tuning.best.number
    style = "bold green" if best else "yellow" if trial.value is None else ""
    cells = [str(trial.number), "failed" if trial.value is None else number(trial.value)]
    if intervals:
        known = trial.low is not None and trial.high is not None
        cells.append(f"{number(trial.low)} to {number(trial.high)}" if known else "")
    if made:
        cells.append("" if trial.cases is None else f"{number(trial.kept)} of {number(trial.cases)}")
    cells += [number(trial.values[space.path]) for space in tuning.spaces]
    return [Text(cell, style=style) for cell in cells]


def _reasons(tuning: Tuning) -> dict[str, list[int]]:
    """Return the numbers of the failed trials by their reason."""
    found: dict[str, list[int]] = {}
    for trial in tuning.trials:
        if trial.reason:
            found.setdefault(trial.reason, []).append(trial.number)
    return found


def print_plan(plan: TuningPlan) -> None:
    """Print what is optimised and tried, what is done once and what in every trial."""
    from ..core.roles import STAGE_ROLES

    search, trial = plan.search, plan.trial
    synthesis, objective = trial.recipe.synthesis, search.objective
    shared = {job.name for job in search.shared}
    rows: list[Sequence[object]] = [["recipe", trial.recipe.name], ["output", f"{plan.output} ({_standing(plan)})"]]
    rows += [["seed", trial.recipe.seed], ["data", data_line(trial.data)]]
    against = f", accepted cases against the real split {search.split}" if objective.needs_real and synthesis else ""
    rows += [["metric", f"{objective.text}, to {objective.direction}{against}"]]
    rows += [["search" if row == 0 else "", f"{each.path}={each.written}"] for row, each in enumerate(search.spaces)]
    rows += [["trials", f"{search.trials:,}{_combinations(plan)}"], ["", ""], ["once", "" if shared else "nothing"]]
    rows += [row for job, state in trial.jobs if job.name in shared for row in training_rows(job, state)]
    rows += [["", ""], ["in every trial", ""]]
    own = [job for job, _ in trial.jobs if job.name not in shared]
    rows += [row for job in own if not job.after_synthesis for row in _own_rows(job, plan)]
    if synthesis:
        for key, stage in zip(synthesis.chain.keys, synthesis.chain.stages, strict=True):
            line = values_line(stage.plugin, tuple(STAGE_ROLES), stage.values, _searched(key, plan))
            rows.append([f"stage {key}", line])
        size = f"{synthesis.count:,} in batches of {synthesis.batch_size}, precision {synthesis.precision}"
        rows.append(["cases", size])
    rows += [row for job in own if job.after_synthesis for row in _own_rows(job, plan)]
    out = console()
    out.print(columns(rows))
    out.print("\nNothing has been created.", style="dim")


def _own_rows(job: Job, plan: TuningPlan) -> list[Sequence[object]]:
    return training_rows(job, "anew", _searched(job.name, plan))


def _searched(place: str, plan: TuningPlan) -> Mapping[str, str]:
    return {space.key: space.written for space in plan.search.spaces if space.place == place}


def _standing(plan: TuningPlan) -> str:
    return f"a search is there already, {plan.finished} of {plan.search.trials} trials done" if plan.exists else "new"


def _combinations(plan: TuningPlan) -> str:
    if plan.combinations is None:
        return ""
    return ", all there are" if plan.combinations <= plan.search.trials else f" of {plan.combinations:,} combinations"
