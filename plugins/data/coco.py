"""Writes COCO instance annotations with exact, uncompressed run-length masks.

Format: https://cocodataset.org/#format-data (counts run down the columns and begin with background).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ...core.dataset import Dataset, Pixels, Record
from ...core.decoding import decode_mask, image_size
from .exporting import for_each, write_image, write_readme, writing

UNLABELLED = "lesion"


def run_lengths(mask: Pixels) -> list[int]:
    """Return COCO's uncompressed counts of an (H, W) mask of 0 and 1: lengths of alternating runs, background first."""
    flat = np.concatenate([[0], mask.T.ravel()])
    changes = np.flatnonzero(np.diff(flat))
    return np.diff(np.concatenate([[0], changes, [mask.size]])).tolist()


def export_coco(dataset: Dataset, output: Path) -> None:
    """Write images/ and annotations/instances_SPLIT.json; records without a split go to instances_all.json."""
    needs_common = any(record.label is None for record in dataset.records)
    names = [*dataset.classes, *([UNLABELLED] if needs_common and UNLABELLED not in dataset.classes else [])]
    categories = {name: number for number, name in enumerate(names, 1)}
    with writing(output):
        (output / "images").mkdir()
        (output / "annotations").mkdir()
        for split in sorted({record.split or "all" for record in dataset.records}):
            part = dataset.where(lambda record, split=split: (record.split or "all") == split)
            _write_split(part, categories, output, output / "annotations" / f"instances_{split}.json")
        write_readme(dataset, output)


def _write_split(part: Dataset, categories: dict[str, int], output: Path, path: Path) -> None:
    """Stream annotations to ``path`` and let the short tables follow, so that memory holds no masks."""
    numbers = {record.image_id: number for number, record in enumerate(part.records, 1)}

    def write(record: Record) -> tuple[dict[str, Any], dict[str, Any] | None]:
        number = numbers[record.image_id]
        width, height = (part.size, part.size) if part.size else image_size(record.image)
        name = write_image(record, part.size, output / "images")
        image = {"id": number, "file_name": name, "width": width, "height": height, "image_id": record.image_id}
        return image, _annotation(record, part.size, number, categories[record.label or UNLABELLED])

    images = []
    with path.open("w", encoding="utf-8") as file:
        file.write('{"annotations": [')
        separator = "\n"
        for image, annotation in for_each(part.records, write):
            images.append(image)
            if annotation is not None:
                file.write(separator + json.dumps(annotation))
                separator = ",\n"
        tables = {
            "images": images,
            "categories": [{"id": number, "name": name} for name, number in categories.items()],
            "info": {"description": f"{part.name}{' (procedural phantoms)' if part.phantom else ''}, by lesionforge"},
        }
        file.write("],\n" + json.dumps(tables, ensure_ascii=False)[1:] + "\n")


def _annotation(record: Record, size: int | None, number: int, category: int) -> dict[str, Any] | None:
    if record.mask is None:
        return None
    mask = decode_mask(record.mask, record.image, size)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    left, top = int(columns[0]), int(rows[0])
    return {
        "id": number,
        "image_id": number,
        "category_id": category,
        "segmentation": {"size": list(mask.shape), "counts": run_lengths(mask)},
        "area": int(mask.sum()),
        "bbox": [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1],
        "iscrowd": 0,
    }
