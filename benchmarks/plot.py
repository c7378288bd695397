"""One picture of all results: how many times faster the automatic choice is than both baselines, case by case."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

Row = dict[str, Any]
# Colour-blind safe; the baselines differ in marker as well.
STYLES = {
    "vs_reference_method": ("vs reference method", "#0072B2", "o"),
    "vs_best_torch": ("vs best torch", "#D55E00", "D"),
}
ROW_INCHES, PANEL_INCHES, WIDTH_INCHES = 0.24, 0.75, 11.0


def save(rows: Sequence[Row], title: str, path: Path) -> None:
    """Write a PNG with a panel for each benchmark; contenders other than the automatic one are left out."""
    panels: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        if row["automatic"]:
            panels.setdefault(row["benchmark"], {}).setdefault(f"{row['op']}: {row['shape']}", []).append(row)
    heights = [PANEL_INCHES + ROW_INCHES * len(cases) for cases in panels.values()]
    figure = Figure(figsize=(WIDTH_INCHES, sum(heights) + PANEL_INCHES), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(panels), 1, height_ratios=heights, squeeze=False, sharex=True)[:, 0]
    fewest = min(row["threads"] for row in rows)
    for axis, (name, cases) in zip(axes, panels.items(), strict=True):
        _draw(axis, name, cases, fewest)
    figure.suptitle(title, x=0.01, ha="left", fontsize=8, wrap=True)
    figure.legend(handles=_legend(rows), loc="outside lower right", ncols=4, frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)


def _draw(axis: Axes, name: str, cases: dict[str, list[Row]], fewest: int) -> None:
    for place, rows in enumerate(cases.values()):
        for row in rows:
            for key, (_, colour, marker) in STYLES.items():
                if row[key] is not None:
                    filled = colour if row["threads"] > fewest else "white"
                    axis.plot(row[key], place, marker, color=colour, markerfacecolor=filled, markersize=6)
    axis.axvline(1, color="0.5", linewidth=1, zorder=0)
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda ratio, _: f"{ratio:g}x"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.tick_params(axis="x", labelbottom=True, labelsize=8)
    several = len({rows[0]["op"] for rows in cases.values()}) > 1
    labels = [label if several else rows[0]["shape"] for label, rows in cases.items()]
    axis.set_yticks(range(len(cases)), labels, fontsize=8)
    axis.set_ylim(len(cases) - 0.5, -0.5)
    axis.set_title(f"{name}: times faster", loc="left", fontsize=10, fontweight="bold")
    axis.grid(color="0.92")
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def _legend(rows: Sequence[Row]) -> list[Line2D]:
    """The baselines by colour and marker; few threads are hollow."""
    entries = [_marker(label, colour, mark, colour) for label, colour, mark in STYLES.values()]
    counts = sorted({row["threads"] for row in rows})
    for count in counts if len(counts) > 1 else ():
        entries.append(_marker(f"threads: {count}", "0.3", "s", "0.3" if count > counts[0] else "white"))
    return entries


def _marker(label: str, colour: str, marker: str, filled: str) -> Line2D:
    return Line2D([], [], linestyle="", color=colour, marker=marker, markerfacecolor=filled, label=label)
