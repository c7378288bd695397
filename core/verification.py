"""Is a run what it says it is? Recipe, checkpoints, fits, ledgers and files against the hashes written beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .batch import case_id
from .checkpoints import checkpoint_path
from .durable import file_hash
from .errors import CheckpointError
from .manifest import published_hash, text_hash
from .recipe import JOB_REFERENCE
from .run import Case, Run
from .seeding import case_seed
from .store import COLUMN_FOLDERS, LEDGER, LEDGER_SEAL, read_ledger

if TYPE_CHECKING:
    from .recipe import Recipe


@dataclass(frozen=True)
class Verification:
    """What :meth:`Run.verify` found.

    Attributes:
        cases: how many cases were checked.
        expected: how many the recipe makes.
        problems: what is not as recipe, manifest and ledgers say, one line each.
        notes: what could not be checked, one line each.
    """

    cases: int
    expected: int
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """True where every case of the recipe is committed."""
        return self.cases == self.expected

    @property
    def ok(self) -> bool:
        """True where every committed file is what the ledger says."""
        return not self.problems


def verify_run(run: Run) -> Verification:
    """Check everything that ``run`` holds, see :meth:`Run.verify`.

    Raises:
        StoreError: the manifest or a ledger cannot be read at all.
    """
    problems, notes = [], []
    manifest = run.manifest
    if manifest and manifest.get("recipe") != text_hash(run.store.recipe.read_text(encoding="utf-8")):
        problems.append(f"{run.store.recipe} is not the recipe that the manifest was written for")
    for stage in manifest.get("stages", ()):
        problems += _fit_problems(run, stage)
        found, unchecked = _checkpoint_findings(run, stage)
        problems += found
        notes += unchecked
    manifest_hash = run.store.manifest_hash() if manifest else None
    count = 0
    for shard in run.store.committed():
        rows = read_ledger(shard)
        count += len(rows)
        problems += _shard_problems(run.recipe, shard, rows, manifest_hash)
    expected = run.recipe.synthesis.count if run.recipe.synthesis else 0
    return Verification(count, expected, tuple(problems), tuple(notes))


def _fit_problems(run: Run, stage: Mapping[str, Any]) -> list[str]:
    if stage["fitted"] is None:
        return []
    file = run.store.fitted / f"{stage['key']}.safetensors"
    if not file.exists():
        return [f"{file} is missing"]
    return [] if file_hash(file) == stage["fitted"] else [f"{file} has changed"]


def _checkpoint_findings(run: Run, stage: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return problems and notes of the checkpoints that a stage of the manifest was set up with."""
    problems, notes = [], []
    for key, digest in stage["checkpoints"].items():
        value = str(stage["config"].get(key))
        own = value.startswith(JOB_REFERENCE)
        path = run.store.jobs / value.removeprefix(JOB_REFERENCE) if own else _place(value, stage, key)
        own = own or path.resolve().is_relative_to(run.path.resolve())
        if path.exists():
            problems += [] if published_hash(path) == digest else [f"{stage['key']}: {key} {path} has changed"]
        elif own:
            problems.append(f"{stage['key']}: {key} {path} is missing")
        else:
            notes.append(f"{stage['key']}: {key} {path} is not there to check")
    return problems, notes


def _place(name: str, stage: Mapping[str, Any], key: str) -> Path:
    """Return where a checkpoint lies now, of the hub's revision that the stage was set up with."""
    revision = stage.get("revisions", {}).get(key)
    try:
        return checkpoint_path(name if revision is None else f"{name.partition('@')[0]}@{revision}")
    except CheckpointError:
        return Path(name)


def _shard_problems(
    recipe: Recipe, shard: Path, rows: list[dict[str, Any]], manifest_hash: str | None
) -> Iterator[str]:
    yield from _seal_problems(shard)
    indices = _indices(recipe, shard)
    if not indices:
        yield f"{shard} is no shard that the recipe makes"
    seen: list[int] = []
    for row in rows:
        case = Case.from_row(row, shard)
        if row["manifest"] != manifest_hash:
            yield f"{case.id} was made under another manifest"
        if case.index in seen:
            yield f"{case.id} appears twice"
        if case.index not in indices:
            yield f"{case.id}: index {case.index} lies outside {shard}"
        else:
            yield from _identity_problems(case, recipe.seed)
        yield from _file_problems(case, shard)
        seen.append(case.index)
    missing = sorted(set(indices) - set(seen))
    if missing:
        yield f"{shard}: {len(missing)} cases have no row in the ledger, {case_id(missing[0])} first"
    if seen != sorted(seen):
        yield f"{shard}: the rows of the ledger are out of order"
    known = {shard / name for row in rows for name in row["files"].values()} | {shard / LEDGER, shard / LEDGER_SEAL}
    for file in sorted(file for file in shard.rglob("*") if file.is_file() and file not in known):
        yield f"{file} is in no ledger row"


def _seal_problems(shard: Path) -> list[str]:
    seal, ledger = shard / LEDGER_SEAL, shard / LEDGER
    if not seal.is_file():
        return [f"{seal} is missing, so {LEDGER} cannot be trusted"]
    return [] if seal.read_bytes().strip() == file_hash(ledger).encode() else [f"{ledger} has changed"]


def _indices(recipe: Recipe, shard: Path) -> range:
    """Return the case numbers that belong into the folder ``shard``, none where the recipe makes no such shard."""
    synthesis = recipe.synthesis
    if synthesis is None or not shard.name.isdecimal() or int(shard.name) % synthesis.shard_size:
        return range(0)
    first = int(shard.name)
    return range(first, min(first + synthesis.shard_size, synthesis.count))


def _identity_problems(case: Case, run_seed: int) -> Iterator[str]:
    if case.id != case_id(case.index):
        yield f"{case.id}: case number {case.index} is called {case_id(case.index)}"
    if case.seed != case_seed(run_seed, case.index):
        yield f"{case.id}: seed {case.seed} is not the one that the run's seed gives"


def _file_problems(case: Case, shard: Path) -> Iterator[str]:
    if case.sha256.keys() != case.files.keys():
        yield f"{case.id}: files and hashes are of different columns"
    for column, file in case.files.items():
        folder = shard if case.kept else shard / "rejected"
        place = folder / COLUMN_FOLDERS.get(column, column) / f"{case.id}.png"
        if not file.is_file():
            yield f"{case.id}: {column} {file} is missing"
        elif file_hash(file) != case.sha256.get(column):
            yield f"{case.id}: {column} {file} has changed"
        elif file != place:
            yield f"{case.id}: {column} {file} belongs to {place}, since the case was {_word(case)}"


def _word(case: Case) -> str:
    return "kept" if case.kept else "rejected"
