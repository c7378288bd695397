"""Pictures of cases, each a small data URI of its own, so that captions stay text and rows fit any screen."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..dataset import Dataset
from ..decoding import Pixels, open_image
from ..pictures import heat, thumbnail
from ..run import Case
from .census import Reason
from .statistics import spread
from .wording import number

TILE = 200
KEPT_SHOWN = 24
SOFT_SHOWN = 8
REAL_SHOWN = 16
REASONS_SHOWN = 12
JPEG_QUALITY = 90
WIDEST_SHEET = 1024
LARGEST_SHEET = 400_000


@dataclass(frozen=True)
class Picture:
    """One picture with its caption.

    Attributes:
        source: data URI.
        alt: what is seen, for those who do not see it.
        name: first line of the caption.
        lines: further lines.
    """

    source: str
    alt: str
    name: str
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class RejectedRow:
    """Examples of one reason for rejection."""

    reason: Reason
    pictures: list[Picture]


def kept_pictures(accepted: Sequence[Case], noun: str) -> list[Picture]:
    """Return an even choice of accepted cases with their outlines; ``noun`` says what they are (phantom, image)."""
    chosen = [accepted[position] for position in spread(len(accepted), KEPT_SHOWN)]
    shown = ((case, _case_tile(case)) for case in chosen)
    return [
        Picture(tile, f"accepted {noun} {case.id}{_of_class(case.label)}", case.id, _texts(case.label, case.prompt))
        for case, tile in shown
        if tile
    ]


def soft_mask_pictures(accepted: Sequence[Case], noun: str) -> list[Picture]:
    """Return an even choice of accepted cases with soft masks, each image followed by its soft mask in colours."""
    having = [case for case in accepted if "soft_mask" in case.files and "image" in case.files]
    pictures = []
    for case in (having[position] for position in spread(len(having), SOFT_SHOWN)):
        image, soft = _case_tile(case), case.soft_mask
        if image and soft is not None:
            pictures.append(Picture(image, f"accepted {noun} {case.id}", case.id, _texts(case.label)))
            tile = _tile(heat(soft / np.float32(255)), None)
            pictures.append(Picture(tile, f"soft mask of {case.id}", "soft mask"))
    return pictures


def rejected_rows(reasons: Sequence[Reason], noun: str) -> list[RejectedRow]:
    """Return the first few rejected cases of the most frequent reasons."""
    rows = (RejectedRow(reason, _rejected_pictures(reason, noun)) for reason in reasons[:REASONS_SHOWN])
    return [row for row in rows if row.pictures]


def real_pictures(real: Dataset, noun: str) -> list[Picture]:
    """Return an even choice of real cases with the outlines of their masks."""
    pictures = []
    for row in spread(len(real), REAL_SHOWN):
        record = real.records[row]
        tile = _tile(real.image(row), None if record.mask is None else real.mask(row))
        alt = f"{noun} {record.image_id}{_of_class(record.label)}"
        pictures.append(Picture(tile, alt, record.image_id, _texts(record.label, None)))
    return pictures


def sheet_source(path: Path) -> str:
    """Return a trainer's sample sheet as a data URI: the PNG itself, or a smaller JPEG where it is large.

    Raises:
        DataError: the file is no image.
    """
    picture = open_image(path, "RGB")
    content = path.read_bytes()
    if len(content) <= LARGEST_SHEET and picture.width <= WIDEST_SHEET and content.startswith(b"\x89PNG"):
        return _data_uri(content, "image/png")
    picture.thumbnail((WIDEST_SHEET, WIDEST_SHEET), Image.Resampling.LANCZOS)
    return jpeg_source(picture)


def _rejected_pictures(reason: Reason, noun: str) -> list[Picture]:
    pictures = []
    for case in reason.examples:
        value, tile = case.verdict["value"], _case_tile(case)
        line = f"{reason.score} {'not finite' if value is None else number(value)}"
        alt = f"{noun} {case.id}, rejected by {reason.plugin}: {reason.words}"
        if tile:
            pictures.append(Picture(tile, alt, case.id, (line, *_texts(case.label, None))))
    return pictures


def _case_tile(case: Case) -> str | None:
    """Return the case's image under its outline, or its mask where the chain makes no images."""
    image, mask = case.image, case.mask
    if image is not None:
        return _tile(image, mask)
    return None if mask is None else _tile(np.repeat(mask[..., None] * np.uint8(255), 3, axis=2), None)


def _tile(image: Pixels, mask: Pixels | None) -> str:
    return jpeg_source(thumbnail(image, mask, TILE))


def jpeg_source(picture: Image.Image) -> str:
    """Return a picture as the data URI of a JPEG."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0, optimize=True)
    return _data_uri(buffer.getvalue(), "image/jpeg")


def _data_uri(content: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def _of_class(label: str | None) -> str:
    return f", {label}" if label else ""


def _texts(*texts: str | None) -> tuple[str, ...]:
    return tuple(text for text in texts if text)
