"""Everything that is printed: JSON and tables on standard output, complaints and progress on standard error."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PIPE_WIDTH = 120


def console(*, stderr: bool = False) -> Console:
    """Return a console for standard output or standard error; into a pipe it writes lines of a fixed width."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH
    made = Console(stderr=stderr, width=width, highlight=False, markup=False, emoji=False)
    made.on_broken_pipe = _reader_is_gone
    return made


def _reader_is_gone() -> NoReturn:
    # rich would end the program with the exit code of a failure.
    raise BrokenPipeError


def printable(text: object) -> str:
    """Return text on one line in which control, format and undecodable characters are spelled out."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in str(text))


def complain(message: str, *, label: str = "error") -> None:
    """Print one line on standard error."""
    from rich.text import Text

    line = Text.assemble((f"{label}: ", "bold yellow" if label != "error" else "bold red"), printable(message))
    console(stderr=True).print(line, soft_wrap=True)


def write_json(value: Any) -> None:
    """Print one JSON document; numbers that are not finite become null."""
    print(json.dumps(plain(value), indent=2, allow_nan=False))


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it; numbers that are not finite become None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int | bool | None) else str(value)


def number(value: Any) -> str:
    """Return a number with four significant digits and its thousands set apart, anything else as text."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return printable(value)
    if isinstance(value, float) and (not math.isfinite(value) or 0 < abs(value) < 1000):
        return f"{value:.4g}"
    return f"{value:,.0f}"


def duration(seconds: float) -> str:
    """Return a duration as 0:12, 3:05 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def columns(rows: Sequence[Sequence[object]], *, header: Sequence[str] = (), right: Sequence[int] = ()) -> Table:
    """Return a table without lines, its first column bold, the columns ``right`` aligned to the right."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=bool(header), header_style="dim", pad_edge=False, padding=(0, 3, 0, 0))
    width = max(map(len, [header, *rows]))
    for position in range(width):
        title, side = header[position] if header else "", "right" if position in right else "left"
        table.add_column(title, justify=side, no_wrap=position < width - 1, overflow="fold")
    for row in rows:
        cells = [cell if isinstance(cell, Text) else Text(printable(cell)) for cell in row]
        table.add_row(*cells)
    return table
