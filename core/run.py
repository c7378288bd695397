"""A finished or interrupted run as people look at it: cases, summary, verification, regeneration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .dataset import Dataset, Record
from .decoding import open_image
from .durable import read_json
from .errors import StoreError
from .recipe import Recipe
from .store import RunStore, read_ledger

if TYPE_CHECKING:
    from .registry import Registry
    from .verification import Verification

Pixels = NDArray[np.uint8]
MANIFEST_KEYS = {"seed", "stages", "data", "machine", "versions"}
REJECTION_KEYS = {"kept", "by", "score", "value", "threshold"}
LIKENESS_KEYS = {"metric", "inputs", "yardstick", "synthetic"}
STAGE_KEYS = {"key", "plugin", "config", "checkpoints", "fitted"}


@dataclass(frozen=True)
class Case:
    """One case of a run, read from its ledger row.

    Attributes:
        id: ``case-`` and the index.
        index: number within the run.
        seed: 64-bit seed of all its randomness.
        label: class name or None.
        prompt: text or None.
        scores: what filters and annotators measured; None where a score is not finite.
        verdict: ``{"kept": True}``, or with ``by``, ``score``, ``value``, ``threshold`` of the rejection.
        provenance: facts of this case beyond the run's manifest.
    """

    id: str
    index: int
    seed: int
    label: str | None
    prompt: str | None
    scores: Mapping[str, float | None]
    verdict: Mapping[str, Any]
    provenance: Mapping[str, Any]
    files: Mapping[str, Path]
    sha256: Mapping[str, str]

    @classmethod
    def from_row(cls, row: Mapping[str, Any], shard: Path) -> Case:
        """Return the case that a ledger row of ``shard`` describes.

        Raises:
            StoreError: the row lacks something or names a file outside its shard.
        """
        plain = ("id", "index", "seed", "label", "prompt", "scores", "verdict", "provenance", "sha256")
        try:
            files = {column: _within(shard, name) for column, name in row["files"].items()}
            case = cls(**{name: row[name] for name in plain}, files=files)
        except (KeyError, TypeError, AttributeError) as error:
            raise StoreError(f"ledger of shard {shard}: a row is malformed ({error})") from None
        numbers = type(case.index) is int and type(case.seed) is int and isinstance(case.id, str)
        tables = all(_has(table, set()) for table in (case.scores, case.provenance, case.sha256))
        verdict = _has(case.verdict, {"kept"}) and (case.kept or _has(case.verdict, REJECTION_KEYS))
        if not (numbers and tables and verdict and _has(row, {"manifest"})):
            raise StoreError(f"ledger of shard {shard}: row {case.id!r} is malformed: an entry is missing or of no use")
        return case

    @property
    def kept(self) -> bool:
        """True where no filter rejected the case."""
        return bool(self.verdict["kept"])

    @property
    def reason(self) -> str | None:
        """Why the case was rejected, in words; None for a kept one."""
        if self.kept:
            return None
        value, limit = (_written(self.verdict[key]) for key in ("value", "threshold"))
        return f"{self.verdict['by']}: {self.verdict['score']} {value} (limit {limit})"

    @property
    def image(self) -> Pixels | None:
        """(H, W, 3) uint8 pixels, or None where the chain makes no images."""
        return self._pixels("image", "RGB")

    @property
    def mask(self) -> Pixels | None:
        """(H, W) uint8 pixels of 0 and 1, or None."""
        pixels = self._pixels("mask", "L")
        return None if pixels is None else (pixels >= 128).astype(np.uint8)

    @property
    def soft_mask(self) -> Pixels | None:
        """(H, W) uint8 pixels, 255 for 1.0, or None."""
        return self._pixels("soft_mask", "L")

    def _pixels(self, column: str, mode: str) -> Pixels | None:
        return np.asarray(open_image(self.files[column], mode)) if column in self.files else None


@dataclass(frozen=True)
class Regenerated:
    """One case made again: its pixels by column, and whether their PNG bytes equal the stored ones."""

    case: Case
    pixels: Mapping[str, Pixels]
    identical: bool


class Run:
    """A run folder opened for reading."""

    def __init__(self, root: str | Path) -> None:
        """Open the run folder ``root``; raises StoreError where it holds none."""
        self.store = RunStore(Path(root))
        if not self.store.recipe.exists():
            raise StoreError(f"{root} is no run folder: it has no recipe.toml")

    def __repr__(self) -> str:
        return f"Run({str(self.store.root)!r})"

    @property
    def path(self) -> Path:
        """The run folder."""
        return self.store.root

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe as resolved when the run began."""
        return Recipe.load(self.store.recipe)

    @property
    def manifest(self) -> dict[str, Any]:
        """Configurations, checkpoint hashes, data and versions; empty before the chain has begun.

        Raises:
            StoreError: the file is damaged.
        """
        if not self.store.manifest.exists():
            return {}
        manifest = read_json(self.store.manifest)
        if not _has(manifest, MANIFEST_KEYS) or not all(_has(stage, STAGE_KEYS) for stage in manifest["stages"]):
            raise StoreError(f"{self.store.manifest} is damaged: it lacks entries that every manifest has")
        return manifest

    def cases(self, *, kept: bool | None = None) -> Iterator[Case]:
        """Yield committed cases in order, one shard in memory at a time.

        Args:
            kept: True for accepted cases only, False for rejected ones, None for all.
        """
        for shard in self.store.committed():
            for row in read_ledger(shard):
                case = Case.from_row(row, shard)
                if kept is None or case.kept is kept:
                    yield case

    def case(self, case_id: str) -> Case:
        """Return one case by its id; raises StoreError where the run has none such."""
        for case in self.cases():
            if case.id == case_id:
                return case
        raise StoreError(f"run {self.path} has no case {case_id!r}; ids look like case-00000000")

    def summary(self) -> dict[str, Any]:
        """Return counts of committed, kept and rejected cases, rejections by reason, and metrics of the jobs."""
        total, kept, by_reason, labels = 0, 0, Counter(), Counter()
        for case in self.cases():
            total += 1
            kept += case.kept
            if case.kept:
                labels[case.label or "none"] += 1
            else:
                by_reason[f"{case.verdict['by']}: {case.verdict['score']}"] += 1
        synthesis = self.recipe.synthesis
        return {
            "output": str(self.path),
            "expected": synthesis.count if synthesis else 0,
            "cases": total,
            "kept": kept,
            "rejected": dict(by_reason.most_common()),
            "labels": dict(labels),
            "jobs": self.metrics(),
        }

    def metrics(self) -> dict[str, dict[str, float | None]]:
        """Return the metrics of every finished training job by its name; None for one that is not finite."""
        files = {job.name: self.store.jobs / job.name / "metrics.json" for job in self.recipe.jobs}
        return {name: read_json(file) for name, file in files.items() if file.exists()}

    def likeness(self) -> list[dict[str, Any]] | None:
        """Return what the recipe's metrics found, one row a metric; None before they were measured.

        A row holds ``metric`` as in the recipe, and ``synthetic`` and ``yardstick``: each the fields of a
        :class:`~lesionforge.core.metrics.Measurement`, or the ``reason`` of a refusal. Both compare with the real
        training split, the accepted cases and the real validation split. The yardstick is None for metrics of paired
        images, which two splits do not share, and for data without a validation split.

        Raises:
            StoreError: the file is damaged.
        """
        if not self.store.metrics.exists():
            return None
        rows = read_json(self.store.metrics)
        if not isinstance(rows, list) or not all(_has(row, LIKENESS_KEYS) for row in rows):
            raise StoreError(f"{self.store.metrics} is damaged; delete it and --resume the run")
        return rows

    def dataset(self, *, kept: bool = True) -> Dataset:
        """Return the run's cases as a dataset: images, masks, labels and prompts of accepted (or rejected) cases."""
        records = tuple(
            Record(
                image_id=case.id,
                image=case.files["image"],
                mask=case.files.get("mask"),
                label=case.label,
                caption=case.prompt,
                metadata={"seed": str(case.seed)},
            )
            for case in self.cases(kept=kept)
            if "image" in case.files
        )
        return Dataset(name=f"{self.recipe.name} synthetic", records=records, phantom=self.is_phantom())

    def is_phantom(self) -> bool:
        """True where the images are procedural phantoms or come from networks trained on phantoms."""
        manifest = self.manifest
        facts = [manifest.get("data") or {}, *manifest.get("stages", ())]
        return any(fact.get("phantom") or fact.get("plugin") == "phantom" for fact in facts)

    def verify(self) -> Verification:
        """Check all that is committed: recipe, fits and checkpoints by the manifest, every case by its ledger.

        Raises:
            StoreError: the manifest or a ledger cannot be read at all.
        """
        from .verification import verify_run

        return verify_run(self)

    def regenerate(self, case_id: str, *, registry: Registry | None = None) -> Regenerated:
        """Make one case again from its seed, the recipe and the fitted stages, and compare it with what is stored.

        On the same machine, versions and thread count the bytes are identical.
        """
        from .shards import regenerate_case

        return regenerate_case(self, self.case(case_id), registry=registry)


def _has(table: Any, keys: set[str]) -> bool:
    return isinstance(table, dict) and keys <= table.keys()


def _written(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4g}"


def _within(shard: Path, name: str) -> Path:
    path = shard / name
    if not path.resolve().is_relative_to(shard.resolve()):
        raise StoreError(f"ledger of shard {shard} names a file outside it: {name!r}")
    return path


def open_run(path: str | Path) -> Run:
    """Return the run in folder ``path``; raises StoreError where there is none."""
    return Run(path)
