"""Captions as JSONL, one line an image, for people to read and correct."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from ...core.errors import DataError


def caption_lines(captions: Iterable[tuple[str, str]]) -> str:
    """Return one JSON line a pair of image id and caption."""
    rows = ({"image_id": image_id, "caption": caption} for image_id, caption in captions)
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read_captions(path: Path) -> dict[str, str]:
    """Return the captions in a JSONL file by image id; further keys of a line are ignored.

    Raises:
        DataError: the file cannot be read, a line is no caption, or an image has two.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"cannot read captions {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DataError(f"captions {path} are not UTF-8 text; save them as UTF-8") from None
    captions: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        image_id, caption = _entry(line, where=f"captions {path} line {number}")
        if image_id in captions:
            raise DataError(f"captions {path} line {number}: image {image_id!r} has a caption already")
        captions[image_id] = caption
    return captions


def _entry(line: str, *, where: str) -> tuple[str, str]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    found = (row.get("image_id"), row.get("caption")) if isinstance(row, Mapping) else (None, None)
    if not all(isinstance(value, str) and value.strip() for value in found):
        raise DataError(f'{where}: expected {{"image_id": "...", "caption": "..."}}, not {line.strip()!r:.60}')
    return found  # type: ignore[return-value]
