"""Carries a study out: prepares its data, trains the cells of its grid, and at the end assembles tables and report."""

from __future__ import annotations

import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..context import choose_device, choose_precision
from ..dataset import Dataset
from ..errors import ConfigError, LesionforgeError
from ..job_files import FURTHER_TESTS, METRICS
from ..jobs import JobRunner, OtherFacts
from ..registry import Registry, default_registry
from ..runner import observed
from ..shards import same_threads
from .cells import Cell, CellMaker, external_folder
from .grid import Row, rows
from .preparation import Material, prepare, study_data, with_absolute_sources
from .store import StudyStore

if TYPE_CHECKING:
    import torch

    from .recipe import Study
    from .results import StudyResults

LOOK_AGAIN = 1.0


def run_study(
    study: Study,
    *,
    output: Path,
    data: str | Dataset | None,
    resume: bool,
    shard: tuple[int, int] | None,
    allow_leak: bool,
    device: str,
    observers: Sequence[object],
    report: bool,
    registry: Registry | None,
) -> StudyResults:
    """Carry ``study`` out in ``output``, see :meth:`Study.run`."""
    from .results import StudyResults

    if shard is not None and not 1 <= shard[0] <= shard[1]:
        raise ConfigError(f"shard {shard[0]}/{shard[1]}: expected i/n with i from 1 to n")
    registry = registry or default_registry()
    target = choose_device(device)
    study = with_absolute_sources(study, data if isinstance(data, str) else None).resolved(registry)
    real = study_data(study, data if isinstance(data, Dataset) else None, registry)
    store = StudyStore(output)
    store.create(study.to_toml(), resume=resume or shard is not None)
    with observed(registry, observers), same_threads(store):
        try:
            material = prepare(study, real, store, device=device, allow_leak=allow_leak, registry=registry)
            grid = lay_out(study, material, choose_precision(study.settings.precision, target), registry)
            work = _Work(study, material, store, target, registry)
            work.train(grid.share(shard))
            if shard is None:
                with store.alone("tables"):
                    store.clear()
                    work.assemble(grid, report=report)
        except LesionforgeError as error:
            if error.__cause__ is not None:
                store.append_log({"event": "failure", "traceback": "".join(traceback.format_exception(error))})
            raise
    return StudyResults(output)


@dataclass(frozen=True)
class Grid:
    """The rows of a study's tables, and the cell behind each."""

    rows: tuple[tuple[Row, Cell], ...]

    @property
    def cells(self) -> list[Cell]:
        """Every cell once, in the order of the grid."""
        return list({cell.key: cell for _, cell in self.rows}.values())

    def share(self, shard: tuple[int, int] | None) -> list[Cell]:
        """Return the cells that fall to part i of n: every n-th one, so that all parts have alike to do."""
        return self.cells if shard is None else self.cells[shard[0] - 1 :: shard[1]]


def lay_out(study: Study, material: Material, precision: str, registry: Registry) -> Grid:
    """Return the grid with the data of every cell; raises DataError where an arm takes more cases than there are."""
    maker = CellMaker(study, material, precision, registry)
    made: dict[Any, Cell] = {}
    for row in rows(study):
        if row.training not in made:
            made[row.training] = maker.make(row.training)
    return Grid(tuple((row, made[row.training]) for row in rows(study)))


@dataclass(frozen=True)
class _Work:
    """A study in progress."""

    study: Study
    material: Material
    store: StudyStore
    device: torch.device
    registry: Registry

    def train(self, cells: Sequence[Cell]) -> None:
        """Train and evaluate what is missing of ``cells``; what another process has at hand is waited for."""
        tests = {external_folder(name, data): data for name, data in self.material.externals.items()}
        missing = [cell for cell in cells if not self._done(cell, tests)]
        self.registry.observers.grid_started(output=self.store.root, cells=[(cell.key, cell.label) for cell in cells])
        while missing:
            left = [cell for cell in missing if not self._tried(cell, tests)]
            if len(left) == len(missing):
                time.sleep(LOOK_AGAIN)
            missing = [cell for cell in left if not self._done(cell, tests)]

    def _done(self, cell: Cell, tests: dict[str, Dataset]) -> bool:
        folder = self.store.jobs / cell.key / FURTHER_TESTS
        return self.store.finished(cell.key) and all((folder / name / METRICS).is_file() for name in tests)

    def _tried(self, cell: Cell, tests: dict[str, Dataset]) -> bool:
        """Train and evaluate a cell; False where another process is at it."""
        with self.store.holding(cell.key) as held:
            if not held:
                return False
            seed, precision = cell.training.seed, self.study.settings.precision
            jobs = JobRunner(self.store, seed, self.device, precision, self.registry)
            if not self.store.finished(cell.key):
                try:
                    jobs.run(cell.job, cell.real, cell.synthetic)
                except OtherFacts as error:  # begun on another machine or by other versions; a cell is not worth a stop
                    self.store.append_log({"event": "begun anew", "name": cell.key, "reason": str(error)})
                    self.store.discard(cell.key)
                    jobs.run(cell.job, cell.real, cell.synthetic)
            for name, dataset in tests.items():
                jobs.evaluate(cell.job, dataset, name)
            return True

    def assemble(self, grid: Grid, *, report: bool) -> None:
        """Write tables, comparisons and, if wanted, the report; all of it follows from the cells alone."""
        from .results import find, write_results

        findings = find(self.study, self.material, grid, self.store)
        write_results(self.study, self.material, findings, self.store)
        if report:
            from .report import write_study_report

            write_study_report(self.study, self.material, findings, self.store)
