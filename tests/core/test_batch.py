from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import lesionforge as lf
from lesionforge.core.batch import Rejection
from lesionforge.core.errors import PluginError
from lesionforge.core.seeding import case_seed


def test_blank_cases_have_the_seeds_of_their_indices():
    batch = lf.Batch.blank(3, seed=9, first=4)
    assert batch.ids == ("case-00000004", "case-00000005", "case-00000006")
    assert batch.seeds == tuple(case_seed(9, index) for index in (4, 5, 6))


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**40), st.integers(0, 2**40))
def test_case_seeds_are_64_bit_and_distinct(seed, one, other):
    assert 0 <= case_seed(seed, one) < 2**64
    assert (case_seed(seed, one) == case_seed(seed, other)) == (one == other)


def test_case_seeds_are_settled_for_ever():
    assert (case_seed(0, 0), case_seed(7, 12)) == (1041621211125469266, 10889898512087444529)


def test_the_first_rejection_stands():
    batch = lf.Batch.blank(2).with_columns(scores={"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([3.0, 4.0])})
    once = batch.rejected_where(torch.tensor([True, False]), plugin="p", score="a", threshold=0.5)
    twice = once.rejected_where(torch.tensor([True, True]), plugin="q", score="b", threshold=5.0)
    assert twice.rejections == (Rejection("p", "a", 1.0, 0.5), Rejection("q", "b", 4.0, 5.0))
    assert batch.kept == (True, True) and twice.kept == (False, False)
    assert str(twice.rejections[0]) == "p: a 1 (limit 0.5)"


def test_wrong_shapes_and_lengths_are_refused():
    blank = lf.Batch.blank(2)
    with pytest.raises(PluginError, match=r"images has shape \(2, 1, 4, 4\), not \(N, 3, H, W\)"):
        blank.with_columns(images=torch.zeros(2, 1, 4, 4))
    with pytest.raises(PluginError, match="masks has 3 rows where the batch has 2"):
        blank.with_columns(masks=torch.zeros(3, 1, 4, 4))
    with pytest.raises(PluginError, match="stage x needs images and masks"):
        blank.require("images", "masks", stage="x")


@given(st.permutations(range(5)))
def test_selecting_moves_every_column_alike(order):
    batch = lf.Batch.blank(5).with_columns(
        images=torch.arange(5.0).view(5, 1, 1, 1).expand(5, 3, 2, 2),
        labels=list("abcde"),
        scores={"s": torch.arange(5.0)},
        provenance=[{"n": n} for n in range(5)],
    )
    chosen = batch.select(order)
    assert chosen.images is not None and chosen.labels is not None
    assert chosen.images[:, 0, 0, 0].tolist() == chosen.scores["s"].tolist() == list(map(float, order))
    assert [p["n"] for p in chosen.provenance] == list(order) and chosen.labels == tuple("abcde"[n] for n in order)
