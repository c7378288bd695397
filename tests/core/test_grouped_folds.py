from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lesionforge.core.dataset import Dataset, Record
from lesionforge.core.errors import DataError
from lesionforge.core.splitting import grouped_folds

PIXELS = np.zeros((1, 1, 3), np.uint8)
LABELS = ("nevus", "melanoma", None)
# (lesion, label) of each image: labels may differ within a lesion.
MIXED = st.lists(st.tuples(st.sampled_from(["", *"abcdefgh"]), st.sampled_from(LABELS)), min_size=3, max_size=60)
SEEDS = st.integers(0, 2**64 - 1)


def dataset_of(images) -> Dataset:
    records = (Record(f"{n:03d}", PIXELS, group=lesion, label=label) for n, (lesion, label) in enumerate(images))
    return Dataset("d", tuple(records))


def lesions(dataset: Dataset) -> set[str]:
    return {record.lesion for record in dataset.records}


def classes(dataset: Dataset, rows) -> Counter[str | None]:
    return Counter(dataset.records[row].label for row in rows)


@given(MIXED, st.integers(1, 5), SEEDS)
def test_every_image_is_in_one_part_and_no_lesion_is_cut(images, folds, seed):
    dataset = dataset_of(images)
    assume(len({record.lesion for record in dataset.records}) >= folds)
    parts = grouped_folds(dataset, folds, seed=seed)
    assert len(parts) == folds and all(parts)
    assert sorted(row for part in parts for row in part) == list(range(len(dataset)))
    lesions = [{dataset.records[row].lesion for row in part} for part in parts]
    assert sum(map(len, lesions)) == len(set().union(*lesions))


@given(
    st.lists(st.tuples(st.integers(1, 5), st.sampled_from(LABELS)), min_size=5, max_size=40), st.integers(2, 5), SEEDS
)
def test_classes_are_spread_evenly_where_lesions_are_of_one_class(groups, folds, seed):
    images = [(f"lesion {n}", label) for n, (size, label) in enumerate(groups) for _ in range(size)]
    dataset = dataset_of(images)
    found = [classes(dataset, part) for part in grouped_folds(dataset, folds, seed=seed)]
    for label in LABELS:
        largest = max((size for size, of in groups if of == label), default=0)
        assert max(part[label] for part in found) - min(part[label] for part in found) <= largest


@given(MIXED, SEEDS, st.randoms(use_true_random=False))
def test_the_order_of_records_does_not_matter(images, seed, rng: random.Random):
    dataset = dataset_of(images)
    assume(len({record.lesion for record in dataset.records}) >= 3)
    order = list(range(len(dataset)))
    rng.shuffle(order)
    forward, shuffled = (
        [{data.ids[row] for row in part} for part in grouped_folds(data, 3, seed=seed)]
        for data in (dataset, dataset.take(order))
    )
    assert forward == shuffled


def test_single_images_are_spread_exactly_and_the_seed_changes_who_meets_whom():
    dataset = dataset_of([("", "nevus")] * 70 + [("", "melanoma")] * 30)
    parts = grouped_folds(dataset, 5)
    assert all(classes(dataset, part) == {"nevus": 14, "melanoma": 6} for part in parts)
    assert parts != grouped_folds(dataset, 5, seed=1)


def test_lesions_of_mixed_labels_are_spread_too():
    images = [(f"lesion {n}", label) for n in range(20) for label in ("nevus", "nevus", "melanoma")]
    dataset = dataset_of(images)
    assert all(classes(dataset, part) == {"nevus": 8, "melanoma": 4} for part in grouped_folds(dataset, 5))


def test_more_parts_than_lesions_are_refused():
    with pytest.raises(DataError, match="has 4 lesions, too few for 5 folds"):
        grouped_folds(dataset_of([(lesion, "nevus") for lesion in "aabcd"]), 5)
