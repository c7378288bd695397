"""The history of a search as a picture: its trials with the best so far, and a panel for each searched key."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..chain import write_value
from ..durable import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .results import Trial, Tuning
    from .spaces import Space

COLUMNS = 3
WIDTH, TOP_HEIGHT, ROW_HEIGHT = 10.0, 3.4, 2.7
DPI = 130
COLOURS = "viridis_r"
INK, QUIET, BEST, FAILED = "#1b1b1b", "#8a8a8a", "#d1495b", "#b07d2b"
SUBTITLE = "#555555"
LONGEST_LABEL, LONGEST_NAME = 18, 60
SPREAD = 0.5


def draw_history(tuning: Tuning) -> None:
    """Write ``history.png`` into the folder of ``tuning``; raises StoreError where it cannot be written."""
    from matplotlib.figure import Figure

    rows = math.ceil(len(tuning.spaces) / COLUMNS)
    columns = math.ceil(len(tuning.spaces) / rows)
    figure = Figure(figsize=(WIDTH, TOP_HEIGHT + ROW_HEIGHT * rows), layout="constrained", facecolor="white")
    grid = figure.add_gridspec(rows + 1, columns, height_ratios=[TOP_HEIGHT, *[ROW_HEIGHT] * rows])
    top = figure.add_subplot(grid[0, :])
    _course(top, tuning)
    for place, space in enumerate(tuning.spaces):
        panel = figure.add_subplot(grid[1 + place // columns, place % columns], sharey=top)
        _panel(panel, tuning, space, first=place % columns == 0)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=DPI)
    write_bytes(tuning.places.picture, picture.getvalue())


def _course(axes: Axes, tuning: Tuning) -> None:
    """Draw value over trial, failed trials along the lower edge, and the best so far as steps."""
    from matplotlib.ticker import MaxNLocator

    measured = [trial for trial in tuning.trials if trial.value is not None]
    _dots(axes, tuning, [trial.number for trial in measured], measured)
    sign = 1 if tuning.direction == "minimize" else -1
    best = [sign * min(sign * (trial.value or 0.0) for trial in measured[: row + 1]) for row in range(len(measured))]
    if measured:
        steps = [*(trial.number for trial in measured), len(tuning.trials) - 0.5]
        axes.step(steps, [*best, best[-1]], where="post", color=INK, linewidth=1.3, label="best so far", zorder=1)
    failed = [trial for trial in tuning.trials if trial.value is None]
    _crosses(axes, [trial.number for trial in failed], label=f"failed ({len(failed)})")
    axes.set_xlabel("trial")
    axes.set_title(_title(tuning), loc="left", fontsize=12, color=INK, pad=22, parse_math=False)
    place = axes.transAxes
    axes.text(0, 1.03, _subtitle(tuning), fontsize=9, color=SUBTITLE, transform=place, parse_math=False)
    axes.set_xlim(-0.6, max(len(tuning.trials), 2) - 0.4)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if measured or failed:
        axes.legend(frameon=False, fontsize=8, loc="best")
    _tidy(axes)


def _panel(axes: Axes, tuning: Tuning, space: Space, *, first: bool) -> None:
    """Draw value over one searched key; failed trials along the lower edge."""
    from matplotlib.ticker import MaxNLocator

    measured = [trial for trial in tuning.trials if trial.value is not None]
    failed = [trial for trial in tuning.trials if trial.value is None]
    last = max(len(tuning.trials) - 1, 1)
    _dots(axes, tuning, [_place(space, trial, last) for trial in measured], measured)
    _crosses(axes, [_place(space, trial, last) for trial in failed])
    if space.kind == "choice":
        labels = [choice if isinstance(choice, str) else write_value(choice) for choice in space.choices]
        short = [_shortened(label, LONGEST_LABEL) for label in labels]
        axes.set_xticks(range(len(short)), short, fontsize=8, parse_math=False)
        axes.set_xlim(-0.5, len(short) - 0.5)
    elif space.log:
        _logarithmic(axes, space)
    else:
        margin = 0.04 * (space.high - space.low)
        axes.set_xlim(space.low - margin, space.high + margin)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=space.kind == "int"))
    axes.set_xlabel(space.path, parse_math=False)
    axes.tick_params(labelleft=first)
    _tidy(axes)


def _logarithmic(axes: Axes, space: Space) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    margin = (space.high / space.low) ** 0.04
    axes.set_xlim(space.low / margin, space.high * margin)
    steps = (1.0, 2.0, 5.0) if space.high / space.low < 200 else (1.0,)
    axes.xaxis.set_major_locator(LogLocator(subs=steps))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _dots(axes: Axes, tuning: Tuning, places: Sequence[float], trials: Sequence[Trial]) -> None:
    """Draw measured trials, later ones darker, with their intervals, and a ring around the best one."""
    values = [trial.value or 0.0 for trial in trials]
    for x, value, trial in zip(places, values, trials, strict=True):
        if trial.low is not None and trial.high is not None:
            ends = [min(trial.low, value), max(trial.high, value)]
            axes.plot([x, x], ends, color=QUIET, linewidth=0.8, alpha=0.6, zorder=2)
    numbers = [trial.number for trial in trials]
    last = max(len(tuning.trials) - 1, 1)
    axes.scatter(
        places, values, c=numbers, cmap=COLOURS, vmin=0, vmax=last, s=26, edgecolors="white", linewidths=0.5, zorder=3
    )
    best = tuning.best
    for x, value, trial in zip(places, values, trials, strict=True):
        if best is not None and trial.number == best.number:
            axes.scatter([x], [value], s=95, facecolors="none", edgecolors=BEST, linewidths=1.6, zorder=4, label="best")


def _crosses(axes: Axes, places: Sequence[float], label: str = "") -> None:
    if places:
        heights = [0.03] * len(places)
        transform = axes.get_xaxis_transform()
        axes.scatter(places, heights, marker="x", s=24, color=FAILED, linewidths=1.3, transform=transform, label=label)


def _place(space: Space, trial: Trial, last: int) -> float:
    value: Any = trial.values[space.path]
    # Trials of one choice would hide each other, so they stand side by side in their order.
    return space.choices.index(value) + SPREAD * (trial.number / last - 0.5) if space.kind == "choice" else value


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(QUIET)
    axes.tick_params(labelsize=8, color=QUIET)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_fontsize(9)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)


def _title(tuning: Tuning) -> str:
    best, name = tuning.best, _shortened(tuning.recipe.name, LONGEST_NAME)
    if best is None:
        return f"{name}: no trial of {len(tuning.trials)} has a value"
    return f"{name}: best {best.value:.4g} in trial {best.number} of {len(tuning.trials)}"


def _subtitle(tuning: Tuning) -> str:
    facts = [_shortened(tuning.measured, LONGEST_NAME)]
    facts.append(f"{'lower' if tuning.direction == 'minimize' else 'higher'} is better")
    facts += ["lines: 95 % intervals"] if any(trial.low is not None for trial in tuning.trials) else []
    facts += ["procedural phantoms"] if tuning.is_phantom() else []
    return "  ·  ".join(facts)


def _shortened(text: str, longest: int) -> str:
    text = "".join(sign if sign.isprintable() else " " for sign in text)
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
