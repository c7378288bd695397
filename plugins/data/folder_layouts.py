"""Reads the plain folder layout and finished lesionforge runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...core.dataset import Dataset, Record
from ...core.errors import DataError
from ...core.store import RunStore, read_ledger
from .assembling import Parts, assemble, require_match
from .layout import contained, data_folder, image_files
from .options import DataOptions
from .tables import read_table, split_name

LABEL_COLUMNS = ("label", "diagnosis", "dx")
GROUP_COLUMNS = ("group", "lesion_id", "patient_id", "same_lesion_group")


def load_folder(location: str | None, options: DataOptions) -> Dataset:
    """Return the dataset of images/, masks/, labels.csv, captions.json and splits.csv in ``location``.

    Raises:
        DataError: no images, or masks, labels or captions that fit none of them.
    """
    root = data_folder("folder", location)
    if not (root / "images").is_dir():
        raise DataError(f"folder: {root} has no images/; expected images/ and optionally masks/ with equal stems")
    parts = Parts(image_files(root / "images"))
    if not parts.images:
        raise DataError(f"folder: {root / 'images'} holds no image files (JPEG, PNG, BMP, TIFF or WebP)")
    if (root / "masks").is_dir():
        parts.masks = image_files(root / "masks")
        require_match(root / "masks", parts.masks, parts)
    if (root / "labels.csv").is_file():
        _add_labels(root / "labels.csv", parts)
    return assemble(root.resolve().name, root, parts, options)


def _add_labels(path: Path, parts: Parts) -> None:
    rows = read_table(path)
    require_match(path, rows, parts)
    for image_id, row in rows.items():
        cells = dict(row)
        label = _first(cells, LABEL_COLUMNS)
        group = _first(cells, GROUP_COLUMNS)
        split = split_name(cells.pop("split", ""), where=f"{path}, image {image_id!r}")
        for column, value in ((parts.labels, label), (parts.groups, group), (parts.splits, split)):
            if value:
                column[image_id] = value
        parts.metadata[image_id] = cells


def _first(cells: dict[str, str], names: tuple[str, ...]) -> str:
    """Take out the first of the columns ``names`` that is there and return its cell."""
    return next((cells.pop(name) for name in names if name in cells), "")


def load_run(location: str | None) -> Dataset:
    """Return the kept cases of a run folder; one made from phantoms, or trained on them, is marked as phantom.

    Raises:
        DataError: no run is there, a ledger row is malformed or names a file outside its shard, or no case was kept.
        StoreError: a ledger cannot be read.
    """
    root = data_folder("run", location)
    store = RunStore(root)
    shards = store.committed()
    if not shards:
        raise DataError(f"run: {root} holds no finished shards (shards/00000000/ledger.jsonl); is it a run folder?")
    rows = [(shard, row) for shard in shards for row in read_ledger(shard)]
    records = [_record(shard, row) for shard, row in rows if _is_kept(shard, row)]
    if not records:
        raise DataError(f"run: none of the {len(rows)} cases in {root} was kept")
    return Dataset(root.resolve().name, tuple(records), phantom=_shows_phantoms(store.manifest))


def _is_kept(shard: Path, row: Any) -> bool:
    try:
        return bool(row["verdict"]["kept"]) and "image" in row["files"]
    except (KeyError, TypeError):
        raise DataError(f"ledger of shard {shard}: a row lacks verdict.kept or files") from None


def _record(shard: Path, row: Mapping[str, Any]) -> Record:
    where = f"ledger of shard {shard}, case {row.get('id')!r}"
    files = row["files"]
    if not isinstance(row.get("id"), str) or not all(isinstance(name, str) for name in files.values()):
        raise DataError(f"{where}: id and file names must be text")
    mask = files.get("mask")
    return Record(
        image_id=row["id"],
        image=contained(shard, files["image"], root=shard, where=where),
        mask=None if mask is None else contained(shard, mask, root=shard, where=where),
        label=row.get("label"),
        caption=row.get("prompt"),
        metadata={"seed": str(row.get("seed", ""))},
    )


def _shows_phantoms(manifest: Path) -> bool:
    if not manifest.is_file():
        return False
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
        stages, data = content.get("stages") or [], content.get("data") or {}
        return bool(data.get("phantom")) or any(stage.get("plugin") == "phantom" for stage in stages)
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"manifest {manifest} cannot be read: {error}") from None
