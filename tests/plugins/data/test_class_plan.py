"""Classes by plan: exact counts by a case's number, and what the real data lack by its seed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch

import lesionforge as lf
from lesionforge.core.context import Context
from lesionforge.core.dataset import Dataset
from lesionforge.core.errors import ConfigError, DataError, PluginError
from lesionforge.plugins.data.class_plan import ClassBalance, ClassCounts, interleaved
from lesionforge.testing import assert_contract, disc_dataset


def labelled(counts: dict[str, int]) -> Dataset:
    names = [label for label, count in counts.items() for _ in range(count)]
    records = disc_dataset(len(names)).records
    return Dataset("labelled", tuple(replace(r, label=name) for r, name in zip(records, names, strict=True)))


def stage_of(kind, *arguments):
    stage = kind(*arguments)
    stage.setup(Context(torch.device("cpu"), "fp32", "plan", 0))
    return stage


def counting(counts: dict[str, int]) -> ClassCounts:
    return stage_of(ClassCounts, ClassCounts.Config(counts=counts))


def balancing(data: Dataset) -> ClassBalance:
    stage = stage_of(ClassBalance)
    stage.load_fit(stage.fit(data))
    return stage


def test_contracts_hold():
    assert_contract("class-balance", data=labelled({"nevus": 6, "melanoma": 2}))
    assert_contract("class-counts(counts={nevus = 2, melanoma = 1})")


def test_counts_are_met_exactly_however_the_run_is_cut():
    stage = counting({"nevus": 5, "melanoma": 15})
    whole = stage.generate(lf.Batch.blank(40)).labels
    assert Counter(whole) == {"nevus": 10, "melanoma": 30} and whole[:20] == whole[20:]
    assert Counter(whole[:8]) == {"nevus": 2, "melanoma": 6}, "they are evenly mixed"
    assert stage.generate(lf.Batch.blank(7, first=9)).labels == whole[9:16]


def test_interleaving_keeps_counts():
    assert Counter(interleaved({"a": 3, "b": 1})) == {"a": 3, "b": 1}


def test_balance_draws_what_is_lacking():
    stage = balancing(labelled({"nevus": 20, "melanoma": 10, "keratosis": 15}))
    drawn = Counter(stage.generate(lf.Batch.blank(3000)).labels)
    assert drawn["nevus"] == 0 and drawn["melanoma"] / 3000 == pytest.approx(2 / 3, abs=0.03)
    even = balancing(labelled({"nevus": 4, "melanoma": 4}))
    assert Counter(even.generate(lf.Batch.blank(1000)).labels)["nevus"] == pytest.approx(500, abs=60)


def test_what_cannot_be_planned_is_refused():
    batch = lf.Batch(ids=("one",), seeds=(1,))
    with pytest.raises(PluginError, match="case 'one' has no number"):
        counting({"nevus": 1}).generate(batch)
    with pytest.raises(DataError, match="has no labels, which stage plan balances"):
        bare = Dataset("bare", tuple(replace(record, label=None) for record in disc_dataset(2).records))
        balancing(bare)
    with pytest.raises(ConfigError, match="counts"):
        lf.Chain.parse("class-counts(counts={nevus = 0})").configs()
