"""Tables of a finished study: what was measured, what was compared, what follows; as files and as objects."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..durable import read_json, write_bytes, write_text
from ..errors import StoreError
from ..manifest import canonical_json
from .comparison import Comparison
from .comparisons import compare
from .outcomes import TEST, Outcome, cell_table, gather, image_table, machines
from .recipe import Study
from .remarks import remarks
from .store import StudyStore

if TYPE_CHECKING:
    from .preparation import Material
    from .runner import Grid

SUMMARY = "summary.json"
TABLES = ("cells", "per_image", "comparisons")


class StudyResults:
    """A study folder opened for reading."""

    def __init__(self, root: str | Path) -> None:
        """Open the study folder ``root``; raises StoreError where it holds none."""
        self.store = StudyStore(Path(root))
        if not self.store.study.is_file():
            raise StoreError(f"{root} is no study folder: it has no study.toml")

    def __repr__(self) -> str:
        return f"StudyResults({str(self.store.root)!r})"

    @property
    def path(self) -> Path:
        """The study folder."""
        return self.store.root

    @property
    def study(self) -> Study:
        """The study as resolved when it was last begun."""
        return Study.load(self.store.study)

    @property
    def assembled(self) -> bool:
        """True once the tables are written."""
        return (self.store.results / SUMMARY).is_file()

    @property
    def report(self) -> Path | None:
        """The page of the report, or None."""
        page = self.store.report / "index.html"
        return page if page.is_file() else None

    def summary(self) -> dict[str, Any]:
        """Return verdicts, leaks, remarks, counts, machines and versions.

        Raises:
            StoreError: the study is not finished.
        """
        return read_json(self.store.results / SUMMARY)

    def table(self, name: str) -> list[dict[str, str]]:
        """Return one of the tables ``cells``, ``per_image`` and ``comparisons`` as text.

        Raises:
            StoreError: the study is not finished, or has no such table.
        """
        file = self.store.results / f"{name}.csv"
        try:
            with file.open(encoding="utf-8", newline="") as table:
                return list(csv.DictReader(table))
        except OSError as error:
            raise StoreError(f"{file} cannot be read: {error.strerror}; tables are {', '.join(TABLES)}") from error


@dataclass(frozen=True)
class Findings:
    """All that a study found, as the report shows it."""

    outcomes: list[Outcome]
    comparisons: list[Comparison]
    remarks: list[str]
    machines: dict[str, list[Any]]


def find(study: Study, material: Material, grid: Grid, store: StudyStore) -> Findings:
    """Return what the finished cells of ``grid`` show."""
    outcomes = gather(grid, material, store)
    lesions = lesions_of(material)
    compared = compare(study, outcomes, lesions)
    places = machines(outcomes, store)
    return Findings(outcomes, compared, remarks(study, material, outcomes, compared, places), places)


def lesions_of(material: Material) -> dict[str, dict[str, str]]:
    """Return the lesion of every test image, by test set."""
    sets = {TEST: material.real.split(TEST), **material.externals}
    return {name: {record.image_id: record.lesion for record in data.records} for name, data in sets.items()}


def write_results(study: Study, material: Material, findings: Findings, store: StudyStore) -> None:
    """Write tables (CSV, and Parquet where pyarrow is installed) and summary; the summary comes last."""
    tables = {
        "cells": cell_table(findings.outcomes),
        "per_image": list(image_table(findings.outcomes, lesions_of(material))),
        "comparisons": [comparison.row() for comparison in findings.comparisons],
    }
    for name, rows in tables.items():
        columns = list(dict.fromkeys(column for row in rows for column in row))
        write_text(store.results / f"{name}.csv", _csv(columns, rows))
        write_parquet(store.results / f"{name}.parquet", columns, rows)
    write_text(store.results / SUMMARY, canonical_json(_summary(study, material, findings)))


def _summary(study: Study, material: Material, findings: Findings) -> dict[str, Any]:
    verdicts = [
        {**_place(comparison), "metric": comparison.measure.name, "verdict": comparison.verdict}
        for comparison in findings.comparisons
        if comparison.measure.verdict
    ]
    return {
        "name": study.name,
        "phantom": material.phantom,
        "cells": len({outcome.cell.key for outcome in findings.outcomes}),
        "verdicts": verdicts,
        "leaks": [str(leak) for leak in material.leaks],
        "remarks": findings.remarks,
        "parquet": has_parquet(),
        **findings.machines,
    }


def _place(comparison: Comparison) -> dict[str, Any]:
    row = comparison.row()
    names = ("model", "arm", "against", "real_count", "synthetic_count", "real_count_against", "test", "outcome")
    return {"place": comparison.place, **{name: row[name] for name in names}}


def _csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows({key: "" if value != value else value for key, value in row.items()} for row in rows)
    return text.getvalue()


def has_parquet() -> bool:
    """True where pyarrow is installed, which writes Parquet."""
    from importlib.util import find_spec

    return find_spec("pyarrow") is not None


def write_parquet(file: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a table as Parquet; without pyarrow there is none, and the summary says so."""
    if not has_parquet() or not columns:
        return
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.table({column: [row.get(column) for row in rows] for column in columns})
    content = pyarrow.BufferOutputStream()
    parquet.write_table(table, content)
    write_bytes(file, content.getvalue().to_pybytes())
