"""Which cases a training takes: nested parts of real and synthetic sets, and folds of train and val."""

from __future__ import annotations

from dataclasses import replace

from ..dataset import Dataset
from ..errors import DataError
from ..seeding import name_seed
from ..splitting import grouped_folds


def nested_order(dataset: Dataset, *purpose: str) -> list[int]:
    """Return all rows in an order whose beginnings are random parts of the dataset, with its shares of classes.

    Images of one lesion follow each other, so only the last lesion of a part can be cut. ``purpose``, with a seed in
    it, decides on the order of lesions.
    """
    lesions: dict[str, list[int]] = {}
    for row, record in enumerate(dataset.records):
        lesions.setdefault(record.lesion, []).append(row)
    drawn = sorted(lesions, key=lambda name: name_seed(*purpose, name))
    totals: dict[str | None, int] = {}
    before: list[tuple[float, int, str]] = []
    for place, lesion in enumerate(drawn):
        label = dataset.records[lesions[lesion][0]].label
        before.append((totals.get(label, 0) + len(lesions[lesion]) / 2, place, lesion))
        totals[label] = totals.get(label, 0) + len(lesions[lesion])

    def progress(entry: tuple[float, int, str]) -> tuple[float, int]:
        # Where in its class a lesion stands: so every beginning holds about the same share of each class.
        return entry[0] / totals[dataset.records[lesions[entry[2]][0]].label], entry[1]

    return [row for _, _, lesion in sorted(before, key=progress) for row in lesions[lesion]]


def real_part(dataset: Dataset, count: int | str, seed: int) -> Dataset:
    """Return the training images of ``seed``: all of them, or the first ``count`` of its nested order.

    Raises:
        DataError: there are fewer.
    """
    return _part(dataset, len(dataset) if count == "all" else int(count), "real part", str(seed))


def synthetic_part(dataset: Dataset, count: int, seed: int) -> Dataset:
    """Return the first ``count`` synthetic cases of ``seed``'s nested order, see :func:`real_part`."""
    return _part(dataset, count, "synthetic part", str(seed))


def _part(dataset: Dataset, count: int, *purpose: str) -> Dataset:
    if count > len(dataset):
        raise DataError(f"{dataset.name} has {len(dataset):,} cases for training, but an arm takes {count:,}")
    if count == len(dataset):
        return dataset
    return dataset.take(sorted(nested_order(dataset, *purpose)[:count]))


def with_fold(dataset: Dataset, fold: int | None, folds: int | None) -> Dataset:
    """Return the data with train and val parted anew: part ``fold`` of their ``folds`` parts validates.

    The same parts for every seed, so that seeds differ in training alone.
    """
    if fold is None or folds is None:
        return dataset
    pool = dataset.where(lambda record: record.split in ("train", "val"))
    held = {pool.ids[row] for row in grouped_folds(pool, folds)[fold]}

    def split(image_id: str, old: str | None) -> str | None:
        return old if old not in ("train", "val") else "val" if image_id in held else "train"

    records = (replace(record, split=split(record.image_id, record.split)) for record in dataset.records)
    return replace(dataset, records=tuple(records))
