"""From what a layout offers (files, labels, splits by image id) to a dataset, the same way for every source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ...core.dataset import SPLITS, Dataset, Record
from ...core.errors import DataError
from ...core.splitting import grouped_split
from .layout import PHANTOM_MARK
from .options import DEFAULT_FRACTIONS, DataOptions
from .tables import read_captions, read_table, split_name

SPLIT_FILE = "splits.csv"
CAPTION_FILE = "captions.json"


@dataclass
class Parts:
    """What a layout offers, by image id. Only images are needed; ids without an image are dropped."""

    images: dict[str, Path]
    masks: dict[str, Path] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    captions: dict[str, str] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, Mapping[str, str]] = field(default_factory=dict)


def assemble(name: str, root: Path, parts: Parts, options: DataOptions) -> Dataset:
    """Join ``parts`` with the split and caption files beside the data into a dataset sorted by image id.

    Raises:
        DataError: a file is malformed or speaks of other images only.
    """
    _add_split_file(root, parts, options)
    _add_captions(root, parts, options)
    records = (
        Record(
            image_id=image_id,
            image=parts.images[image_id],
            mask=parts.masks.get(image_id),
            label=parts.labels.get(image_id),
            caption=parts.captions.get(image_id),
            group=parts.groups.get(image_id, ""),
            split=parts.splits.get(image_id),
            metadata=parts.metadata.get(image_id, {}),
        )
        for image_id in sorted(parts.images)
    )
    phantom = (root / PHANTOM_MARK).is_file()
    return _with_splits(Dataset(name, tuple(records), phantom=phantom), options)


def require_match(what: Path, found: Mapping[str, object], parts: Parts) -> None:
    """Raise a DataError where none of the ids ``found`` in ``what`` is an image's id."""
    if found and not any(image_id in parts.images for image_id in found):
        have, want = next(iter(found)), next(iter(parts.images))
        raise DataError(f"{what} fits no image: its ids are like {have!r}, the images' like {want!r}")


def _beside(root: Path, name: str, given: str | None) -> Path | None:
    """Return the file that the user named, or the one of that name beside the data, or None."""
    if given is not None:
        return Path(given).expanduser()
    path = root / name
    return path if path.is_file() else None


def _add_split_file(root: Path, parts: Parts, options: DataOptions) -> None:
    path = _beside(root, SPLIT_FILE, options.split_file)
    if path is None:
        return
    rows = read_table(path, required=["split"])
    require_match(path, rows, parts)
    for image_id, row in rows.items():
        cells = dict(row)
        split = split_name(cells.pop("split"), where=f"{path}, image {image_id!r}")
        group, diagnosis = cells.pop("same_lesion_group", ""), cells.pop("diagnosis", "")
        if split:
            parts.splits[image_id] = split
        if group:
            parts.groups[image_id] = group
        if diagnosis:
            parts.labels.setdefault(image_id, diagnosis)
        parts.metadata[image_id] = {**parts.metadata.get(image_id, {}), **cells}


def _add_captions(root: Path, parts: Parts, options: DataOptions) -> None:
    path = _beside(root, CAPTION_FILE, options.captions)
    if path is not None:
        captions = read_captions(path)
        require_match(path, captions, parts)
        parts.captions |= captions


def _with_splits(dataset: Dataset, options: DataOptions) -> Dataset:
    if options.fractions is None and dataset.has_splits():
        return dataset
    fractions: dict[str, float] = dict(zip(SPLITS, options.fractions or DEFAULT_FRACTIONS, strict=True))
    return grouped_split(dataset, fractions, seed=options.split_seed)
