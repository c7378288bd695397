"""Tables and charts of a study's report, from its outcomes and comparisons."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..report.axes import Axis, axis_for
from ..report.charts import Chart
from ..report.series import Series, arrow_chart, series_chart, style
from ..report.wording import MISSING, count, fixed, signed
from .comparison import Comparison
from .measures import MEASURES, Measure
from .outcomes import TEST, Outcome
from .statistics import mean_and_spread

if TYPE_CHECKING:
    from .recipe import Study

FOREST_WIDTH = 220


@dataclass(frozen=True)
class ResultTable:
    """Results of one model on one test set: an arm a row, a measure a column."""

    model: str
    test: str
    parameters: float | None
    measures: tuple[Measure, ...]
    rows: tuple[ResultRow, ...]


@dataclass(frozen=True)
class ResultRow:
    """One arm: numbers of training cases, steps, and mean and standard deviation over runs of each measure."""

    arm: str
    real: str
    synthetic: str
    runs: int
    steps: str
    cells: tuple[str, ...]


def result_tables(outcomes: Sequence[Outcome]) -> list[ResultTable]:
    """Return one table for each test set and model."""
    tables = []
    for test in dict.fromkeys(outcome.test for outcome in outcomes):
        for model in dict.fromkeys(outcome.row.model for outcome in outcomes):
            of_model = [o for o in outcomes if o.test == test and o.row.model == model]
            measures = tuple(m for m in MEASURES.values() if any(m.name in o.metrics for o in of_model))
            rows = tuple(_result_row(group, measures) for group in grouped(of_model))
            tables.append(ResultTable(model, test, of_model[0].metrics.get("parameters"), measures, rows))
    return tables


def grouped(outcomes: Sequence[Outcome]) -> Iterator[list[Outcome]]:
    """Yield the runs of each arm, number of real images and amount of synthetic cases, of one model and test set."""
    groups: dict[object, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault((outcome.row.real_count, outcome.row.arm, outcome.row.amount), []).append(outcome)
    yield from groups.values()


def _result_row(group: Sequence[Outcome], measures: Sequence[Measure]) -> ResultRow:
    steps = sorted({outcome.steps for outcome in group if outcome.steps is not None})
    first = group[0]
    return ResultRow(
        arm=first.row.arm,
        real=count(first.cell.real_count),
        synthetic=count(first.cell.synthetic_count),
        runs=len(group),
        steps=" to ".join(count(number) for number in dict.fromkeys((*steps[:1], *steps[-1:]))) or MISSING,
        cells=tuple(_mean_cell(group, measure) for measure in measures),
    )


def _mean_cell(group: Sequence[Outcome], measure: Measure) -> str:
    values = [value for value in (outcome.metrics.get(measure.name) for outcome in group) if value is not None]
    if not values:
        return MISSING
    mean, spread = mean_and_spread(values)
    decimals = 4 if measure.points else 2
    return fixed(mean, decimals) + ("" if spread is None else f" ± {fixed(spread, decimals)}")


@dataclass(frozen=True)
class ForestRow:
    """One comparison in a forest plot; places are in pixels of a strip of :data:`FOREST_WIDTH`."""

    comparison: Comparison
    x: float
    low: float
    high: float
    label: str


@dataclass(frozen=True)
class Forest:
    """Gains by one measure on one test set, all on one scale.

    Attributes:
        zero: where no difference lies.
        ticks: place and label of the scale.
    """

    measure: Measure
    test: str
    rows: tuple[ForestRow, ...]
    zero: float
    ticks: tuple[tuple[float, str], ...]


def forests(comparisons: Sequence[Comparison]) -> list[Forest]:
    """Return a forest plot for each measure that verdicts are given by, and each test set."""
    groups: dict[tuple[str, str], list[Comparison]] = {}
    for comparison in comparisons:
        if comparison.measure.verdict:
            groups.setdefault((comparison.test, comparison.measure.name), []).append(comparison)
    return [_forest(group) for group in groups.values()]


def _forest(comparisons: Sequence[Comparison]) -> Forest:
    measure = comparisons[0].measure
    bounds = [measure.shown(v) for c in comparisons for v in (c.interval.low, c.interval.high, c.interval.mean)]
    shown = axis_for(np.array(bounds), marks=(0.0,), allow_log=False, trim=False)
    margin = 0.05 * (shown.high - shown.low)
    axis = Axis(shown.low - margin, shown.high + margin)

    def place(value: float) -> float:
        return float(axis.at(value)) * FOREST_WIDTH

    def row(comparison: Comparison) -> ForestRow:
        found = comparison.interval
        mean, low, high = (measure.shown(value) for value in (found.mean, found.low, found.high))
        label = f"{signed(mean)} ({signed(low)} to {signed(high)})"
        return ForestRow(comparison, place(mean), place(low), place(high), label)

    ticks = tuple((tick.at * FOREST_WIDTH, tick.label) for tick in axis.ticks(4))
    return Forest(measure, comparisons[0].test, tuple(map(row, comparisons)), place(0.0), ticks)


@dataclass(frozen=True)
class Curves:
    """A chart of each model, and what its series are called, with their styles."""

    charts: tuple[Chart, ...]
    legend: tuple[tuple[str, str], ...]
    measure: Measure


@dataclass(frozen=True)
class _Point:
    """One run in a chart."""

    model: str
    series: str
    place: float
    value: float


def leading_measure(outcomes: Sequence[Outcome], prefer: str = "") -> Measure | None:
    """Return the first measure that all outcomes have, ``prefer`` if they have that, None where they share none."""
    names = [name for name in MEASURES if all(outcome.metrics.get(name) is not None for outcome in outcomes)]
    return MEASURES[prefer if prefer in names else names[0]] if outcomes and names else None


def real_curves(outcomes: Sequence[Outcome]) -> Curves | None:
    """Return each arm's first measure over the number of real images, where there are several numbers."""
    tested = [outcome for outcome in outcomes if outcome.test == TEST and outcome.cell.real_count]
    measure = leading_measure(tested)
    if measure is None or len({outcome.cell.real_count for outcome in tested}) < 2:
        return None
    points = [_point(o, _arm(o), o.cell.real_count, measure) for o in tested]
    return _curves(points, measure, "real training images")


def synthetic_curves(study: Study, outcomes: Sequence[Outcome]) -> Curves | None:
    """Return the first measure over the number of synthetic cases beside the same real images, where it varies.

    The arm of real images alone stands at 0.
    """
    tested = [outcome for outcome in outcomes if outcome.test == TEST]
    measure = leading_measure(tested)
    if measure is None:
        return None
    points = []
    for real_count in dict.fromkeys(outcome.row.real_count for outcome in tested):
        at = [outcome for outcome in tested if outcome.row.real_count == real_count]
        for arm in (arm.name for arm in study.arms if arm.real and arm.synthetic):
            added = [outcome for outcome in at if outcome.row.arm == arm]
            if len({outcome.row.amount for outcome in added}) > 1:
                plain = [outcome for outcome in at if outcome.row.arm == study.baseline]
                series = f"{arm}, {count(added[0].cell.real_count)} real"
                points += [_point(o, series, o.cell.synthetic_count, measure) for o in (*plain, *added)]
    return _curves(points, measure, "synthetic training cases") if points else None


def _arm(outcome: Outcome) -> str:
    amount = outcome.row.amount
    return outcome.row.arm if amount is None or amount.kind == "all" else f"{outcome.row.arm} {amount}"


def _point(outcome: Outcome, series: str, place: float, measure: Measure) -> _Point:
    return _Point(outcome.row.model, series, place, float(outcome.metrics[measure.name] or 0.0))


def _curves(points: Sequence[_Point], measure: Measure, x_label: str) -> Curves:
    names = list(dict.fromkeys(point.series for point in points))
    charts = []
    for model in dict.fromkeys(point.model for point in points):
        series = []
        for name in names:
            of_series = [point for point in points if (point.model, point.series) == (model, name)]
            places = sorted({point.place for point in of_series})
            runs = [(place, [point.value for point in of_series if point.place == place]) for place in places]
            series.append(Series(name, runs))
        charts.append(series_chart(f"{model}: {measure.label}", series, x_label=x_label))
    return Curves(tuple(charts), tuple((style(place), name) for place, name in enumerate(names)), measure)


def sizes_chart(study: Study, outcomes: Sequence[Outcome]) -> Chart | None:
    """Return IoU (or the first measure) over parameters, an arrow from R to the first arm of both for each model.

    At the largest number of real images. None where fewer than two models tell their parameters.
    """
    added = next((arm.name for arm in study.arms if arm.real and arm.synthetic), None)
    tested = [o for o in outcomes if o.test == TEST and o.row.arm in (study.baseline, added)]
    measure = leading_measure(tested, "iou")
    if measure is None or added is None or study.baseline is None:
        return None
    arrows = []
    for model in dict.fromkeys(outcome.row.model for outcome in tested):
        of_model = [outcome for outcome in tested if outcome.row.model == model]
        most = max(outcome.cell.real_count for outcome in of_model)
        groups = {g[0].row.arm: g for g in reversed(list(grouped(of_model))) if g[0].cell.real_count == most}
        parameters = of_model[0].metrics.get("parameters")
        if parameters and len(groups) == 2:
            means = [_group_mean(groups[arm], measure) for arm in (study.baseline, added)]
            arrows.append((model, parameters / 1e6, *means))
    title = f"{measure.label}, {study.baseline} to {added}"
    return arrow_chart(title, arrows, x_label="million parameters") if len(arrows) > 1 else None


def _group_mean(group: Sequence[Outcome], measure: Measure) -> float:
    return mean_and_spread([float(outcome.metrics[measure.name] or 0.0) for outcome in group])[0]
