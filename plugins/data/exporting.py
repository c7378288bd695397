"""Writes datasets as folders; what all layouts share (file names, pixels, tables) is public for further exporters."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from PIL import Image

from ...core.dataset import DECODE_THREADS, Dataset, Record
from ...core.decoding import decode_image, decode_mask
from ...core.errors import StoreError
from .assembling import CAPTION_FILE, SPLIT_FILE
from .imagefolder import READ_KEYS
from .layout import PHANTOM_MARK

LONGEST_STEM = 180
UNSAFE = frozenset('/\\:*?"<>|%')
T = TypeVar("T")


def file_stem(image_id: str) -> str:
    """Return a file name for an image id, unique as the id is; what no file name may hold is percent-encoded."""
    stem = "".join(sign if sign.isprintable() and sign not in UNSAFE else _percent(sign) for sign in image_id)
    if stem[:1] in (".", " "):
        stem = _percent(stem[0]) + stem[1:]
    if len(stem.encode()) <= LONGEST_STEM:
        return stem
    digest = hashlib.blake2b(image_id.encode(), digest_size=8).hexdigest()
    return stem.encode()[: LONGEST_STEM - 17].decode(errors="ignore") + "-" + digest


def _percent(sign: str) -> str:
    return "".join(f"%{byte:02X}" for byte in sign.encode())


@contextmanager
def writing(output: Path) -> Iterator[None]:
    """Word errors of the file system as a StoreError."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"cannot write {output}: {error.strerror or error}") from error


def for_each(records: Sequence[Record], work: Callable[[Record], T]) -> Iterator[T]:
    """Yield ``work`` of each record in order, done by several threads; the first error ends it."""
    with ThreadPoolExecutor(DECODE_THREADS) as pool:
        yield from pool.map(work, records)


def write_image(record: Record, size: int | None, folder: Path) -> str:
    """Write a record's image into ``folder`` and return its file name.

    A file that needs no resizing is copied after it has been decoded once; everything else becomes PNG.
    """
    pixels = decode_image(record.image, size)
    stem = file_stem(record.image_id)
    if isinstance(record.image, Path) and size is None:
        name = stem + record.image.suffix.lower()
        shutil.copyfile(record.image, folder / name)
    else:
        name = f"{stem}.png"
        Image.fromarray(pixels).save(folder / name)
    return name


def write_mask(record: Record, size: int | None, folder: Path, *, ending: str = "") -> str | None:
    """Write a record's mask into ``folder`` as PNG of 0 and 255 and return its file name; None where it has no mask."""
    if record.mask is None:
        return None
    folder.mkdir(exist_ok=True)
    name = f"{file_stem(record.image_id)}{ending}.png"
    Image.fromarray(decode_mask(record.mask, record.image, size) * 255).save(folder / name)
    return name


def write_table(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> None:
    """Write rows as CSV; columns beyond ``columns`` follow in alphabetical order."""
    further = sorted({name for row in rows for name in row} - set(columns))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [*columns, *further], restval="")
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(text.getvalue(), encoding="utf-8", newline="")


def write_captions(dataset: Dataset, output: Path) -> None:
    """Write captions.json with the captions by file stem, if there are any."""
    captions = {file_stem(record.image_id): record.caption for record in dataset.records if record.caption}
    if captions:
        text = json.dumps(captions, ensure_ascii=False, indent=1)
        (output / CAPTION_FILE).write_text(text, encoding="utf-8")


def write_readme(dataset: Dataset, output: Path) -> None:
    """Say what the folder holds, and mark phantoms as phantoms, for people and for our own sources."""
    masks = sum(record.mask is not None for record in dataset.records)
    notice = "These images are procedural phantoms, not photographs of skin.\n" if dataset.phantom else ""
    text = f"Exported by lesionforge: {len(dataset)} images, {masks} with a mask. For research only.\n"
    (output / "README.md").write_text(f"# {dataset.name}\n\n{notice}{text}", encoding="utf-8")
    if notice:
        (output / PHANTOM_MARK).write_text(notice, encoding="utf-8")


def export_folder(dataset: Dataset, output: Path) -> None:
    """Write images/, masks/, labels.csv and captions.json."""
    columns = ("image_id", "label", "group", "split")

    def write(record: Record) -> dict[str, str]:
        write_image(record, dataset.size, output / "images")
        write_mask(record, dataset.size, output / "masks")
        return {**record.metadata, **_row(record, columns)}

    with writing(output):
        (output / "images").mkdir()
        rows = list(for_each(dataset.records, write))
        write_table(output / "labels.csv", columns, rows)
        write_captions(dataset, output)
        write_readme(dataset, output)


def _row(record: Record, columns: Sequence[str]) -> dict[str, str]:
    cells = (file_stem(record.image_id), record.label or "", record.group, record.split or "")
    return dict(zip(columns, cells, strict=True))


def export_imagefolder(dataset: Dataset, output: Path) -> None:
    """Write metadata.jsonl with images and masks beside it, in one folder a split if every record has one."""
    hub_names = {"train": "train", "val": "validation", "test": "test"}
    divided = all(record.split in hub_names for record in dataset.records)
    with writing(output):
        for split, folder_name in hub_names.items() if divided else [(None, "")]:
            part = dataset.where(lambda record, split=split: split is None or record.split == split)
            if len(part):
                _write_imagefolder(part, output / folder_name, with_split=not divided)
        write_readme(dataset, output)


def _write_imagefolder(part: Dataset, folder: Path, *, with_split: bool) -> None:
    def write(record: Record) -> str:
        mask = write_mask(record, part.size, folder / "masks")
        row = {
            "file_name": write_image(record, part.size, folder),
            "image_id": record.image_id,
            "mask_file_name": f"masks/{mask}" if mask else None,
            "label": record.label,
            "text": record.caption,
            "group": record.group or None,
            "split": record.split if with_split else None,
        }
        filled = {key: value for key, value in row.items() if value is not None}
        further = {key: value for key, value in record.metadata.items() if key not in READ_KEYS}
        return json.dumps({**filled, **further}, ensure_ascii=False)

    folder.mkdir(exist_ok=True)
    lines = list(for_each(part.records, write))
    (folder / "metadata.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def export_isic2018(dataset: Dataset, output: Path) -> None:
    """Write the folders of ISIC 2018 Task 1, splits.csv and captions.json."""
    names = {"train": "Training", "val": "Validation", "test": "Test"}
    columns = ("image_id", "diagnosis", "same_lesion_group", "split")

    def write(record: Record) -> dict[str, str]:
        split = names[record.split or "train"]
        write_image(record, dataset.size, output / f"ISIC2018_Task1-2_{split}_Input")
        truth = output / f"ISIC2018_Task1_{split}_GroundTruth"
        write_mask(record, dataset.size, truth, ending="_segmentation")
        return {**record.metadata, **_row(record, columns)}

    with writing(output):
        for split in sorted({names[record.split or "train"] for record in dataset.records}):
            (output / f"ISIC2018_Task1-2_{split}_Input").mkdir()
        write_table(output / SPLIT_FILE, columns, list(for_each(dataset.records, write)))
        write_captions(dataset, output)
        write_readme(dataset, output)
