from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesionforge.core.dataset import SPLITS, Dataset, Record
from lesionforge.core.errors import DataError
from lesionforge.core.splitting import grouped_split

PIXELS = np.zeros((1, 1, 3), np.uint8)
LESIONS = st.lists(st.sampled_from(["", *"abcdefgh"]), min_size=1, max_size=60)
FRACTIONS = st.tuples(*[st.integers(0, 10)] * 3).filter(any).map(lambda parts: [part / sum(parts) for part in parts])


def dataset_of(lesions: list[str]) -> Dataset:
    return Dataset("d", tuple(Record(f"{n:03d}", PIXELS, group=lesion) for n, lesion in enumerate(lesions)))


def splits_by_id(dataset: Dataset) -> dict[str, str | None]:
    return {record.image_id: record.split for record in dataset.records}


@given(LESIONS, FRACTIONS, st.integers(0, 2**64 - 1))
def test_lesions_stay_together_and_fractions_are_nearly_met(lesions, fractions, seed):
    wanted = dict(zip(SPLITS, fractions, strict=True))
    divided = grouped_split(dataset_of(lesions), wanted, seed=seed)
    sizes: dict[str, int] = {}
    splits: dict[str, set[str | None]] = {}
    for record in divided.records:
        sizes[record.lesion] = sizes.get(record.lesion, 0) + 1
        splits.setdefault(record.lesion, set()).add(record.split)
    assert all(len(found) == 1 for found in splits.values())
    for name, fraction in wanted.items():
        count = sum(record.split == name for record in divided.records)
        assert abs(count - fraction * len(lesions)) <= max(sizes.values()) + 1e-6
        assert fraction or not count


@given(LESIONS, st.integers(0, 2**64 - 1), st.randoms(use_true_random=False))
def test_the_order_of_records_does_not_matter(lesions, seed, rng: random.Random):
    fractions = {"train": 0.7, "val": 0.1, "test": 0.2}
    dataset = dataset_of(lesions)
    order = list(range(len(dataset)))
    rng.shuffle(order)
    forward = grouped_split(dataset, fractions, seed=seed)
    shuffled = grouped_split(dataset.take(order), fractions, seed=seed)
    assert splits_by_id(forward) == splits_by_id(shuffled)


def test_single_images_meet_fractions_exactly():
    divided = grouped_split(dataset_of([""] * 100), {"train": 0.7, "val": 0.1, "test": 0.2}, seed=3)
    assert [len(divided.split(name)) for name in SPLITS] == [70, 10, 20]


@pytest.mark.parametrize("fractions", [{"train": 0.5, "test": 0.4}, {"train": 1.5, "test": -0.5}])
def test_impossible_fractions_are_refused(fractions):
    with pytest.raises(DataError, match="add up to 1"):
        grouped_split(dataset_of(["", ""]), fractions)
