"""``lesionforge regenerate``: one case of a run again, from its seed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options
from .output import console, printable, write_json
from .progress import following


def regenerate(
    run: options.RunArgument,
    case_id: Annotated[
        str, typer.Argument(metavar="CASE", help="Id of the case, such as case-00000012.", show_default=False)
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Write the case's PNG files there.", show_default=False),
    ] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Make one case again and say whether its files are identical to the stored ones; exit with 2 where not.

    The same machine, versions and thread count give identical bytes; others agree within a small tolerance only.
    """
    from ..core.durable import new_folder, require_empty
    from ..core.run import Run
    from ..core.store import png_bytes

    if output is not None:
        require_empty(output)
    with following(quiet=quiet):
        again = Run(run).regenerate(case_id)
    written = []
    if output is not None:
        with new_folder(output) as folder:
            for column, pixels in again.pixels.items():
                (folder / f"{column}.png").write_bytes(png_bytes(pixels))
                written.append(str(output / f"{column}.png"))
    if as_json:
        write_json({"case": case_id, "identical": again.identical, "written": written})
    elif not quiet:
        out = console()
        verdict = ("identical", "green") if again.identical else ("different from what is stored", "red")
        out.print(f"{printable(case_id)}: {verdict[0]}", style=verdict[1])
        for file in written:
            out.print(printable(file), soft_wrap=True)
    if not again.identical:
        raise typer.Exit(2)
