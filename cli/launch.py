"""Carries a recipe out for the verbs that run one: progress while it works, and how to go on where it stops."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import typer

from .output import complain, write_json
from .progress import following
from .recipe_argument import is_run_folder
from .summary import print_plan, print_summary, summary

if TYPE_CHECKING:
    from ..core.recipe import Recipe


@dataclass(frozen=True)
class Launch:
    """A recipe with all that surrounds it."""

    recipe: Recipe
    output: Path
    resume: bool = False
    device: str = "auto"
    workers: int = 1
    report: bool = True
    quiet: bool = False
    as_json: bool = False

    def carry_out(self, *, dry_run: bool) -> None:
        """Run the recipe, or only print what that would do."""
        if dry_run:
            self._plan()
        else:
            self._run()

    def _plan(self) -> None:
        """Print what would be done; exit with 2 where the output folder stands in the way."""
        from ..core.plan import plan_run

        plan = plan_run(self.recipe, output=self.output, resume=self.resume)
        show_plan(plan, print_plan, as_json=self.as_json, quiet=self.quiet)

    def _run(self) -> None:
        """Carry the recipe out and print what came of it."""
        with resumable("run", self.output, is_run_folder), following(quiet=self.quiet) as observers:
            run = self.recipe.run(
                output=self.output,
                resume=self.resume,
                device=self.device,
                workers=self.workers,
                observers=observers,
                report=self.report,
            )
        if self.as_json:
            write_json(summary(run))
        elif not self.quiet:
            print_summary(run)


class Plan(Protocol):
    """What a verb would do."""

    @property
    def obstacle(self) -> str | None:
        """Why it would refuse to begin; None where it would not."""
        ...

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as values that JSON can hold."""
        ...


PlanT = TypeVar("PlanT", bound=Plan)


def show_plan(plan: PlanT, printed: Callable[[PlanT], None], *, as_json: bool, quiet: bool) -> None:
    """Show what would be done, for people by ``printed``; exit with 2 where the output folder stands in the way."""
    if as_json:
        write_json(plan.as_dict())
    elif not quiet:
        printed(plan)
    if plan.obstacle:
        complain(plan.obstacle)
        raise typer.Exit(2)


@contextmanager
def resumable(verb: str, output: Path, is_begun: Callable[[Path], bool]) -> Iterator[None]:
    """Add to what interrupts the block how to go on, provided that there is something to go on with."""
    from ..core.errors import PluginFailure

    try:
        yield
    except (KeyboardInterrupt, PluginFailure) as error:
        if is_begun(output):
            error.add_note(f"go on with: lesionforge {verb} {shlex.quote(str(output))} --resume")
        raise
