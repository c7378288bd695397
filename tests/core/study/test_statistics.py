"""Tests, effect sizes and Holm's correction against SciPy, statsmodels and cases that can be counted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lesionforge.core.study.statistics import holm, image_tests, mean_and_spread, seed_tests

multitest = pytest.importorskip("statsmodels.stats.multitest")


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_equals_statsmodels(p_values):
    assert holm(p_values) == pytest.approx(multitest.multipletests(p_values, method="holm")[1].tolist())


def test_what_has_no_p_value_does_not_count():
    assert holm([None, 0.01, 0.04, None]) == [None, 0.02, 0.04, None]
    assert holm([None]) == [None]


def test_tests_over_images_count_an_image_once_however_many_runs():
    rng = np.random.default_rng(0)
    lesions = rng.normal(0.02, 0.1, 60)
    differences = lesions + rng.normal(0, 0.05, (4, 60))
    means = differences.mean(axis=0)
    found = image_tests(differences)
    assert found.images == 60
    assert found.t_p == pytest.approx(stats.ttest_rel(means, np.zeros(60)).pvalue)
    assert found.wilcoxon_p == pytest.approx(stats.wilcoxon(means).pvalue)
    assert found.dz == pytest.approx(means.mean() / means.std(ddof=1))
    ranks = stats.rankdata(np.abs(means))
    assert found.rank_biserial == pytest.approx((ranks[means > 0].sum() - ranks[means < 0].sum()) / ranks.sum())


@pytest.mark.parametrize(("shift", "balance"), [(1.0, 1.0), (-1.0, -1.0)])
def test_the_rank_biserial_is_one_where_all_images_gain(shift, balance):
    differences = np.linspace(0.1, 0.5, 9)[None] * shift
    assert image_tests(differences).rank_biserial == balance


def test_three_seeds_cannot_carry_a_rank_test_and_six_can():
    rng = np.random.default_rng(1)
    for runs in (1, 2, 3, 5):
        found = seed_tests(rng.normal(1, 0.1, (runs, 20)))
        assert found.wilcoxon_p is None and found.smallest_rank_p == min(1, 2 / 2**runs)
    six = seed_tests(rng.normal(1, 0.1, (6, 20)))
    assert six.wilcoxon_p == pytest.approx(0.03125) == six.smallest_rank_p


def test_tests_over_seeds_are_of_one_mean_a_run():
    differences = np.random.default_rng(2).normal(0.1, 0.2, (5, 30))
    assert seed_tests(differences).t_p == pytest.approx(stats.ttest_1samp(differences.mean(axis=1), 0).pvalue)
    assert seed_tests(differences[:1]).t_p is None


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shape", [(1, 1), (1, 8), (3, 8)])
def test_nothing_that_differs_has_no_p_value(shape):
    for differences in (np.zeros(shape), np.full(shape, 0.25)):
        images, seeds = image_tests(differences), seed_tests(differences)
        assert (images.t_p, images.wilcoxon_p, images.dz, seeds.t_p, seeds.wilcoxon_p) == (None,) * 5


def test_a_spread_needs_two_values():
    assert mean_and_spread([0.5]) == (0.5, None)
    assert mean_and_spread([1.0, 3.0]) == (2.0, pytest.approx(2**0.5))
