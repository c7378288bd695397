"""What is said about a study after it, and about a plan before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from .output import columns, complain, console, printable
from .summary import PHANTOM_NOTICE

THIN_SPACE = "\u202f"

if TYPE_CHECKING:
    from ..core.study.plan import StudyPlan
    from ..core.study.results import StudyResults


def print_results(results: StudyResults) -> None:
    """Print verdicts, what must be known besides, and where everything lies; of a shard only how far the grid is."""
    out = console()
    if not results.assembled:
        done = sum(1 for _ in results.store.jobs.glob("*/metrics.json"))
        out.print(f"{done:,} trainings are done; a call without --shard makes tables and report.", soft_wrap=True)
        return
    facts = results.summary()
    for leak in facts["leaks"]:
        complain(leak, label="leak")
    for place, verdicts in groupby(facts["verdicts"], key=_place):
        out.print(f"\n{printable(spaced(place))}", style="bold", soft_wrap=True)
        for verdict in verdicts:
            out.print(f"  {verdict['metric']:<9} {printable(spaced(verdict['verdict']))}", soft_wrap=True)
    out.print()
    for remark in facts["remarks"]:
        out.print(f"- {printable(spaced(remark))}", soft_wrap=True)
    out.print()
    if not facts["parquet"]:
        out.print("No Parquet tables: pip install 'lesionforge[study]' brings pyarrow.", style="dim")
    places = [["study", results.path], ["tables", results.store.results], ["report", results.report]]
    out.print(columns([place for place in places if place[1]]), soft_wrap=True)
    if facts["phantom"]:
        out.print(PHANTOM_NOTICE, style="dim")


def _place(verdict: Mapping[str, Any]) -> str:
    test = "" if verdict["test"] == "test" else f", external set {verdict['test']}"
    return f"{verdict['place']}{test}"


def spaced(text: str) -> str:
    """Return text of a report with plain spaces for the thin ones between thousands, which not every terminal has."""
    return text.replace(THIN_SPACE, " ")


def print_plan(plan: StudyPlan) -> None:
    """Print data, synthetic sets, arms, the size of the grid, and what is not there yet."""
    out, settings = console(), plan.study.settings
    rows: list[Sequence[object]] = [["study", plan.study.name], ["output", plan.output], ["data", _data(plan.data)]]
    rows += [[f"synthetic {name}", told] for name, told in plan.synthetic.items()]
    rows += [[f"external {name}", told] for name, told in plan.externals.items()]
    rows += [[f"model {model.name}", model.trainer] for model in plan.study.models]
    rows += [["arms", ", ".join(plan.study.arm_names)]]
    rows += [["real images", ", ".join(map(str, settings.real_counts))]]
    rows += [["seeds", ", ".join(map(str, settings.seeds)) + (f" x {settings.folds} folds" if settings.folds else "")]]
    shared = len(plan.rows) - len(plan.trainings)
    rows += [
        ["trainings", f"{len(plan.trainings):,}" + (f", {shared:,} more entries share one of them" if shared else "")]
    ]
    rows += [["", f"{plan.finished:,} are there already"]] if plan.finished else []
    steps = "not known yet" if plan.steps is None else f"{plan.steps:,}"
    rows += [["steps", f"{steps}, equal {settings.budget} in all arms"]]
    out.print(columns(rows))
    for line in plan.missing:
        complain(line, label="missing")
    out.print("\nNothing has been created.", style="dim")


def _data(data: Mapping[str, Any] | None) -> str:
    if data is None:
        return "not there"
    splits = ", ".join(f"{count:,} {name}" for name, count in data["splits"].items())
    return f"{data['source']}: {data['cases']:,} {'phantoms' if data['phantom'] else 'images'} ({splits})"
