"""Datasets of images with optional masks, labels and captions: lazy tables, decoded in parallel when asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from .batch import Batch
from .decoding import decode_image, decode_mask
from .durable import file_hash
from .errors import DataError
from .pixel_cache import PixelCache, Pixels
from .seeding import name_seed

if TYPE_CHECKING:
    from torch import Tensor

SPLITS = ("train", "val", "test")
DECODE_THREADS = 8

Masks = Literal["filled"] | bool | None
"""Which masks a batch has, see :meth:`Dataset.fetch`."""


@dataclass(frozen=True)
class Record:
    """One case of a dataset, not yet decoded.

    Attributes:
        image_id: unique within the dataset.
        image: file, or (H, W, 3) uint8 pixels already in memory.
        mask: file, or (H, W) uint8 pixels of 0 and 1; None where there is none.
        label: class name, or None where unknown.
        caption: text, or None.
        group: lesion or patient that the image shows; a split never separates a group.
        split: ``train``, ``val``, ``test`` or None where the source assigns none.
        metadata: any further columns of the source's table.
    """

    image_id: str
    image: Path | Pixels
    mask: Path | Pixels | None = None
    label: str | None = None
    caption: str | None = None
    group: str = ""
    split: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def lesion(self) -> str:
        """The group's name; an image without one is a lesion of its own."""
        return self.group or self.image_id


@dataclass(frozen=True)
class Dataset:
    """A table of records, of which images and masks are decoded and resized on demand.

    Attributes:
        name: what to call it in tables and reports.
        records: the cases, in the source's order.
        size: edge in pixels to which images (Lanczos) and masks (nearest) are resized, or None to keep them.
            Images that are not square are stretched.
        phantom: True where the images are procedural phantoms; shown wherever the data appear.
    """

    name: str
    records: tuple[Record, ...]
    size: int | None = None
    phantom: bool = False
    _cache: PixelCache = field(default_factory=PixelCache, repr=False, compare=False)

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for record in self.records:
            if record.image_id in seen:
                raise DataError(f"dataset {self.name}: image id {record.image_id!r} appears twice; ids must be unique")
            seen.add(record.image_id)

    def __len__(self) -> int:
        return len(self.records)

    @property
    def ids(self) -> tuple[str, ...]:
        """The image ids, in order."""
        return tuple(record.image_id for record in self.records)

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names that occur, sorted."""
        return tuple(sorted({record.label for record in self.records if record.label is not None}))

    def where(self, keep: Callable[[Record], bool]) -> Dataset:
        """Return the records for which ``keep`` is true."""
        return replace(self, records=tuple(record for record in self.records if keep(record)))

    def take(self, rows: Sequence[int]) -> Dataset:
        """Return the records at ``rows``."""
        return replace(self, records=tuple(self.records[row] for row in rows))

    def split(self, name: str) -> Dataset:
        """Return the records of the split ``name``.

        Raises:
            DataError: the dataset has no such split.
        """
        part = self.where(lambda record: record.split == name)
        if not len(part):
            have = sorted({record.split for record in self.records if record.split})
            raise DataError(f"dataset {self.name} has no split {name!r}; it has {', '.join(have) or 'none'}")
        return part

    def has_splits(self) -> bool:
        """True where at least one record is assigned to a split."""
        return any(record.split for record in self.records)

    def resized(self, size: int | None) -> Dataset:
        """Return the same records to be delivered at ``size`` pixels."""
        return replace(self, size=size)

    def with_masks(self) -> Dataset:
        """Return the records that have a mask.

        Raises:
            DataError: none has.
        """
        part = self.where(lambda record: record.mask is not None)
        if not len(part):
            raise DataError(f"dataset {self.name} has no masks, which are needed here")
        return part

    def joined(self, other: Dataset, *, name: str | None = None) -> Dataset:
        """Return both datasets' records as one; ids that clash get the other dataset's name in front."""
        taken = set(self.ids)
        renamed = tuple(
            replace(record, image_id=f"{other.name}/{record.image_id}") if record.image_id in taken else record
            for record in other.records
        )
        in_memory = replace(self, name=name or f"{self.name}+{other.name}", records=self.records + renamed)
        return replace(in_memory, phantom=self.phantom or other.phantom, _cache=PixelCache())

    def image(self, row: int) -> Pixels:
        """Return one image as (H, W, 3) uint8."""
        record = self.records[row]
        return self._cache.get((record.image_id, "image", self.size), lambda: decode_image(record.image, self.size))

    def mask(self, row: int) -> Pixels:
        """Return one mask as (H, W) uint8 of 0 and 1.

        Raises:
            DataError: the record has no mask, or its mask has another size than its image.
        """
        record = self.records[row]
        if record.mask is None:
            raise DataError(f"dataset {self.name}: image {record.image_id!r} has no mask, which is needed here")
        mask = record.mask
        return self._cache.get((record.image_id, "mask", self.size), lambda: decode_mask(mask, record.image, self.size))

    def images_array(self, rows: Sequence[int]) -> Pixels:
        """Return (N, H, W, 3) uint8 images of ``rows``, decoded in parallel."""
        return self._stacked(self.image, rows)

    def masks_array(self, rows: Sequence[int], *, filled: bool = False) -> Pixels:
        """Return (N, H, W) uint8 masks of ``rows``, decoded in parallel; ``filled``: zeros where there is none."""

        def or_zeros(row: int) -> Pixels:
            return np.zeros(self.image(row).shape[:2], np.uint8) if self.records[row].mask is None else self.mask(row)

        return self._stacked(or_zeros if filled else self.mask, rows)

    def fingerprint(self) -> list[str]:
        """Return one line a record: image id, lesion, split, hash of the image and of the mask."""
        with ThreadPoolExecutor(DECODE_THREADS) as pool:
            hashes = pool.map(lambda record: (content_hash(record.image), content_hash(record.mask)), self.records)
            return [
                json.dumps([record.image_id, record.lesion, record.split, image, mask], ensure_ascii=False)
                for record, (image, mask) in zip(self.records, hashes, strict=True)
            ]

    def _stacked(self, decode: Callable[[int], Pixels], rows: Sequence[int]) -> Pixels:
        with ThreadPoolExecutor(min(DECODE_THREADS, max(len(rows), 1))) as pool:
            pixels = list(pool.map(decode, rows))
        if len({item.shape for item in pixels}) > 1:
            raise DataError(f"dataset {self.name} has images of several sizes; give a size to resize them to")
        if not pixels:
            raise DataError(f"dataset {self.name}: no cases to decode")
        return np.stack(pixels)

    def fetch(self, rows: Sequence[int], *, masks: Masks = None) -> Batch:
        """Return ``rows`` as a :class:`Batch` on the CPU, images (N, 3, H, W) fp32 in [0, 1].

        Args:
            masks: True demands masks, False leaves them out, None takes them where every row has one, and ``filled``
                gives a row that has none an empty one, so that no case depends on its neighbours.
        """
        chosen = [self.records[row] for row in rows]
        wants_masks = all(record.mask is not None for record in chosen) if masks is None else masks
        labels = tuple(record.label for record in chosen)
        captions = tuple(record.caption for record in chosen)
        return Batch(
            ids=tuple(record.image_id for record in chosen),
            seeds=tuple(name_seed(record.image_id) for record in chosen),
            images=image_tensor(self.images_array(rows)),
            masks=mask_tensor(self.masks_array(rows, filled=masks == "filled")) if wants_masks else None,
            labels=labels if any(labels) else None,
            prompts=captions if any(captions) else None,
        )

    def batches(self, batch_size: int, *, masks: Masks = None) -> Iterator[Batch]:
        """Yield all cases in order as batches, the next one decoded while the caller works."""
        starts = range(0, len(self), batch_size)
        rows = [range(start, min(start + batch_size, len(self))) for start in starts]
        with ThreadPoolExecutor(1) as ahead:
            pending = [ahead.submit(self.fetch, chosen, masks=masks) for chosen in rows[:1]]
            for following in [*rows[1:], None][: len(rows)]:
                ready = pending.pop().result()
                if following is not None:
                    pending.append(ahead.submit(self.fetch, following, masks=masks))
                yield ready


def content_hash(content: Path | Pixels | None) -> str | None:
    """Return the SHA-256 of a file's bytes or of pixels in memory, None for nothing.

    Raises:
        DataError: the file cannot be read.
    """
    if content is None:
        return None
    if not isinstance(content, Path):
        return hashlib.sha256(np.ascontiguousarray(content).tobytes()).hexdigest()
    try:
        return file_hash(content)
    except OSError as error:
        raise DataError(f"file {content} cannot be read: {error.strerror}") from error


def image_tensor(images: Pixels) -> Tensor:
    """Turn (N, H, W, 3) uint8 into (N, 3, H, W) fp32 in [0, 1]."""
    import torch

    return torch.from_numpy(images).permute(0, 3, 1, 2).to(torch.float32).div_(255).contiguous()


def mask_tensor(masks: Pixels) -> Tensor:
    """Turn (N, H, W) uint8 of 0 and 1 into (N, 1, H, W) fp32."""
    import torch

    return torch.from_numpy(masks).unsqueeze(1).to(torch.float32)
