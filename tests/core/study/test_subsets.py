"""Parts of a dataset are nested, keep classes and lesions together, and follow from their seed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesionforge.core.errors import DataError
from lesionforge.core.splitting import grouped_folds
from lesionforge.core.study.subsets import nested_order, real_part, synthetic_part, with_fold
from lesionforge.testing import disc_dataset


def dataset(count, *, per_lesion=1, splits=("train",)):
    discs = disc_dataset(count, 8)
    records = (
        replace(
            record,
            label="melanoma" if row // per_lesion % 4 == 0 else "nevus",
            group=f"lesion-{row // per_lesion}",
            split=splits[row // per_lesion % len(splits)],
        )
        for row, record in enumerate(discs.records)
    )
    return replace(discs, records=tuple(records))


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 40), st.integers(1, 3), st.integers(0, 5))
def test_smaller_parts_lie_in_larger_ones(count, per_lesion, seed):
    data = dataset(40, per_lesion=per_lesion)
    part = real_part(data, count, seed)
    assert len(part) == count
    assert set(part.ids) <= set(real_part(data, min(40, count + 7), seed).ids)
    assert list(part.ids) == [image for image in data.ids if image in set(part.ids)]
    whole = Counter(record.lesion for record in data.records)
    cut = [lesion for lesion, n in Counter(r.lesion for r in part.records).items() if n < whole[lesion]]
    assert len(cut) <= 1


def test_parts_hold_the_classes_in_their_shares():
    part = real_part(dataset(200), 40, 3)
    assert Counter(record.label for record in part.records) == {"melanoma": 10, "nevus": 30}


def test_a_seed_decides_and_the_order_of_records_does_not():
    data = dataset(60)
    assert real_part(data, 20, 1).ids != real_part(data, 20, 2).ids
    turned = replace(data, records=data.records[::-1])
    assert set(real_part(turned, 20, 1).ids) == set(real_part(data, 20, 1).ids)
    assert set(synthetic_part(data, 20, 1).ids) != set(real_part(data, 20, 1).ids)
    assert sorted(nested_order(data, "any")) == list(range(60))


def test_all_is_all_and_more_is_refused():
    data = dataset(10)
    assert real_part(data, "all", 0).ids == data.ids
    with pytest.raises(DataError, match="has 10 cases for training, but an arm takes 11"):
        real_part(data, 11, 0)


@pytest.mark.parametrize("per_lesion", [1, 3])
def test_folds_part_lesions_and_spread_classes(per_lesion):
    data = dataset(60, per_lesion=per_lesion)
    folds = grouped_folds(data, 5, seed=1)
    assert sorted(row for fold in folds for row in fold) == list(range(60))
    lesions = [{data.records[row].lesion for row in fold} for fold in folds]
    assert sum(map(len, lesions)) == len(set().union(*lesions))
    assert {len(fold) for fold in folds} == {12}
    assert {sum(data.records[row].label == "melanoma" for row in fold) for fold in folds} == {3}
    with pytest.raises(DataError, match="too few for 61 folds"):
        grouped_folds(dataset(60), 61)


def test_each_fold_validates_once_and_the_test_split_stays():
    data = dataset(60, splits=("train", "train", "val", "test"))
    parted = [with_fold(data, fold, 3) for fold in range(3)]
    held = [image for part in parted for image in part.split("val").ids]
    assert sorted(held) == sorted((*data.split("train").ids, *data.split("val").ids))
    assert all(part.split("test").ids == data.split("test").ids for part in parted)
    assert with_fold(data, None, None) is data
