"""What the cells of a study measured, gathered from their folders."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..durable import read_json
from ..errors import StoreError
from ..job_files import FACTS, FURTHER_TESTS, METRICS
from .cells import Cell, external_folder
from .grid import Row
from .measures import MEASURES

if TYPE_CHECKING:
    from .preparation import Material
    from .runner import Grid
    from .store import StudyStore

TEST = "test"
IMAGE_TEXTS = ("label", "predicted")


@dataclass(frozen=True)
class Outcome:
    """One row of the grid on one test set.

    Attributes:
        test: ``test``, or the external set's name.
        folder: where the cell keeps these results.
        metrics: as the trainer returned them.
        images: per-image values by image id and column, as text.
        steps: optimisation steps that the training took, None where it keeps no curve.
    """

    row: Row
    cell: Cell
    test: str
    folder: Path
    metrics: Mapping[str, float | None]
    images: Mapping[str, Mapping[str, str]]
    steps: int | None

    @property
    def repetition(self) -> tuple[int, int]:
        """Seed and fold."""
        return self.row.seed, -1 if self.row.fold is None else self.row.fold

    def values(self, column: str) -> dict[str, float]:
        """Return the numbers of one column by image id; NaN where the table has none."""
        return {image: number(row.get(column)) for image, row in self.images.items()}

    def identity(self) -> dict[str, Any]:
        """Return what tells this row from the others of a table."""
        return {
            "model": self.row.model,
            "arm": self.row.arm,
            "synthetic": self.cell.training.synthetic,
            "amount": None if self.row.amount is None else str(self.row.amount),
            "real_count": self.cell.real_count,
            "synthetic_count": self.cell.synthetic_count,
            "seed": self.row.seed,
            "fold": self.row.fold,
            "test": self.test,
        }


def number(text: str | None) -> float:
    """Return a number of a table, NaN for an empty field."""
    return float(text) if text else math.nan


def gather(grid: Grid, material: Material, store: StudyStore) -> list[Outcome]:
    """Return every row of the grid on every test set, in the grid's order.

    Raises:
        StoreError: a cell is not finished, or a file of it is damaged.
    """
    places = {TEST: ""} | {name: external_folder(name, data) for name, data in material.externals.items()}
    read: dict[tuple[str, str], Outcome] = {}
    outcomes = []
    for row, cell in grid.rows:
        for test, place in places.items():
            folder = store.jobs / cell.key / (f"{FURTHER_TESTS}/{place}" if place else "")
            if (cell.key, test) not in read:
                read[cell.key, test] = _read(row, cell, test, folder, store.jobs / cell.key)
            known = read[cell.key, test]
            outcomes.append(Outcome(row, cell, test, folder, known.metrics, known.images, known.steps))
    return outcomes


def _read(row: Row, cell: Cell, test: str, folder: Path, training: Path) -> Outcome:
    return Outcome(row, cell, test, folder, read_json(folder / METRICS), _images(folder), _steps(training))


def _images(folder: Path) -> dict[str, dict[str, str]]:
    file = folder / "per_image.csv"
    if not file.exists():
        return {}
    columns = {measure.column for measure in MEASURES.values() if measure.column}
    with file.open(encoding="utf-8", newline="") as table:
        try:
            rows = {row.pop("image_id"): row for row in csv.DictReader(table)}
            for row in rows.values():
                for column in columns & row.keys():
                    number(row[column])
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"{file} is no table of numbers with a column image_id: {error}") from error
    return rows


def _steps(folder: Path) -> int | None:
    from ..report.training import read_curves

    return read_curves(folder / "curves.csv")[1]


def cell_table(outcomes: list[Outcome]) -> list[dict[str, Any]]:
    """Return one row for every row of the grid and test set, with all metrics."""
    return [
        {**outcome.identity(), "cell": outcome.cell.key, "steps": outcome.steps, **outcome.metrics}
        for outcome in outcomes
    ]


def image_table(outcomes: list[Outcome], lesions: Mapping[str, Mapping[str, str]]) -> Iterator[dict[str, Any]]:
    """Yield one row for every row of the grid and test image, with what was measured on it."""
    columns = [measure.column for measure in MEASURES.values() if measure.column]
    for outcome in outcomes:
        identity = outcome.identity()
        for image, row in outcome.images.items():
            texts = {name: row[name] for name in IMAGE_TEXTS if name in row}
            numbers = {name: number(row[name]) for name in columns if name in row}
            lesion = lesions[outcome.test].get(image, image)
            yield {**identity, "image_id": image, "lesion": lesion, **texts, **numbers}


def machines(outcomes: list[Outcome], store: StudyStore) -> dict[str, list[Any]]:
    """Return the machines and versions that the cells were trained with, each once."""
    facts = [read_json(store.jobs / key / FACTS) for key in dict.fromkeys(outcome.cell.key for outcome in outcomes)]
    found: dict[str, list[Any]] = {"machine": [], "versions": []}
    for name, listed in found.items():
        for entry in facts:
            if entry.get(name) not in listed:
                listed.append(entry.get(name))
    return found
