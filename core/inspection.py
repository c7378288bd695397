"""What is in a dataset, and what is wrong with it: every file decoded once, in parallel, none kept in memory."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .dataset import DECODE_THREADS, Dataset, Record
from .decoding import decode_image, open_image
from .errors import DataError

UNASSIGNED = "unassigned"
UNLABELLED = "unlabelled"
SHOWN_DUPLICATES = 5
QUANTILES = {"min": 0.0, "p5": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95, "max": 1.0}


@dataclass(frozen=True)
class Problem:
    """Something wrong with one image, mask or lesion.

    Attributes:
        kind: ``unreadable-image``, ``unreadable-mask``, ``size-mismatch``, ``empty-mask``, ``full-mask``,
            ``non-binary-mask``, ``duplicate-image``, ``duplicate-across-splits`` or ``lesion-across-splits``.
        image_id: the image it concerns, or the first of them.
        message: one line for people.
    """

    kind: str
    image_id: str
    message: str


@dataclass(frozen=True)
class MaskStatistics:
    """Statistics over all masks that could be read.

    Attributes:
        area: mean and quantiles of the lesion's area as a fraction of the image.
        border_touching: fraction of masks that touch the image's border.
    """

    area: Mapping[str, float]
    border_touching: float


@dataclass(frozen=True)
class Inspection:
    """Counts, statistics and problems of a dataset.

    Attributes:
        name: the dataset's name.
        phantom: True where the images are procedural phantoms.
        cases: number of images.
        splits: images in each split; ``unassigned`` are those in none.
        labels: label -> split -> images; ``unlabelled`` are those without.
        captions: images with a caption.
        lesions: number of groups (lesions or patients), an image without one counting as its own.
        repeated_lesions: groups of more than one image.
        sizes: ``width x height`` in pixels -> images, the most frequent first.
        masks: images with a mask.
        missing_masks: images without a mask.
        missing_labels: images without a label.
        mask_statistics: None where no mask can be read.
        problems: everything found wrong, in the order of the records.
    """

    name: str
    phantom: bool
    cases: int
    splits: Mapping[str, int]
    labels: Mapping[str, Mapping[str, int]]
    captions: int
    lesions: int
    repeated_lesions: int
    sizes: Mapping[str, int]
    masks: int
    missing_masks: int
    missing_labels: int
    mask_statistics: MaskStatistics | None
    problems: tuple[Problem, ...]

    @property
    def problem_counts(self) -> dict[str, int]:
        """Number of problems of each kind."""
        return dict(Counter(problem.kind for problem in self.problems))

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as values that JSON can hold."""
        return {**dataclasses.asdict(self), "problem_counts": self.problem_counts}


@dataclass(frozen=True)
class _Look:
    """What decoding one record has shown."""

    size: tuple[int, int] | None
    digest: bytes | None
    area: float | None
    touches_border: bool
    problems: tuple[Problem, ...]


def inspect(dataset: Dataset, *, progress: Callable[[int, int], None] | None = None) -> Inspection:
    """Decode every image and mask of ``dataset`` at its own size and report what is there.

    Bad files become problems of the report instead of errors.

    Args:
        progress: called with (done, total) after each case.
    """
    looks: list[_Look] = []
    with ThreadPoolExecutor(DECODE_THREADS) as pool:
        for look in pool.map(_look, dataset.records):
            looks.append(look)
            if progress is not None:
                progress(len(looks), len(dataset))
    records = dataset.records
    groups = Counter(record.lesion for record in records)
    sizes = Counter(f"{look.size[0]}x{look.size[1]}" for look in looks if look.size)
    masks = sum(record.mask is not None for record in records)
    own_problems = [problem for look in looks for problem in look.problems]
    return Inspection(
        name=dataset.name,
        phantom=dataset.phantom,
        cases=len(dataset),
        splits=_split_counts(records),
        labels=_label_counts(records),
        captions=sum(record.caption is not None for record in records),
        lesions=len(groups),
        repeated_lesions=sum(count > 1 for count in groups.values()),
        sizes=dict(sizes.most_common()),
        masks=masks,
        missing_masks=len(dataset) - masks,
        missing_labels=sum(record.label is None for record in records),
        mask_statistics=_mask_statistics(looks),
        problems=(*own_problems, *_duplicates(records, looks), *_crossing_lesions(records)),
    )


def _look(record: Record) -> _Look:
    problems: list[Problem] = []
    size = digest = area = None
    touches_border = False
    try:
        pixels = decode_image(record.image, None)
        size = pixels.shape[1], pixels.shape[0]
        digest = hashlib.blake2b(repr(size).encode() + pixels.tobytes(), digest_size=16).digest()
    except DataError as error:
        problems.append(Problem("unreadable-image", record.image_id, str(error)))
    if record.mask is not None:
        try:
            inside = _checked_mask(record, size, problems)
            area = float(inside.mean())
            touches_border = any(bool(edge.any()) for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))
        except DataError as error:
            problems.append(Problem("unreadable-mask", record.image_id, str(error)))
    return _Look(size, digest, area, touches_border, tuple(problems))


def _checked_mask(record: Record, size: tuple[int, int] | None, problems: list[Problem]) -> NDArray[np.bool_]:
    """Return the mask as (H, W) bool and note what is wrong with it."""
    mask = record.mask
    values = np.asarray(open_image(mask, "L")) if isinstance(mask, Path) else np.asarray(mask) * 255
    inside = values >= 128

    def note(kind: str, message: str) -> None:
        problems.append(Problem(kind, record.image_id, f"mask of image {record.image_id!r} {message}"))

    if size is not None and (values.shape[1], values.shape[0]) != size:
        note("size-mismatch", f"has {values.shape[1]}x{values.shape[0]} pixels, the image {size[0]}x{size[1]}")
    between = float(np.count_nonzero((values > 0) & (values < 255)) / max(values.size, 1))
    if between > 0:
        note("non-binary-mask", f"has {between:.2%} of its pixels between 0 and 255; from 128 on counts as lesion")
    if not inside.any():
        note("empty-mask", f"is empty; its highest value is {int(values.max(initial=0))}, a lesion must be 255")
    elif inside.all():
        note("full-mask", "covers the whole image")
    return inside


def _split_counts(records: Iterable[Record]) -> dict[str, int]:
    counts = Counter(record.split or UNASSIGNED for record in records)
    order = ("train", "val", "test", UNASSIGNED)
    return {name: counts[name] for name in (*order, *sorted(set(counts) - set(order))) if counts[name]}


def _label_counts(records: Iterable[Record]) -> dict[str, dict[str, int]]:
    groups: defaultdict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[UNLABELLED if record.label is None else record.label].append(record)
    order = sorted(groups, key=lambda name: (name == UNLABELLED, name))
    return {label: _split_counts(groups[label]) for label in order}


def _mask_statistics(looks: Iterable[_Look]) -> MaskStatistics | None:
    readable = [look for look in looks if look.area is not None]
    if not readable:
        return None
    areas = np.array([look.area for look in readable], dtype=np.float64)
    quantiles = np.quantile(areas, list(QUANTILES.values())).tolist()
    return MaskStatistics(
        area={"mean": float(areas.mean()), **dict(zip(QUANTILES, quantiles, strict=True))},
        border_touching=sum(look.touches_border for look in readable) / len(readable),
    )


def _duplicates(records: Sequence[Record], looks: Sequence[_Look]) -> list[Problem]:
    """Report images whose decoded pixels are equal."""
    alike: defaultdict[bytes, list[Record]] = defaultdict(list)
    for record, look in zip(records, looks, strict=True):
        if look.digest is not None:
            alike[look.digest].append(record)
    problems = []
    for same in (group for group in alike.values() if len(group) > 1):
        crossing = len({record.split for record in same}) > 1
        kind = "duplicate-across-splits" if crossing else "duplicate-image"
        shown = ", ".join(f"{record.image_id} ({record.split or UNASSIGNED})" for record in same[:SHOWN_DUPLICATES])
        shown += ", ..." if len(same) > SHOWN_DUPLICATES else ""
        problems.append(Problem(kind, same[0].image_id, f"{len(same)} images have equal pixels: {shown}"))
    return problems


def _crossing_lesions(records: Iterable[Record]) -> list[Problem]:
    """Report groups of which images lie in more than one split."""
    groups: defaultdict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[record.lesion].append(record)
    problems = []
    for lesion, members in groups.items():
        splits = sorted({record.split or UNASSIGNED for record in members})
        if len(splits) > 1:
            message = f"lesion {lesion!r} has {len(members)} images in the splits {' and '.join(splits)}"
            problems.append(Problem("lesion-across-splits", members[0].image_id, message))
    return problems
