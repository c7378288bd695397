"""Geometry of the report's charts. ``charts.html`` draws them as inline SVG, so that they follow the page's colours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .axes import Axis, Tick, axis_for, from_zero
from .statistics import Numbers
from .wording import number, percent, plural, signed

WIDTH, HEIGHT = 264, 178
LEFT, RIGHT, TOP, BOTTOM = 40, 8, 18, 32
PLOT_WIDTH, PLOT_HEIGHT = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
BINS = (8, 28)
ROW_HEIGHT = 34


@dataclass(frozen=True)
class Bar:
    """One rectangle of a histogram; ``kind`` names its style."""

    x: float
    y: float
    width: float
    height: float
    kind: str


@dataclass(frozen=True)
class Path:
    """One stroked line, ``d`` in SVG's words; ``kind`` names its style."""

    d: str
    kind: str


@dataclass(frozen=True)
class Rule:
    """A vertical line at a value, with a label at its top."""

    x: float
    label: str


@dataclass(frozen=True)
class Interval:
    """One row of an interval chart: a point with its interval."""

    y: float
    x: float
    low: float
    high: float
    name: str
    label: str


@dataclass(frozen=True)
class Mark:
    """One point of a series, with a label beside it where it needs one; ``kind`` names its style."""

    x: float
    y: float
    kind: str
    label: str = ""


@dataclass(frozen=True)
class Chart:
    """One small chart.

    Attributes:
        title: what it shows, above it.
        description: the same for those who do not see it.
        note: what a reader must know besides, below it.
    """

    title: str
    description: str
    note: str
    x_label: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    height: int = HEIGHT
    bars: Sequence[Bar] = ()
    paths: Sequence[Path] = ()
    dots: Sequence[tuple[float, float]] = ()
    marks: Sequence[Mark] = ()
    rules: Sequence[Rule] = ()
    intervals: Sequence[Interval] = ()


@dataclass(frozen=True)
class Layer:
    """One set of values in a histogram: bars of ``kind`` on top of each other, or the outline of a reference."""

    name: str
    kind: str
    values: Numbers


def histogram(title: str, layers: Sequence[Layer], reference: Layer | None, *, limits: Sequence[float] = ()) -> Chart:
    """Return stacked bars of ``layers``, as shares of all their values, under the outline of ``reference``.

    Args:
        limits: values at which a vertical line stands.
    """
    stacked = np.concatenate([layer.values for layer in layers])
    outline = reference.values if reference else np.empty(0)
    axis, edges = _bins(stacked, outline, limits)
    steps = [_shares(layer.values, len(stacked), axis, edges) for layer in layers]
    outline_steps = _shares(outline, len(outline), axis, edges)
    y_axis = from_zero(max([*np.sum(steps, axis=0), *outline_steps, 1e-9]))
    hidden = axis.hides(np.concatenate([stacked, outline]))
    return Chart(
        title=title,
        description=_histogram_words(title, layers, reference, limits),
        note=f"{plural(hidden, 'value')} beyond the axis, counted in its outermost bars." if hidden else "",
        x_label="logarithmic scale" if axis.log else "",
        x_ticks=_placed_x(axis.ticks()),
        y_ticks=_placed_y([Tick(tick.at, percent(_value(y_axis, tick.at), 1)) for tick in y_axis.ticks(4)]),
        bars=_bars(layers, steps, edges, y_axis),
        paths=[Path(_outline(outline_steps, edges, y_axis), "reference")] if len(outline) else (),
        rules=[Rule(_x(float(axis.at(limit))), number(limit)) for limit in limits],
    )


def curve(title: str, steps: Numbers, values: Numbers, *, note: str = "") -> Chart:
    """Return ``values`` over training ``steps``; logarithmic where they fall over a wide range."""
    y_axis = axis_for(values, trim=False)
    x_axis = axis_for(steps, trim=False, allow_log=False)
    points = [(_x(float(x)), _y(float(y))) for x, y in zip(x_axis.at(steps), y_axis.at(values), strict=True)]
    path = "M" + " L".join(f"{x:.1f},{y:.1f}" for x, y in points)
    scale = "logarithmic scale" if y_axis.log else ""
    return Chart(
        title=title,
        description=f"{title} over training steps: from {number(float(values[0]))} at step {number(float(steps[0]))} "
        f"to {number(float(values[-1]))} at step {number(float(steps[-1]))}.",
        note="; ".join(filter(None, (note, scale))),
        x_label="training step",
        x_ticks=_placed_x(x_axis.ticks(4)),
        y_ticks=_placed_y(y_axis.ticks(4)),
        paths=[Path(path, "curve")] if len(points) > 1 else (),
        dots=points if len(points) <= 30 else (),
    )


def intervals(
    title: str,
    rows: Sequence[tuple[str, float, float, float]],
    *,
    x_label: str,
    zero: bool = True,
    write: Callable[[float], str] = signed,
) -> Chart:
    """Return one row for each (name, value, low, high).

    Args:
        zero: draw a rule at 0.
        write: how the numbers are written.
    """
    bounds, marks = np.array([value for row in rows for value in row[1:]]), (0.0,) if zero else ()
    shown = axis_for(bounds, marks=marks, allow_log=False, trim=False)
    margin = 0.08 * (shown.high - shown.low)
    axis = Axis(shown.low - margin, shown.high + margin)

    def placed(position: int, name: str, value: float, low: float, high: float) -> Interval:
        x, left, right = (_x(float(axis.at(bound))) for bound in (value, low, high))
        label = f"{write(value)} ({write(low)} to {write(high)})"
        return Interval(TOP + ROW_HEIGHT * (position + 0.7), x, left, right, name, label)

    rows_placed = [placed(position, *row) for position, row in enumerate(rows)]
    return Chart(
        title=title,
        description=f"{title}: " + "; ".join(f"{row.name} {row.label}" for row in rows_placed),
        note="",
        x_label=x_label,
        x_ticks=_placed_x(axis.ticks(4)),
        y_ticks=[],
        height=TOP + BOTTOM + ROW_HEIGHT * len(rows),
        rules=[Rule(_x(float(axis.at(mark))), "") for mark in marks],
        intervals=rows_placed,
    )


def _bins(stacked: Numbers, outline: Numbers, limits: Sequence[float]) -> tuple[Axis, Numbers]:
    """Return the axis and the bins' edges in [0, 1] on it; whole numbers of a small range get a bin each."""
    axis = axis_for(stacked, outline, marks=limits)
    values = np.concatenate([stacked, outline])
    if bool((values == np.round(values)).all()) and axis.high - axis.low < BINS[1]:
        axis = Axis(float(np.floor(axis.low)) - 0.5, float(np.ceil(axis.high)) + 0.5)
        return axis, np.linspace(0, 1, round(axis.high - axis.low) + 1)
    smallest = min(len(sample) for sample in (stacked, outline) if len(sample))
    return axis, np.linspace(0, 1, int(np.clip(round(3 * smallest ** (1 / 3)), *BINS)) + 1)


def _shares(values: Numbers, whole: int, axis: Axis, edges: Numbers) -> Numbers:
    return np.histogram(axis.at(values), edges)[0] / max(whole, 1)


def _bars(layers: Sequence[Layer], steps: Sequence[Numbers], edges: Numbers, y_axis: Axis) -> list[Bar]:
    bars, base = [], np.zeros(len(edges) - 1)
    for layer, heights in zip(layers, steps, strict=True):
        for position in np.flatnonzero(heights):
            low, high = base[position], base[position] + heights[position]
            x, right = _x(edges[position]) + 0.5, _x(edges[position + 1]) - 0.5
            top, bottom = (_y(float(y_axis.at(value))) for value in (high, low))
            bars.append(Bar(x, top, right - x, bottom - top, layer.kind))
        base = base + heights
    return bars


def _outline(shares: Numbers, edges: Numbers, y_axis: Axis) -> str:
    heights = [_y(float(place)) for place in y_axis.at(shares)]
    steps = [f"V{y:.1f} H{_x(right):.1f}" for y, right in zip(heights, edges[1:], strict=True)]
    return f"M{_x(0)},{_y(0)} {' '.join(steps)} V{_y(0)}"


def _histogram_words(title: str, layers: Sequence[Layer], reference: Layer | None, limits: Sequence[float]) -> str:
    sets = [layer for layer in (*layers, reference) if layer is not None and len(layer.values)]
    words = [f"{layer.name} n = {len(layer.values)}, median {number(float(np.median(layer.values)))}" for layer in sets]
    marks = f"; limit {' and '.join(map(number, limits))}" if limits else ""
    return f"Histogram of {title}: {'; '.join(words)}{marks}."


def _value(axis: Axis, at: float) -> float:
    return axis.low + at * (axis.high - axis.low)


def _x(at: float) -> float:
    return LEFT + at * PLOT_WIDTH


def _y(at: float) -> float:
    return TOP + (1 - at) * PLOT_HEIGHT


def _placed_x(ticks: list[Tick]) -> list[Tick]:
    return [Tick(_x(tick.at), tick.label) for tick in ticks]


def _placed_y(ticks: list[Tick]) -> list[Tick]:
    return [Tick(_y(tick.at), tick.label) for tick in ticks]
