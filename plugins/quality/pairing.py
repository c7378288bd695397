"""Pairs of images from two datasets: the same case in both, or drawn at random."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from ...core.errors import DataError
from ...core.seeding import name_seed

if TYPE_CHECKING:
    from torch import Tensor

    from ...core.context import Context
    from ...core.dataset import Dataset

PAIRS_AT_ONCE = 8

Pairs = list[tuple[int, int]]
PairScore = Callable[["Tensor", "Tensor"], "Tensor"]


def pairs_by_id(first: Dataset, second: Dataset) -> Pairs:
    """Return the rows that share an image id.

    Raises:
        DataError: there are none.
    """
    rows = {image_id: row for row, image_id in enumerate(second.ids)}
    return _some([(row, rows[name]) for row, name in enumerate(first.ids) if name in rows], first, second, "image ids")


def pairs_by_mask(first: Dataset, second: Dataset) -> Pairs:
    """Return for each row of ``first`` the first row of ``second`` whose mask is the same, pixel by pixel.

    Raises:
        DataError: no masks are the same, or one dataset has none.
    """
    rows: dict[bytes, int] = {}
    for row in _rows_with_mask(second):
        rows.setdefault(_mask_hash(second, row), row)
    found = [(row, rows.get(_mask_hash(first, row))) for row in _rows_with_mask(first)]
    pairs = [(row, other) for row, other in found if other is not None]
    return _some(pairs, first, second, "masks (at the size that both are compared at)")


def random_pairs(first: Sequence[str], second: Sequence[str] | None, count: int, seed: int) -> Pairs:
    """Draw ``count`` pairs of rows with replacement.

    Args:
        first: lesion of each image of the first set.
        second: of the second set, or None for pairs of different lesions within the first.

    Raises:
        DataError: the first set alone has only one lesion.
    """
    rng = np.random.default_rng(name_seed("pairs", str(seed)))
    if second is not None:
        drawn = zip(rng.integers(0, len(first), count), rng.integers(0, len(second), count), strict=True)
        return [(int(a), int(b)) for a, b in drawn]
    if len(set(first)) < 2:
        raise DataError("pairs within a set need images of at least two lesions")
    pairs: Pairs = []
    while len(pairs) < count:
        drawn = rng.integers(0, len(first), (count, 2)).tolist()
        pairs += [(a, b) for a, b in drawn if first[a] != first[b]]
    return pairs[:count]


@torch.no_grad()
def scored(first: Dataset, second: Dataset, pairs: Pairs, score: PairScore, context: Context) -> Tensor:
    """Return (P,) float64 of ``score`` for (B, 3, H, W) images in [0, 1] of all pairs, on the CPU.

    Raises:
        DataError: the images of a pair have different sizes.
    """
    found = []
    for start in range(0, len(pairs), PAIRS_AT_ONCE):
        rows = list(zip(*pairs[start : start + PAIRS_AT_ONCE], strict=True))
        a, b = (data.fetch(chosen, masks=False).images for data, chosen in zip((first, second), rows, strict=True))
        assert a is not None and b is not None
        if a.shape[2:] != b.shape[2:]:
            sizes = " and ".join(f"{images.shape[3]}x{images.shape[2]}" for images in (a, b))
            raise DataError(f"paired images have {sizes} pixels; give one size to resize both to")
        found.append(score(a.to(context.device), b.to(context.device)).double().cpu())
        context.progress(min(start + PAIRS_AT_ONCE, len(pairs)), len(pairs), {})
    return torch.cat(found)


def _rows_with_mask(dataset: Dataset) -> list[int]:
    dataset.with_masks()
    return [row for row, record in enumerate(dataset.records) if record.mask is not None]


def _mask_hash(dataset: Dataset, row: int) -> bytes:
    mask = dataset.mask(row)
    return hashlib.sha256(repr(mask.shape).encode() + np.ascontiguousarray(mask).tobytes()).digest()


def _some(pairs: Pairs, first: Dataset, second: Dataset, what: str) -> Pairs:
    if not pairs:
        raise DataError(f"{first.name} and {second.name} have no {what} in common, so there are no pairs to compare")
    return pairs
