"""The report of a study as one page: what follows, the tables and charts behind it, and what must be known besides."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ... import __version__
from ..bootstrap import RESAMPLES
from ..durable import made_folder, write_text
from ..report.environment import page_environment
from ..report.overview import Tile
from ..report.wording import count
from .comparison import tallies
from .examples import examples
from .outcomes import TEST
from .views import forests, real_curves, result_tables, sizes_chart, synthetic_curves

if TYPE_CHECKING:
    from .preparation import Material
    from .recipe import Study
    from .results import Findings
    from .store import StudyStore

PAGE = "index.html"
VERDICTS_SHOWN = 24
"""Longer lists are folded up below their count."""


def write_study_report(study: Study, material: Material, findings: Findings, store: StudyStore) -> Path:
    """Write ``report/index.html`` of a finished study and return its path.

    The page is one file without scripts or outside requests; the same results give the same bytes.

    Raises:
        StoreError: the folder cannot be written, or a file of the study is damaged.
    """
    page = (
        page_environment(Path(__file__).parent)
        .get_template("study.html")
        .render(_content(study, material, findings, store))
    )
    path = made_folder(store.report) / PAGE
    write_text(path, page)
    return path


def _content(study: Study, material: Material, findings: Findings, store: StudyStore) -> dict[str, Any]:
    comparisons = findings.comparisons
    told = [comparison for comparison in comparisons if comparison.measure.verdict]
    verdicts = [comparison for comparison in told if comparison.test == TEST]
    reference = "phantom reference" if material.real.phantom else "real"
    return {
        "study": study,
        "title": study.name,
        "kind": "study",
        "version": __version__,
        "phantom": material.phantom,
        "reference": reference,
        "leaks": material.leaks,
        "remarks": findings.remarks,
        "tiles": _tiles(study, material, findings),
        "verdicts": verdicts,
        "tallies": tallies(verdicts),
        "verdicts_shown": VERDICTS_SHOWN,
        "externals": [comparison for comparison in told if comparison.test != TEST],
        "material": material,
        "splits": {name: len(material.real.split(name)) for name in _splits(material)},
        "tables": result_tables(findings.outcomes),
        "forests": forests(comparisons),
        "comparisons": comparisons,
        "real_curves": real_curves(findings.outcomes),
        "synthetic_curves": synthetic_curves(study, findings.outcomes),
        "sizes": sizes_chart(study, findings.outcomes),
        "examples": examples(study, findings.outcomes, material.real),
        "machines": findings.machines,
        "cells": len({outcome.cell.key for outcome in findings.outcomes}),
        "rows": len({(o.row.arm, o.row.model, o.row.real_count, str(o.row.amount)) for o in findings.outcomes}),
        "resamples": RESAMPLES,
        "study_text": store.study.read_text(encoding="utf-8"),
        "next_figure": itertools.count(1).__next__,
        "next_table": itertools.count(1).__next__,
    }


def _splits(material: Material) -> list[str]:
    found = {record.split for record in material.real.records}
    return [split for split in ("train", "val", "test") if split in found]


def _tiles(study: Study, material: Material, findings: Findings) -> list[Tile]:
    folds = study.settings.folds
    runs = f"{count(len(study.settings.seeds))} seeds" + (f" x {folds} folds" if folds else "")
    test = material.real.split(TEST)
    lesions = len({record.lesion for record in test.records})
    return [
        Tile(count(len({outcome.cell.key for outcome in findings.outcomes})), "trainings", "each once"),
        Tile(count(len(study.models)), "models"),
        Tile(count(len(study.arms)), "arms"),
        Tile(count(len(study.settings.seeds) * (folds or 1)), "runs of each", runs),
        Tile(count(len(test)), "test images", f"of {count(lesions)} lesions"),
    ]
