"""``lesionforge kernels``: which backends of every operation this machine can use, how exact, and how fast."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options
from .output import columns, console, number, printable, write_json
from .progress import following, tell

if TYPE_CHECKING:
    from rich.text import Text

Bench = Annotated[
    bool,
    typer.Option("--bench", help="Time them too, against what papers' code does and the best plain torch; 20 s or so."),
]


def kernels(bench: Bench = False, as_json: options.Json = False, quiet: options.Quiet = False) -> None:
    """List the backends of every kernel: usable or why not, and the largest error against the reference here."""
    from ..core.registry import default_registry

    hook = default_registry().hooks.hook
    rows = _joined(hook.kernel_diagnostics(measure=True))
    timings = _timings(hook, quiet=quiet) if bench else []
    if as_json:
        write_json({"kernels": rows, **({"timings": timings} if bench else {})})
        return
    _print_table(rows)
    if timings:
        console().print()
        _print_timings(timings)


def _timings(hook: Any, *, quiet: bool) -> list[Mapping[str, Any]]:
    with following(quiet=quiet) as observers:
        return _joined(hook.kernel_timings(progress=partial(tell, observers, "timing")))


def _joined(parts: Iterable[Iterable[Mapping[str, Any]]]) -> list[Mapping[str, Any]]:
    """The rows of all plugins."""
    return [row for rows in parts for row in rows]


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

    if not row["available"]:
        return Text(printable(row["reason"]), style="yellow")
    if row["reservation"] is None:
        return Text("available", style="green")
    return Text.assemble(("available", "green"), f", not taken by automatic choice: {printable(row['reservation'])}")


def _print_timings(rows: Sequence[Mapping[str, Any]]) -> None:
    lines: list[Sequence[object]] = []
    for row, before in zip(rows, [None, *rows], strict=False):
        if before is None or _measured(before) != _measured(row):
            lines.append([row["op"], "", "", "", _measured(row)[1]])
        name = f"  {row['contender']}{' *' if row['automatic'] else ''}"
        faster = [_times(row["vs_reference_method"]), _times(row["vs_best_torch"])]
        lines.append([name, f"{number(1000 * row['seconds'])} ms", *faster, row["does"]])
    header = ("operation", "median", "vs reference method", "vs best torch", "on what, and by what")
    console().print(columns(lines, header=header, right=(1, 2, 3)))
    legend = f"* taken by automatic choice. Ratios above 1: faster than the baseline. Threads: {rows[0]['threads']}."
    console().print(legend, style="dim")


def _measured(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["op"], f"{row['shape']}, {row['device']}"


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}x"
