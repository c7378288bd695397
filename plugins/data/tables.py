"""CSV and JSON files that come with image data, read strictly: what is malformed is said in one line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...core.errors import DataError
from .layout import bare_id

ID_COLUMNS = ("image_id", "image", "image_name", "file_name")
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


def read_text(path: Path) -> str:
    """Return the UTF-8 text of a file, a byte order mark removed.

    Raises:
        DataError: the file cannot be read or is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None


def read_rows(
    path: Path, *, required: Sequence[str] = (), header: Sequence[str] | None = None
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line number and cells by column name, blanks around them removed, of a CSV or tab-separated table.

    Args:
        required: columns that must be there.
        header: names of the columns in a file that has no header line.

    Raises:
        DataError: not a table, a required column missing or repeated, a row longer or shorter than the header.
    """
    text = read_text(path)
    delimiter = "\t" if "\t" in text.partition("\n")[0] else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names = None if header is None else list(header)
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if names is None:
                names = _checked_header(path, cells, required)
                continue
            if len(cells) != len(names):
                raise DataError(f"{path} line {reader.line_num}: {len(cells)} cells where {len(names)} columns are due")
            yield reader.line_num, {name: cell.strip() for name, cell in zip(names, cells, strict=True)}
    except csv.Error as error:
        raise DataError(f"{path} line {reader.line_num}: malformed CSV, {error}") from None
    if names is None:
        raise DataError(f"{path} is empty; expected a CSV table with a header line")


def _checked_header(path: Path, cells: Sequence[str], required: Sequence[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    repeated = sorted({name for name in names if names.count(name) > 1})
    missing = [name for name in required if name not in names]
    if repeated or missing:
        problem = f"repeats column {repeated[0]!r}" if repeated else f"lacks column {missing[0]!r}"
        raise DataError(f"{path}: header {problem}; it has {', '.join(map(repr, names))}")
    return names


def read_table(
    path: Path, *, required: Sequence[str] = (), header: Sequence[str] | None = None
) -> dict[str, dict[str, str]]:
    """Return the rows of :func:`read_rows` by image id; the id column itself is taken out.

    Raises:
        DataError: besides what :func:`read_rows` refuses, no id column, an id empty or there twice.
    """
    table: dict[str, dict[str, str]] = {}
    for line, row in read_rows(path, required=required, header=header):
        column = next((name for name in ID_COLUMNS if name in row), None)
        if column is None:
            known, found = " or ".join(ID_COLUMNS), ", ".join(map(repr, row))
            raise DataError(f"{path}: header has no column of image ids ({known}); it has {found}")
        image_id = bare_id(row.pop(column))
        if not image_id or image_id in table:
            raise DataError(f"{path} line {line}: image id {image_id!r} {'appears twice' if image_id else 'is empty'}")
        table[image_id] = row
    return table


def split_name(text: str, *, where: str) -> str | None:
    """Return ``train``, ``val`` or ``test`` for the usual spellings of it, None for nothing.

    Raises:
        DataError: another word.
    """
    if not text:
        return None
    if text.lower() not in SPLIT_NAMES:
        raise DataError(f"{where}: split {text!r} is not train, val or test")
    return SPLIT_NAMES[text.lower()]


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        DataError: unreadable or malformed.
    """
    return parse_json(read_text(path), where=str(path))


def parse_json(text: str, *, where: str) -> Any:
    """Return what JSON ``text`` says; a DataError names ``where``."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: malformed JSON, {error.msg} (line {error.lineno} column {error.colno})") from None
    except (RecursionError, ValueError) as error:
        raise DataError(f"{where}: malformed JSON, {error}") from None


def read_captions(path: Path) -> dict[str, str]:
    """Return captions by image id.

    Two shapes are read: ``{"ID": "text"}`` (or ``{"ID": {"caption": "text"}}``), and a list of
    ``{"image_id": "ID", "caption": "text"}``. An id may carry its file's suffix.

    Raises:
        DataError: another shape, an id twice.
    """
    content = read_json(path)
    if isinstance(content, Mapping):
        pairs = [(key, value.get("caption") if isinstance(value, Mapping) else value) for key, value in content.items()]
    elif isinstance(content, list) and all(isinstance(item, Mapping) for item in content):
        pairs = [(next((item[k] for k in ID_COLUMNS if k in item), None), item.get("caption")) for item in content]
    else:
        raise DataError(f'{path}: captions must be {{"ID": "text", ...}} or [{{"image_id": ..., "caption": ...}}, ...]')
    captions: dict[str, str] = {}
    for key, text in pairs:
        if not isinstance(key, str) or not isinstance(text, str):
            raise DataError(f"{path}: the caption of {key!r} is no text but {text!r:.60}")
        if captions.setdefault(bare_id(key), text) != text:
            raise DataError(f"{path}: two captions for image id {bare_id(key)!r}")
    return captions
