"""``lesionforge verify``: is every file of a run what its ledger says?"""

from __future__ import annotations

from dataclasses import asdict

import typer

from . import options
from .output import columns, console, printable, write_json

SHOWN_PROBLEMS = 20


def verify(run: options.RunArgument, as_json: options.Json = False) -> None:
    """Check recipe, checkpoints and every file of a run against manifest and ledgers; exit with 2 where one differs."""
    from ..core.run import Run

    result = Run(run).verify()
    if as_json:
        write_json({**asdict(result), "complete": result.complete, "ok": result.ok})
    else:
        out = console()
        for problem in result.problems[:SHOWN_PROBLEMS]:
            out.print(printable(problem), style="red", soft_wrap=True)
        if len(result.problems) > SHOWN_PROBLEMS:
            out.print(f"and {len(result.problems) - SHOWN_PROBLEMS:,} more", style="red")
        for note in result.notes:
            out.print(printable(note), style="dim", soft_wrap=True)
        whole = "complete" if result.complete else f"{result.expected - result.cases:,} still to make"
        found = f"{len(result.problems):,} problems" if result.problems else "everything as the ledger says"
        out.print(columns([["cases", f"{result.cases:,} of {result.expected:,}, {whole}"], ["files", found]]))
    if not result.ok:
        raise typer.Exit(2)
