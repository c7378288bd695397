"""What every training job left behind: data, settings, curves, its last sample sheet and its metrics."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..chain import write_value
from ..errors import StoreError
from ..recipe import Job
from ..run import Run
from .charts import Chart, curve
from .gallery import sheet_source
from .statistics import EvenSample
from .wording import number, plural

CURVE_POINTS = 600
CHARTS_SHOWN = 12


@dataclass(frozen=True)
class JobView:
    """One training job as the report shows it.

    Attributes:
        job: its entry in the recipe.
        facts: what ``job.json`` says of data, machine and versions; empty before the job has begun.
        metrics: test metrics by name, None before the job has finished; a value may be None where it is undefined.
        steps: training steps logged.
        charts: one a logged column.
        sheets: of each folder of pictures that the trainer keeps, data URI and name of the last one.
    """

    job: Job
    folder: Path
    facts: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float | None] | None = None
    steps: int | None = None
    charts: list[Chart] = field(default_factory=list)
    sheets: list[tuple[str, str]] = field(default_factory=list)

    @property
    def on(self) -> str:
        """What it trains on, in the field's shorthand: R for real, S for synthetic."""
        return "+".join(kind[0].upper() for kind in sorted(self.job.on))

    @property
    def state(self) -> str:
        """How far it came."""
        if self.metrics is not None:
            return "finished"
        return "interrupted" if self.facts else "not begun"

    @property
    def cases(self) -> int | None:
        """Number of training cases."""
        return (self.facts.get("data") or {}).get("cases")

    @property
    def data(self) -> str:
        """Name and number of the training cases, empty before the job has begun."""
        data = self.facts.get("data")
        return f"{data['name']}, {plural(data['cases'], 'case')}" if data else ""

    @property
    def settings(self) -> str:
        """Configuration on one line."""
        return ", ".join(f"{key} = {write_value(value)}" for key, value in self.job.values.items())


def job_views(run: Run) -> list[JobView]:
    """Return one view a job, in the order in which they run.

    Raises:
        StoreError: a file of a job is damaged.
    """
    return [_view(job, run.store.jobs / job.name) for job in run.recipe.in_order()]


def _view(job: Job, folder: Path) -> JobView:
    charts, steps = _curves(folder / "curves.csv")
    facts, metrics = _json(folder / "job.json"), _json(folder / "metrics.json")
    return JobView(job, folder, facts or {}, metrics, steps, charts, _last_sheets(folder))


def _json(file: Path) -> dict[str, Any] | None:
    if not file.exists():
        return None
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StoreError(f"{file} is damaged: {error}") from error


def _curves(file: Path) -> tuple[list[Chart], int | None]:
    """Return a chart for each logged column, and the last step."""
    columns, last = read_curves(file)
    charts = []
    for name, points in list(columns.items())[:CHARTS_SHOWN]:
        steps, values = (np.array(axis) for axis in zip(*points, strict=True))
        best = f"last {number(float(values[-1]))}, lowest {number(float(values.min()))}"
        charts.append(curve(name, steps, values, note=f"{best}, highest {number(float(values.max()))}"))
    return charts, last


def read_curves(file: Path) -> tuple[dict[str, list[tuple[float, float]]], int | None]:
    """Return the finite (step, value) points of every column, thinned evenly, and the last step; nothing of no file.

    Raises:
        StoreError: the table has no column ``step`` or holds what is no number.
    """
    if not file.exists():
        return {}, None
    samples: dict[str, EvenSample[tuple[float, float]]] = {}
    ends: dict[str, tuple[float, float]] = {}
    last = None
    with file.open(encoding="utf-8", newline="") as table:
        for row in csv.DictReader(table):
            try:
                step = float(row["step"])
                values = {name: float(text) for name, text in row.items() if name != "step" and text}
            except (KeyError, TypeError, ValueError) as error:
                raise StoreError(f"{file} is no table of numbers with a column step: {error}") from error
            last = int(step)
            for name, value in values.items():
                if math.isfinite(value):
                    samples.setdefault(name, EvenSample(CURVE_POINTS)).add((step, value))
                    ends[name] = (step, value)
    for name, sample in samples.items():
        if sample.items[-1] != ends[name]:
            sample.items.append(ends[name])
    return {name: sample.items for name, sample in samples.items()}, last


def _last_sheets(job: Path) -> list[tuple[str, str]]:
    folders = (sorted(folder.glob("*.png")) for folder in sorted(job.glob("*/")))
    return [(sheet_source(sheets[-1]), f"{sheets[-1].parent.name}/{sheets[-1].name}") for sheets in folders if sheets]
