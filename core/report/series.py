"""Charts of several series: means over runs along an axis, and arrows from one state to another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .axes import Axis, Tick, axis_for
from .charts import LEFT, PLOT_HEIGHT, PLOT_WIDTH, TOP, Chart, Mark, Path
from .statistics import Numbers
from .wording import number

STYLES = 6


@dataclass(frozen=True)
class Series:
    """Values of several runs at each of some places.

    Attributes:
        name: in the legend.
        points: place -> values of the runs there.
    """

    name: str
    points: Sequence[tuple[float, Sequence[float]]]


def style(position: int, *, run: bool = False) -> str:
    """Return the style of a series by its position; of single runs with ``run``."""
    return f"series-{position % STYLES}" + (" run" if run else "")


def series_chart(title: str, series: Sequence[Series], *, x_label: str, places: Sequence[str] | None = None) -> Chart:
    """Return a line through the means of each series, with its runs as small dots.

    Args:
        places: labels of the places 0, 1, 2 ... where they are no numbers to scale; else the axis is that of numbers,
            logarithmic where they span more than a factor of ten.
    """
    xs = np.array([place for one in series for place, _ in one.points], np.float64)
    ys = np.array([value for one in series for _, values in one.points for value in values], np.float64)
    x_axis, y_axis = _axis(xs, places), _margined(ys)
    paths, marks = [], []
    for position, one in enumerate(series):
        means = [(place, math.fsum(values) / len(values)) for place, values in one.points]
        spots = [(_x(x_axis, place), _y(y_axis, mean)) for place, mean in means]
        if len(spots) > 1:
            paths.append(Path("M" + " L".join(f"{x:.1f},{y:.1f}" for x, y in spots), style(position)))
        runs = ((place, value) for place, values in one.points for value in values if len(values) > 1)
        marks += [Mark(_x(x_axis, place), _y(y_axis, value), style(position, run=True)) for place, value in runs]
        marks += [Mark(x, y, style(position)) for x, y in spots]
    ticks = [Tick(float(x_axis.at(i)), name) for i, name in enumerate(places)] if places else x_axis.ticks(4)
    return Chart(
        title=title,
        description=f"{title}: " + "; ".join(map(_told, series)),
        note="logarithmic scale" if x_axis.log else "",
        x_label=x_label,
        x_ticks=[Tick(LEFT + tick.at * PLOT_WIDTH, tick.label) for tick in ticks],
        y_ticks=[Tick(TOP + (1 - tick.at) * PLOT_HEIGHT, tick.label) for tick in y_axis.ticks(4)],
        paths=paths,
        marks=marks,
    )


def arrow_chart(title: str, arrows: Sequence[tuple[str, float, float, float]], *, x_label: str) -> Chart:
    """Return an arrow for each (name, place, from, to): a hollow dot where it begins, a full one where it ends."""
    xs = np.array([place for _, place, _, _ in arrows], np.float64)
    ys = np.array([value for arrow in arrows for value in arrow[2:]], np.float64)
    x_axis, y_axis = _axis(xs, None), _margined(ys)
    paths, marks = [], []
    for name, place, before, after in arrows:
        x, start, end = _x(x_axis, place), _y(y_axis, before), _y(y_axis, after)
        tip = end - math.copysign(4, end - start)
        wings = tip - math.copysign(4, end - start)
        if abs(end - start) > 10:
            paths.append(Path(f"M{x:.1f},{start:.1f} V{tip:.1f}", "arrow"))
            paths.append(Path(f"M{x - 3:.1f},{wings:.1f} L{x:.1f},{tip:.1f} L{x + 3:.1f},{wings:.1f}", "arrow"))
        marks += [Mark(x, start, "from"), Mark(x, end, "to", name)]
    told = "; ".join(f"{name} {number(before, 4)} to {number(after, 4)}" for name, _, before, after in arrows)
    return Chart(
        title=title,
        description=f"{title}: {told}",
        note="logarithmic scale" if x_axis.log else "",
        x_label=x_label,
        x_ticks=[Tick(LEFT + tick.at * PLOT_WIDTH, tick.label) for tick in x_axis.ticks(4)],
        y_ticks=[Tick(TOP + (1 - tick.at) * PLOT_HEIGHT, tick.label) for tick in y_axis.ticks(4)],
        paths=paths,
        marks=marks,
    )


def _axis(values: Numbers, places: Sequence[str] | None) -> Axis:
    if places is not None:
        return Axis(-0.4, len(places) - 0.6)
    low, high = float(values.min()), float(values.max())
    if low > 0 and high / low > 10:
        return Axis(low / 1.3, high * 1.3, log=True)
    return _margined(values)


def _margined(values: Numbers) -> Axis:
    """Return a linear axis on which no value lies at an end."""
    axis = axis_for(values, trim=False, allow_log=False)
    margin = 0.06 * (axis.high - axis.low)
    return Axis(axis.low - margin, axis.high + margin)


def _x(axis: Axis, value: float) -> float:
    return LEFT + float(axis.at(value)) * PLOT_WIDTH


def _y(axis: Axis, value: float) -> float:
    return TOP + (1 - float(axis.at(value))) * PLOT_HEIGHT


def _told(series: Series) -> str:
    means = (f"{number(math.fsum(values) / len(values), 4)} at {number(place)}" for place, values in series.points)
    return f"{series.name} {', '.join(means)}"
