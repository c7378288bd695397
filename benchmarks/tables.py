"""Results in words: a table on the terminal for each case, and the tables of docs/."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from rich.table import Table

from lesionforge.kernels.measuring import BEST_TORCH, REFERENCE_METHOD

Row = dict[str, Any]
NOT_MEASURED = "not measured yet"


def of_case(rows: Sequence[Row]) -> Table:
    """All contenders of one case at one thread count."""
    first = rows[0]
    place = f"threads: {first['threads']}" if first["device"] == "cpu" else first["device"]
    title = f"{first['benchmark']}: {first['op']}, {first['shape']}, {place}"
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    if first["aim"]:
        table.caption, table.caption_justify = f"aim: {first['aim']}", "left"
    table.add_column("contender")
    for name in ("median", "fastest", "slowest", "vs reference method", "vs best torch", "difference"):
        table.add_column(name, justify="right")
    sizes = {"memory": "peak_bytes", "saved for backward": "saved_bytes"}
    sizes = {name: key for name, key in sizes.items() if any(row[key] is not None for row in rows)}
    for name in sizes:
        table.add_column(name, justify="right")
    table.add_column("what it is", overflow="fold")
    for row in rows:
        table.add_row(
            f"{row['contender']}{' *' if row['automatic'] else ''}",
            *(time(row[key]) for key in ("seconds", "fastest", "slowest")),
            *(times(row[key]) for key in ("vs_reference_method", "vs_best_torch")),
            "" if row["difference"] is None else f"{row['difference']:.1e}",
            *(memory(row[key]) for key in sizes.values()),
            ", ".join(part for part in (row["does"], row["baseline"], "timed once" * (row["turns"] == 1)) if part),
        )
    return table


def markdown(rows: Sequence[Row], machine: dict[str, Any]) -> str:
    """The table of docs/: what automatic choice takes against both baselines, a line a case.

    Times and ratios of several thread counts stand behind each other. machine: where the CPU's rows come from.
    """
    by_case: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        by_case.setdefault((row["benchmark"], row["op"], row["shape"]), []).append(row)
    threads = " / ".join(map(str, dict.fromkeys(row["threads"] for row in rows if row["device"] == "cpu")))
    lines = [
        f"{machine['date']}, revision {machine['revision']}: {machine['cores']} cores, {machine['processor']}, load "
        f"{machine['load']}, Python {machine['python']}, torch {machine['torch']}; medians, {threads} threads.",
        "",
        "| operation | reference method | best torch | lesionforge | vs reference method | vs best torch | H200 |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    return "\n".join(lines + [line(op, shape, found, threads) for (_, op, shape), found in by_case.items()])


def line(op: str, shape: str, rows: Sequence[Row], threads: str) -> str:
    """One case: rows of all its devices, thread counts, which it names where they are not `threads`, and contenders."""
    on_cpu = [list(found) for _, found in groupby((r for r in rows if r["device"] == "cpu"), lambda r: r["threads"])]
    on_gpu = [row for row in rows if row["device"] == "cuda"]
    ours = [automatic(found) for found in on_cpu]
    own = " / ".join(str(row["threads"]) for row in ours)
    cells = [
        f"`{op}` {shape}" + f", {own} threads" * (bool(own) and own != threads),
        timed(baseline(on_cpu, REFERENCE_METHOD)),
        timed(baseline(on_cpu, BEST_TORCH)),
        timed(ours),
        " / ".join(times(row["vs_reference_method"]) for row in ours),
        " / ".join(times(row["vs_best_torch"]) for row in ours),
        gpu_cell(on_gpu) if on_gpu else NOT_MEASURED,
    ]
    return f"| {' | '.join(cells)} |"


def gpu_cell(rows: Sequence[Row]) -> str:
    """Everything but the baselines, and what automatic choice takes (*): times, and how many times faster than both."""
    told = []
    for row in rows:
        if row["automatic"] or not row["baseline"]:
            faster = [times(row[key]) for key in ("vs_reference_method", "vs_best_torch") if row[key] is not None]
            told.append(f"{row['contender']}{'*' * row['automatic']} {time(row['seconds'])}, {' and '.join(faster)}")
    return "; ".join(told)


def timed(rows: Sequence[Row]) -> str:
    """Names of the contenders and their times, one for each thread count."""
    names = dict.fromkeys(row["contender"] for row in rows)
    return f"{' / '.join(names)} {' / '.join(time(row['seconds']) for row in rows)}" if rows else ""


def baseline(found: Sequence[Sequence[Row]], name: str) -> list[Row]:
    """The fastest of a baseline at each thread count; none where it was left out."""
    chosen = ([row for row in rows if row["baseline"] == name] for rows in found)
    return [min(rows, key=lambda row: row["seconds"]) for rows in chosen if rows]


def automatic(rows: Sequence[Row]) -> Row:
    (row,) = (row for row in rows if row["automatic"])
    return row


def time(seconds: float) -> str:
    """Three significant digits in seconds or milliseconds."""
    if seconds >= 1:
        return f"{seconds:.3g} s"
    return f"{1000 * seconds:.3g} ms"


def times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.3g}x" if ratio < 100 else f"{ratio:.0f}x"


def memory(size: int | None) -> str:
    return "" if size is None else f"{size / 2**20:.4g} MiB"
