"""Masks that a trained network found on test images, kept beside its other results so that reports can draw them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .decoding import Pixels
from .durable import write_bytes
from .errors import StoreError

MASKS_FILE = "masks.npz"


class FoundMasks:
    """Collects masks of one size, one bit a pixel, and writes them to ``masks.npz`` in the results' folder."""

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._bits: list[NDArray[np.uint8]] = []
        self._size = (0, 0)

    def add(self, ids: Sequence[str], masks: Pixels | NDArray[np.bool_]) -> None:
        """Take (N, H, W) masks, above 0 inside the lesion, of the images ``ids``."""
        self._ids += ids
        self._bits.append(np.packbits(masks.reshape(len(masks), -1) > 0, axis=1))
        self._size = masks.shape[1], masks.shape[2]

    def write(self, folder: Path) -> None:
        """Write the file; equal masks give equal bytes."""
        content = io.BytesIO()
        bits = np.concatenate(self._bits) if self._bits else np.empty((0, 0), np.uint8)
        np.savez_compressed(content, image_id=np.array(self._ids, str), size=np.array(self._size), bits=bits)
        write_bytes(folder / MASKS_FILE, content.getvalue())


def read_masks(folder: Path) -> Mapping[str, Pixels]:
    """Return (H, W) masks of 0 and 1 by image id; none where the trainer left none.

    Raises:
        StoreError: the file is damaged.
    """
    file = folder / MASKS_FILE
    if not file.exists():
        return {}
    try:
        with np.load(file, allow_pickle=False) as kept:
            height, width = (int(edge) for edge in kept["size"])
            bits = np.unpackbits(kept["bits"], axis=1, count=height * width)
            return dict(zip(kept["image_id"].tolist(), bits.reshape(len(bits), height, width), strict=True))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise StoreError(f"{file} is damaged: {error}; delete its folder to train again") from error
