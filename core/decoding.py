"""From image files to pixels, with one clear line for every file that is not what it should be."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from .errors import DataError, first_line

Pixels = NDArray[np.uint8]
UNDECODABLE = (
    *(OSError, EOFError, SyntaxError, ValueError, IndexError, KeyError, struct.error),
    *(UnidentifiedImageError, Image.DecompressionBombError),
)
"""What Pillow's decoders raise on damaged files."""


def open_image(path: Path, mode: str) -> Image.Image:
    """Return the decoded image at ``path`` in Pillow's ``mode``.

    Raises:
        DataError: the file is missing, unreadable, truncated or no image.
    """
    try:
        with Image.open(path) as image:
            return image.convert(mode)
    except FileNotFoundError:
        raise DataError(f"image file {path} does not exist") from None
    except UNDECODABLE as error:
        raise DataError(f"image file {path} cannot be decoded: {first_line(error)}; replace or remove it") from error


def decode_image(image: Path | Pixels, size: int | None) -> Pixels:
    """Return (H, W, 3) uint8 pixels, resized to ``size`` with Lanczos."""
    picture = open_image(image, "RGB") if isinstance(image, Path) else Image.fromarray(image)
    if size is not None and picture.size != (size, size):
        picture = picture.resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(picture)


def decode_mask(mask: Path | Pixels, image: Path | Pixels, size: int | None) -> Pixels:
    """Return (H, W) uint8 pixels of 0 and 1 (a file's values of 128 and above), resized to ``size`` by nearest.

    Raises:
        DataError: the mask's size differs from its image's.
    """
    if isinstance(mask, Path):
        picture = Image.fromarray((np.asarray(open_image(mask, "L")) >= 128).astype(np.uint8))
    else:
        picture = Image.fromarray(mask)
    expected = image_size(image)
    if picture.size != expected:
        raise DataError(
            f"mask {mask if isinstance(mask, Path) else ''} has {picture.width}x{picture.height} pixels "
            f"but its image {expected[0]}x{expected[1]}"
        )
    if size is not None and picture.size != (size, size):
        picture = picture.resize((size, size), Image.Resampling.NEAREST)
    return np.asarray(picture)


def image_size(image: Path | Pixels) -> tuple[int, int]:
    """Return (width, height) without decoding the pixels."""
    if not isinstance(image, Path):
        return image.shape[1], image.shape[0]
    try:
        with Image.open(image) as picture:
            return picture.size
    except UNDECODABLE as error:
        raise DataError(f"image file {image} cannot be decoded: {first_line(error)}") from error
