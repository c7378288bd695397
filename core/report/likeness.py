"""The recipe's metrics as the report shows them: accepted cases with real training images, and real with real."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..recipe import JOB_REFERENCE
from ..run import Run
from .charts import Chart, intervals
from .wording import count, number, plural


@dataclass(frozen=True)
class Finding:
    """What one metric found in one comparison: a number with its sample, or why there is none."""

    value: str
    interval: str
    sample: str
    reason: str


@dataclass(frozen=True)
class LikenessRow:
    """One metric.

    Attributes:
        conventions: what else the numbers depend on.
        yardstick: real validation with real training images, None where the metric has no yardstick.
    """

    name: str
    conventions: str
    yardstick: Finding | None
    synthetic: Finding

    @property
    def refusal(self) -> str:
        """The one reason for which the metric refused both comparisons, else empty."""
        both = {self.synthetic.reason, self.yardstick.reason if self.yardstick else ""}
        return both.pop() if len(both) == 1 else ""


@dataclass(frozen=True)
class Likeness:
    """All metrics of the recipe.

    Attributes:
        rows: one a metric; empty before they were measured.
        charts: one a metric that has intervals.
        trained_here: True where an extractor was trained on the very training images that it compares.
    """

    rows: tuple[LikenessRow, ...]
    charts: tuple[Chart, ...]
    trained_here: bool


def likeness_of(run: Run) -> Likeness | None:
    """Return what the recipe's metrics found, None where it asks for none.

    Raises:
        StoreError: the run's file of them is damaged.
    """
    if not run.recipe.metrics:
        return None
    found = run.likeness() or []
    charts = [chart for chart in map(_chart, found) if chart is not None]
    values = [str(value) for metric in run.recipe.metrics for value in metric.values.values()]
    trained_here = any(value.startswith(JOB_REFERENCE) for value in values)
    return Likeness(tuple(map(_row, found)), tuple(charts), trained_here)


def _row(row: Mapping[str, Any]) -> LikenessRow:
    yardstick = None if row["yardstick"] is None else _finding(row["yardstick"])
    conventions = (_measured(row) or {}).get("conventions", {})
    words = ", ".join(f"{key} {_word(value)}" for key, value in conventions.items())
    return LikenessRow(_name(row), words, yardstick, _finding(row["synthetic"]))


def _finding(found: Mapping[str, Any]) -> Finding:
    if "reason" in found:
        return Finding("", "", "", found["reason"])
    known = found["low"] is not None and found["high"] is not None
    interval = f"{number(found['low'])} to {number(found['high'])}" if known else ""
    images = " : ".join(map(count, found["images"]))
    sample = images if found["pairs"] is None else f"{images}, {plural(found['pairs'], 'pair')}"
    return Finding(number(found["value"]), interval, sample, "")


def _chart(row: Mapping[str, Any]) -> Chart | None:
    """Return both intervals of one metric, None where there is none to draw."""
    named = (("real validation", row["yardstick"]), ("synthetic, accepted", row["synthetic"]))
    bounds = ("value", "low", "high")
    drawn = [
        (name, *(found[bound] for bound in bounds))
        for name, found in named
        if found is not None and all(found.get(bound) is not None for bound in bounds)
    ]
    if not drawn:
        return None
    distance = row["synthetic"].get("pairs") is None
    return intervals(_name(row), drawn, x_label="", zero=distance, write=number)


def _measured(row: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return next((found for found in (row["synthetic"], row["yardstick"]) if found and "reason" not in found), None)


def _name(row: Mapping[str, Any]) -> str:
    """Return what the number may be called, or the metric as the recipe has it where there is no number."""
    return str((_measured(row) or {}).get("name", row["metric"]))


def _word(value: Any) -> str:
    return number(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
