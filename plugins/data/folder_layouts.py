"""Reads the plain folder layout and finished lesionforge runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ...core.dataset import Dataset
from ...core.errors import DataError
from ...core.run import open_run
from .assembling import Parts, assemble, require_match
from .layout import data_folder, image_files
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
        DataError: no case was kept.
        StoreError: no run is there, or a ledger row is malformed or names a file outside its shard.
    """
    root = data_folder("run", location)
    dataset = open_run(root).dataset()
    if not len(dataset):
        raise DataError(f"run: no case in {root} has an image and was kept")
    return replace(dataset, name=root.resolve().name)
