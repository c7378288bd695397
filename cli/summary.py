"""What is said about a run after it, and about a plan before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .output import columns, console, number, printable

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from ..core.plan import Plan
    from ..core.recipe import Job
    from ..core.run import Run

NOTHING: Mapping[str, str] = {}
PHANTOM_NOTICE = "These are procedural phantoms, or made from phantoms: they say nothing about patients."


def report_page(run: Run) -> Path | None:
    """Return the page of the run's report, or None where there is none."""
    page = run.store.report / "index.html"
    return page if page.is_file() else None


def summary(run: Run) -> dict[str, Any]:
    """Return :meth:`Run.summary` with the path of the report and whether the images are phantoms."""
    page = report_page(run)
    return {**run.summary(), "phantom": run.is_phantom(), "report": str(page) if page else None}


def print_summary(run: Run) -> None:
    """Print counts, reasons of rejection, metrics of the trainings and where everything lies."""
    facts, out = summary(run), console()
    out.print()
    if facts["expected"]:
        out.print(_verdicts(facts))
        out.print()
    if any(facts["jobs"].values()):
        out.print(metrics_table(facts["jobs"]))
        out.print()
    places = [["run", facts["output"]], ["report", facts["report"]]]
    out.print(columns([place for place in places if place[1]]), soft_wrap=True)
    if facts["phantom"]:
        out.print(PHANTOM_NOTICE, style="dim")


def _verdicts(facts: Mapping[str, Any]) -> Table:
    total, kept = facts["cases"], facts["kept"]
    rows: list[Sequence[object]] = [["cases", number(total), ""], ["kept", number(kept), share(kept, total)]]
    if facts["rejected"]:
        rejected = total - kept
        rows.append(["rejected", number(rejected), share(rejected, total)])
    rows += [[f"  {reason}", number(count), share(count, total)] for reason, count in facts["rejected"].items()]
    return columns(rows, right=(1, 2))


def metrics_table(jobs: Mapping[str, Mapping[str, float]]) -> Table:
    """Return metrics as rows and trainings as columns, so that what is to be compared stands side by side."""
    names = list(dict.fromkeys(name for metrics in jobs.values() for name in metrics))
    measured = [name for name, metrics in jobs.items() if metrics]
    rows = [[name, *(number(jobs[job][name]) if name in jobs[job] else "" for job in measured)] for name in names]
    return columns(rows, header=["", *map(printable, measured)], right=range(1, len(measured) + 1))


def share(part: int, total: int) -> str:
    """Return a percentage, or nothing where there is nothing to share."""
    return f"{part / total:.1%}" if total else ""


def print_plan(plan: Plan) -> None:
    """Print data, trainings, stages, shards and metrics of a plan; values that are no plugin's default stand out."""
    from ..core.roles import STAGE_ROLES

    out, synthesis = console(), plan.recipe.synthesis
    rows: list[Sequence[object]] = [["recipe", plan.recipe.name], ["output", f"{plan.output} ({_standing(plan)})"]]
    rows += [["seed", plan.recipe.seed], ["data", data_line(plan.data)]]
    rows += [row for job, state in plan.jobs if not job.after_synthesis for row in training_rows(job, state)]
    if synthesis:
        for key, stage in zip(synthesis.chain.keys, synthesis.chain.stages, strict=True):
            rows.append([f"stage {key}", values_line(stage.plugin, tuple(STAGE_ROLES), stage.values)])
        made = f"{plan.committed:,} there already" if plan.committed else "none there yet"
        size = f"{synthesis.count:,} in batches of {synthesis.batch_size}, precision {synthesis.precision}"
        rows += [["cases", size], ["shards", f"{plan.shards:,} of up to {synthesis.shard_size} cases, {made}"]]
    rows += [row for job, state in plan.jobs if job.after_synthesis for row in training_rows(job, state)]
    rows += [
        [f"metric {each.plugin}", values_line(each.plugin, ("metric",), each.values)] for each in plan.recipe.metrics
    ]
    out.print(columns(rows))
    out.print("\nNothing has been created.", style="dim")


def _standing(plan: Plan) -> str:
    return "a run is there already" if plan.exists else "new"


def data_line(data: Mapping[str, Any] | None) -> str:
    """Return source, number and splits of a plan's real data."""
    if data is None:
        return "none"
    splits = ", ".join(f"{count:,} {name}" for name, count in data["splits"].items())
    return f"{data['source']}: {data['cases']:,} {'phantoms' if data['phantom'] else 'images'} ({splits})"


def training_rows(job: Job, state: str, searched: Mapping[str, str] = NOTHING) -> list[Sequence[object]]:
    """Return the rows of a training in a plan; ``searched``: values that a search tries, by key."""
    what = f"{job.trainer} on {' and '.join(job.on)} data, {state}"
    return [[f"training {job.name}", what], ["", values_line(job.trainer, ("trainer",), job.values, searched)]]


def values_line(
    plugin: str, roles: Sequence[str], values: Mapping[str, Any], searched: Mapping[str, str] = NOTHING
) -> Text:
    """Return a configuration on one line, in which what is no default, and what is searched, stands out."""
    from rich.text import Text

    from ..core.chain import write_value
    from ..core.registry import default_registry

    fields = default_registry().find(plugin, *roles).plugin.Config.model_fields
    line = Text()
    for key, value in values.items():
        usual = value == fields[key].get_default(call_default_factory=True)
        style = "cyan" if key in searched else "dim" if usual else ""
        written = searched[key] if key in searched else write_value(value)
        line.append(", " if line else "", "dim").append(printable(f"{key}={written}"), style)
    return line
