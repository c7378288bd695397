"""Which cases go into which split or fold: never images of one lesion into two of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from .dataset import Dataset, Record
from .errors import DataError
from .seeding import name_seed


def grouped_split(dataset: Dataset, fractions: Mapping[str, float], *, seed: int = 0) -> Dataset:
    """Assign splits so that images of one lesion stay together and ``fractions`` are met as nearly as groups allow.

    Groups are ordered by a hash of ``seed`` and their name, so the assignment does not depend on the order of records.

    Raises:
        DataError: the fractions do not add up to 1.
    """
    if abs(sum(fractions.values()) - 1) > 1e-6 or min(fractions.values()) < 0:
        raise DataError(f"split fractions must be positive and add up to 1, not {dict(fractions)}")
    groups: dict[str, list[Record]] = {}
    for record in dataset.records:
        groups.setdefault(record.lesion, []).append(record)
    total = sum(map(len, groups.values()))
    assigned: dict[str, str] = {}
    done, bounds = 0, np.cumsum(list(fractions.values())) * total
    for lesion in sorted(groups, key=lambda name: name_seed(str(seed), name)):
        middle = done + len(groups[lesion]) / 2
        assigned[lesion] = list(fractions)[min(int(np.searchsorted(bounds, middle)), len(bounds) - 1)]
        done += len(groups[lesion])
    return replace(dataset, records=tuple(replace(record, split=assigned[record.lesion]) for record in dataset.records))


def grouped_folds(dataset: Dataset, folds: int, *, seed: int = 0) -> tuple[tuple[int, ...], ...]:
    """Return the rows of ``folds`` parts: images of one lesion in one part, classes spread evenly, sizes alike.

    Each lesion goes to the part that has least of its classes so far, and among such to the smallest: large lesions
    first, equal ones by a hash of ``seed`` and their name. So parts differ in a class by no more than its largest
    lesion where lesions are of one class, and records may stand in any order, which scikit-learn's
    StratifiedGroupKFold does not offer.

    Raises:
        DataError: there are fewer lesions than parts.
    """
    lesions: dict[str, list[int]] = {}
    for row, record in enumerate(dataset.records):
        lesions.setdefault(record.lesion, []).append(row)
    if folds > len(lesions):
        raise DataError(f"dataset {dataset.name} has {len(lesions)} lesions, too few for {folds} folds")
    totals = Counter(record.label for record in dataset.records)
    parts: list[list[int]] = [[] for _ in range(folds)]
    classes: list[Counter[str | None]] = [Counter() for _ in range(folds)]
    for lesion in sorted(lesions, key=lambda name: (-len(lesions[name]), name_seed("folds", str(seed), name))):
        found = Counter(dataset.records[row].label for row in lesions[lesion])

        def crowding(part: int, found: Counter[str | None] = found) -> tuple[float, int]:
            shares = (count * classes[part][label] / totals[label] ** 2 for label, count in found.items())
            return math.fsum(shares), len(parts[part])

        chosen = min(range(folds), key=crowding)
        parts[chosen] += lesions[lesion]
        classes[chosen] += found
    return tuple(tuple(sorted(part)) for part in parts)
