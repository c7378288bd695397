"""Contact sheets: many small pictures with the lesion's outline on one image, for people to look at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from .batch import Batch
from .dataset import DECODE_THREADS, Dataset, Record
from .decoding import Pixels, decode_image, decode_mask
from .errors import DataError
from .seeding import name_seed

PAPER = (255, 255, 255)
INK = (64, 66, 72)
FAINT_INK = (130, 133, 140)
OUTLINE = (92, 255, 222)
HALO = (10, 20, 24)
GAP = 8
MARGIN = 12
CORNER = 5
FONT_SIZE = 11
LINE_HEIGHT = 15
SUPERSAMPLING = 3


def contact_sheet(
    images: Batch | Pixels | Sequence[Pixels],
    masks: Sequence[Pixels | None] | Pixels | None = None,
    *,
    outlines: bool = True,
    columns: int | None = None,
    captions: Sequence[str] | None = None,
    title: str | None = None,
    tile: int = 160,
) -> Image.Image:
    """Draw pictures in rows on white, each fitted into a square tile without changing its proportions.

    Args:
        images: a :class:`Batch` with images (its masks are used, too), or (H, W, 3) uint8 arrays of any sizes.
        masks: (H, W) arrays, above 0 inside the lesion, of the images' sizes; None where there is none.
        outlines: whether to draw the masks' outlines.
        columns: pictures in a row, by default so many that the sheet is a little wider than high.
        captions: text under each picture; a line break begins a new line, what is too long is cut with an ellipsis.
        title: one line above all pictures.
        tile: edge of a tile in pixels.

    Raises:
        DataError: there are no pictures, or not as many masks or captions as pictures.
    """
    if isinstance(images, Batch):
        images, masks = _batch_arrays(images)
    count = len(images)
    shown_masks = masks if masks is not None and outlines else [None] * count
    lines = [caption.split("\n") for caption in captions] if captions is not None else [[]] * count
    if not count or len(shown_masks) != count or len(lines) != count:
        raise DataError(f"contact sheet of {count} pictures, {len(shown_masks)} masks and {len(lines)} captions")
    columns = min(columns or math.ceil(math.sqrt(count * 1.5)), count)
    text_height = LINE_HEIGHT * max(map(len, lines)) + (3 if captions is not None else 0)
    top = MARGIN + (LINE_HEIGHT + GAP if title else 0)
    step_x, step_y = tile + GAP, tile + text_height + GAP
    rows = math.ceil(count / columns)
    sheet = Image.new("RGB", (2 * MARGIN + columns * step_x - GAP, top + rows * step_y - GAP + MARGIN), PAPER)
    if title:
        write_line(sheet, title, (MARGIN, MARGIN - 2), sheet.width - 2 * MARGIN, INK, FONT_SIZE + 2)
    for number, (image, mask, caption) in enumerate(zip(images, shown_masks, lines, strict=True)):
        left, upper = MARGIN + number % columns * step_x, top + number // columns * step_y
        sheet.paste(thumbnail(image, mask, tile), (left, upper))
        for place, line in enumerate(caption):
            position = (left + 1, upper + tile + 3 + place * LINE_HEIGHT)
            write_line(sheet, line, position, tile - 2, FAINT_INK if place else INK, FONT_SIZE)
    return sheet


def dataset_sheet(dataset: Dataset, *, count: int = 24, columns: int = 8, tile: int = 160) -> Image.Image:
    """Draw up to ``count`` cases of a dataset, always the same ones, with image id, label and split below.

    Files that cannot be decoded are passed over; :func:`lesionforge.core.inspection.inspect` reports them.

    Raises:
        DataError: no case can be decoded.
    """
    order = sorted(dataset.records, key=lambda record: name_seed(record.image_id))
    with ThreadPoolExecutor(DECODE_THREADS) as pool:
        pairs = zip(order[:count], pool.map(_decoded, order[:count]), strict=True)
        shown = sorted(((record, pair) for record, pair in pairs if pair), key=lambda item: item[0].image_id)
    notice = ", procedural phantoms" if dataset.phantom else ""
    return contact_sheet(
        [image for _, (image, _) in shown],
        [mask for _, (_, mask) in shown],
        captions=[_caption(record) for record, _ in shown],
        title=f"{dataset.name}{notice}: {len(shown)} of {len(dataset):,} cases",
        columns=columns,
        tile=tile,
    )


def _decoded(record: Record) -> tuple[Pixels, Pixels | None] | None:
    try:
        mask = None if record.mask is None else decode_mask(record.mask, record.image, None)
        return decode_image(record.image, None), mask
    except DataError:
        return None


def _caption(record: Record) -> str:
    facts = [record.label or "no label", record.split, None if record.mask is not None else "no mask"]
    return f"{record.image_id}\n{' · '.join(fact for fact in facts if fact)}"


def _batch_arrays(batch: Batch) -> tuple[Pixels, Pixels | None]:
    batch.require("images", stage="contact sheet")
    images: Any = batch.images
    pixels = images.detach().clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    masks = None if batch.masks is None else (batch.masks[:, 0] >= 0.5).byte().cpu().numpy()
    return pixels, masks


@dataclass(frozen=True)
class Outline:
    """A mask, above 0 inside the lesion, and the colour of its outline."""

    mask: Pixels
    color: tuple[int, int, int] = OUTLINE


def thumbnail(image: Pixels, mask: Pixels | None, tile: int) -> Image.Image:
    """Return an image fitted into a white (tile, tile) square with round corners, its mask's outline drawn on it."""
    return outlined(image, [] if mask is None else [Outline(mask)], tile)


def outlined(image: Pixels, outlines: Sequence[Outline], tile: int) -> Image.Image:
    """Return an image as :func:`thumbnail` does, with several outlines, the last on top; masks may be of any size."""
    height, width = image.shape[:2]
    scale = tile / max(height, width)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    picture = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)
    for outline in outlines:
        picture = _with_outline(picture, outline)
    square = Image.new("RGB", (tile, tile), PAPER)
    corners = Image.new("L", (size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING), 0)
    edge = corners.width - 1, corners.height - 1
    ImageDraw.Draw(corners).rounded_rectangle((0, 0, *edge), radius=CORNER * SUPERSAMPLING, fill=255)
    offset = (tile - size[0]) // 2, (tile - size[1]) // 2
    square.paste(picture, offset, corners.resize(size, Image.Resampling.BOX))
    return square


def heat(values: NDArray[np.floating]) -> Pixels:
    """Return an (H, W) map in [0, 1] as (H, W, 3) uint8 colours, from dark to light."""
    from matplotlib import colormaps

    return (colormaps["magma"](np.clip(values, 0, 1))[..., :3] * 255).round().astype(np.uint8)


def _with_outline(picture: Image.Image, outline: Outline) -> Image.Image:
    """Draw a thin bright line with a dark halo, visible on every skin, along the mask's border."""
    paths = _outline_paths(outline.mask, picture.size)
    for color, width, strength in ((HALO, 3.2, 0.45), (outline.color, 1.4, 1.0)):
        large = Image.new("L", (picture.width * SUPERSAMPLING, picture.height * SUPERSAMPLING), 0)
        draw = ImageDraw.Draw(large)
        for path in paths:
            points = [(float(x), float(y)) for x, y in path * SUPERSAMPLING]
            draw.line(points, fill=round(255 * strength), width=round(width * SUPERSAMPLING), joint="curve")
        picture.paste(color, (0, 0), large.resize(picture.size, Image.Resampling.BOX))
    return picture


def _outline_paths(mask: Pixels, size: tuple[int, int]) -> list[NDArray[np.float64]]:
    """Return closed (M, 2) paths of x and y, in pixels of a picture of ``size``, kept a pixel inside its border."""
    from skimage.measure import find_contours

    padded = np.pad((mask > 0).astype(np.float64), 1)
    scale = np.array([size[0] / mask.shape[1], size[1] / mask.shape[0]])
    paths = [(contour[:, ::-1] - 0.5) * scale for contour in find_contours(padded, 0.5)]
    return [np.clip(path, 1, np.array(size) - 1) for path in paths]


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    import matplotlib

    # DejaVu Sans comes with matplotlib and has Latin, Greek and Cyrillic letters; Pillow's own font has Latin only.
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), size)


def write_line(
    sheet: Image.Image, text: str, place: tuple[int, int], width: int, color: tuple[int, int, int], size: int
) -> None:
    """Write ``text`` at ``place`` in letters of ``size``; what is wider than ``width`` is cut with an ellipsis."""
    font = _font(size)
    line = "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)
    while len(line) > 1 and font.getlength(line) > width:
        line = line.rstrip("…")[:-1].rstrip() + "…"
    ImageDraw.Draw(sheet).text(place, line, font=font, fill=color)
