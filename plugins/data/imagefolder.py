"""Reads the Hugging Face imagefolder layout.

Source: https://huggingface.co/docs/datasets/image_dataset (metadata files, class folders, split folders).
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ...core.dataset import Dataset
from ...core.errors import DataError
from .assembling import Parts, assemble
from .layout import IMAGE_SUFFIXES, checked_name, contained, data_folder
from .options import DataOptions
from .tables import SPLIT_NAMES, parse_json, read_rows, read_text, split_name

METADATA_FILES = ("metadata.jsonl", "metadata.csv")
READ_KEYS = ("file_name", "mask_file_name", "image_id", "label", "text", "caption", "group", "lesion_id", "split")

Row = Mapping[str, Any]


def load_imagefolder(location: str | None, options: DataOptions) -> Dataset:
    """Return the dataset described by metadata files below ``location``, else by its class and split folders.

    Raises:
        DataError: no images, a malformed row, or a file name that leads out of the folder.
    """
    root = data_folder("imagefolder", location).resolve()
    files, tables = _walk(root)
    if tables:
        rows = [(where, folder, row) for path in tables for where, folder, row in _rows(path)]
        parts = _from_metadata(root, rows)
    else:
        parts = _from_folders(root, files)
    if not parts.images:
        raise DataError(f"imagefolder: {root} holds no images (JPEG, PNG, BMP, TIFF or WebP)")
    return assemble(root.name, root, parts, options)


def _walk(root: Path) -> tuple[list[Path], list[Path]]:
    """Return image files and metadata files below ``root`` in order; links to folders are not followed."""

    def refuse(error: OSError) -> None:
        raise DataError(f"cannot read folder {error.filename}: {error.strerror}") from None

    images, tables = [], []
    for current, folders, names in os.walk(root, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        tables += [Path(current, name) for name in METADATA_FILES if name in names][:1]
        visible = (name for name in sorted(names) if not name.startswith("."))
        images += [Path(current, checked_name(name)) for name in visible if Path(name).suffix.lower() in IMAGE_SUFFIXES]
    return images, tables


def _rows(path: Path) -> Iterator[tuple[str, Path, Row]]:
    """Yield where it stands, the folder it is relative to, and the row, of a metadata file."""
    if path.suffix == ".csv":
        pairs: Iterable[tuple[int, Any]] = read_rows(path, required=["file_name"])
    else:
        lines = [(number, line) for number, line in enumerate(read_text(path).split("\n"), 1) if line.strip()]
        pairs = ((number, parse_json(line, where=f"{path} line {number}")) for number, line in lines)
    for number, row in pairs:
        where = f"{path} line {number}"
        name = row.get("file_name") if isinstance(row, Mapping) else None
        if not isinstance(name, str) or not name:
            raise DataError(f'{where}: expected one row with a file_name, as in {{"file_name": "0001.png"}}')
        yield where, path.parent, {key: value for key, value in row.items() if value not in (None, "")}


def _from_metadata(root: Path, rows: list[tuple[str, Path, Row]]) -> Parts:
    files = [contained(folder, row["file_name"], root=root, where=where) for where, folder, row in rows]
    ids = _ids(root, files)
    parts = Parts({})
    for (where, folder, row), file, default_id in zip(rows, files, ids, strict=True):
        image_id = _text(row, "image_id", where=where) or default_id
        if image_id in parts.images:
            raise DataError(f"{where}: image id {image_id!r} appears twice")
        parts.images[image_id] = file
        if mask := _text(row, "mask_file_name", where=where):
            parts.masks[image_id] = contained(folder, mask, root=root, where=where)
        split = split_name(_text(row, "split", where=where), where=where) or _folder_split(root, file)
        columns = (
            (parts.labels, _text(row, "label", where=where)),
            (parts.captions, _text(row, "text", "caption", where=where)),
            (parts.groups, _text(row, "group", "lesion_id", where=where)),
            (parts.splits, split),
        )
        for column, value in columns:
            if value:
                column[image_id] = value
        rest = {key: value for key, value in row.items() if key not in READ_KEYS}
        parts.metadata[image_id] = {key: v if isinstance(v, str) else json.dumps(v) for key, v in rest.items()}
    return parts


def _text(row: Row, *keys: str, where: str) -> str:
    """Return the first of ``keys`` that the row has as text; numbers are written out."""
    value = next((row[key] for key in keys if key in row), "")
    if isinstance(value, (str, int, float)):
        return str(value)
    raise DataError(f"{where}: {' or '.join(keys)} must be text, not {value!r:.60}")


def _from_folders(root: Path, files: list[Path]) -> Parts:
    parts = Parts({})
    for file, image_id in zip(files, _ids(root, files), strict=True):
        parts.images[image_id] = file
        split, folders = _folder_split(root, file), file.relative_to(root).parts[:-1]
        if split:
            parts.splits[image_id] = split
        if folders[1 if split else 0 :]:
            parts.labels[image_id] = folders[-1]
    if {"images", "masks"} <= set(parts.labels.values()):
        raise DataError(f"imagefolder: {root} has images/ and masks/, which would become classes; use folder:{root}")
    return parts


def _ids(root: Path, files: list[Path]) -> list[str]:
    """Return the files' stems, or their paths below ``root`` without suffix if any stem repeats."""
    repeated = Counter(file.stem for file in files).most_common(1)
    if not repeated or repeated[0][1] == 1:
        return [file.stem for file in files]
    inside = [file.relative_to(root) for file in files]
    counts = Counter(path.with_suffix("") for path in inside)
    return [(path if counts[path.with_suffix("")] > 1 else path.with_suffix("")).as_posix() for path in inside]


def _folder_split(root: Path, file: Path) -> str | None:
    """Return the split that the first folder below ``root`` is called after."""
    folders = file.relative_to(root).parts[:-1]
    return SPLIT_NAMES.get(folders[0].lower()) if folders else None
