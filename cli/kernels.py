"""``lesionforge kernels``: which backend of which operation this machine can use, and how exact it is here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import options
from .output import columns, console, number, printable, write_json

if TYPE_CHECKING:
    from rich.text import Text


def kernels(as_json: options.Json = False) -> None:
    """List the backends of every kernel: usable or why not, and the largest error against the reference here."""
    from ..core.registry import default_registry

    rows = [row for rows in default_registry().hooks.hook.kernel_diagnostics(measure=True) for row in rows]
    if as_json:
        write_json({"kernels": rows})
    else:
        _print_table(rows)


def _print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    lines: list[Sequence[object]] = []
    for row, before in zip(rows, [None, *rows], strict=False):
        repeated = before is not None and before["op"] == row["op"]
        lines.append(["" if repeated else row["op"], row["backend"], _error(row), _state(row)])
    console().print(columns(lines, header=("operation", "backend", "largest error", "state"), right=(2,)))


def _error(row: Mapping[str, Any]) -> str:
    if row["max_error"] is not None:
        return number(row["max_error"])
    return "not measured" if row["available"] and row["backend"] != "reference" else ""


def _state(row: Mapping[str, Any]) -> Text:
    from rich.text import Text

    return Text("available", style="green") if row["available"] else Text(printable(row["reason"]), style="yellow")
