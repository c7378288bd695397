"""Masks that a trained network found on test images, kept beside its other results so that reports can draw them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from .decoding import Pixels
from .durable import write_bytes
from .errors import StoreError

MASKS_FILE = "masks.npz"


def write_masks(folder: Path, ids: Sequence[str], masks: Pixels) -> None:
    """Write (N, H, W) masks of 0 and 1, one bit a pixel, to ``masks.npz`` in the results' ``folder``."""
    packed = np.packbits(masks.reshape(len(masks), -1).astype(bool), axis=1)
    content = io.BytesIO()
    np.savez_compressed(content, image_id=np.array(ids), size=np.array(masks.shape[1:]), bits=packed)
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
            return dict(zip(kept["image_id"].tolist(), bits.reshape(-1, height, width), strict=True))
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise StoreError(f"{file} is damaged: {error}; delete the folder to train again") from error
