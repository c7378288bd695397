"""The hierarchical interval: how often it covers the truth, against SciPy, and by properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lesionforge.core.bootstrap import Resampling, hierarchical_interval

SIMULATIONS = 300


def simulated(rng, runs, groups, *, of_runs, of_groups, of_rest, size=1):
    """Differences without any true effect: runs, lesions and both together each move them by a normal amount."""
    lesions = np.repeat(rng.normal(0, of_groups, groups), size)
    rest = rng.normal(0, of_rest, (runs, groups * size))
    return rng.normal(0, of_runs, (runs, 1)) + lesions + rest, [str(row // size) for row in range(groups * size)]


@pytest.mark.parametrize(
    ("runs", "spread"),
    [
        (1, {"of_runs": 0, "of_groups": 0.5, "of_rest": 0.5}),
        (2, {"of_runs": 0.2, "of_groups": 0, "of_rest": 0.01}),
        (3, {"of_runs": 0.2, "of_groups": 0, "of_rest": 0.01}),
        (3, {"of_runs": 0, "of_groups": 1, "of_rest": 0}),
        (3, {"of_runs": 0, "of_groups": 0, "of_rest": 1}),
        (3, {"of_runs": 0.05, "of_groups": 0.3, "of_rest": 0.7, "size": 2}),
        (8, {"of_runs": 0.02, "of_groups": 0.3, "of_rest": 0.7}),
    ],
)
def test_the_interval_covers_the_truth_whatever_varies(runs, spread):
    rng, covered = np.random.default_rng(1), 0
    for number in range(SIMULATIONS):
        differences, lesions = simulated(rng, runs, 80, **spread)
        found = hierarchical_interval(differences, lesions, seed=number, resamples=300)
        covered += found.low <= 0 <= found.high
    assert 0.91 <= covered / SIMULATIONS <= 1


def test_draws_of_three_runs_as_they_are_would_promise_too_much():
    rng, covered = np.random.default_rng(2), 0
    for number in range(SIMULATIONS):
        differences, lesions = simulated(rng, 3, 80, of_runs=0.2, of_groups=0, of_rest=0.01)
        low, high = hierarchical_interval(differences, lesions, seed=number, resamples=300).percentile
        covered += low <= 0 <= high
    assert covered / SIMULATIONS < 0.85


def test_one_run_without_groups_is_scipys_percentile_bootstrap():
    changes = np.random.default_rng(1).normal(0.004, 0.05, 300)
    found = hierarchical_interval(changes[None], [str(row) for row in range(300)], seed=3)
    expected = stats.bootstrap((changes,), np.mean, method="percentile", rng=4, n_resamples=10_000)
    assert found.percentile == pytest.approx(tuple(expected.confidence_interval), abs=3e-4)
    assert (found.low, found.high) == pytest.approx(found.percentile, abs=3e-4)
    assert found.standard_error == pytest.approx(stats.sem(changes))
    assert found.p == pytest.approx(stats.ttest_1samp(changes, 0).pvalue)


def test_where_only_runs_vary_it_is_students_t_of_their_means():
    means = np.array([0.01, 0.03, 0.02])
    found = hierarchical_interval(np.repeat(means[:, None], 50, axis=1), [str(row) for row in range(50)], seed=0)
    expected = stats.ttest_1samp(means, 0)
    assert found.degrees_of_freedom == pytest.approx(2) and found.p == pytest.approx(expected.pvalue)
    bounds = expected.confidence_interval()
    assert found.low <= bounds.low and bounds.high <= found.high
    assert found.high - found.low < 1.1 * (bounds.high - bounds.low)


def test_images_of_one_lesion_are_no_further_evidence():
    rng = np.random.default_rng(5)
    once, lesions = simulated(rng, 3, 60, of_runs=0.01, of_groups=0.3, of_rest=0.1)
    found = hierarchical_interval(once, lesions, seed=0)
    copied = hierarchical_interval(np.repeat(once, 4, axis=1), np.repeat(lesions, 4).tolist(), seed=0)
    assert (copied.low, copied.high) == pytest.approx((found.low, found.high)) and copied.images == 240
    alone = hierarchical_interval(np.repeat(once, 4, axis=1), [str(row) for row in range(240)], seed=0)
    assert alone.high - alone.low < 0.75 * (found.high - found.low)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 4), st.integers(1, 12), st.floats(-1, 1), st.integers(0, 99))
def test_intervals_move_and_turn_with_the_differences(runs, images, shift, seed):
    differences = np.random.default_rng(seed).normal(0, 1, (runs, images))
    resampling = Resampling(runs, [str(row // 2) for row in range(images)], seed=seed, resamples=50)
    found, moved, turned = (resampling.interval(d) for d in (differences, differences + shift, -differences))
    assert (moved.low, moved.high) == pytest.approx((found.low + shift, found.high + shift), abs=1e-6)
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low), abs=1e-6)
    assert found.low <= found.high and found.images == images


def test_nothing_varies_and_nothing_is_there():
    found = hierarchical_interval(np.full((3, 5), 0.25), list("abcde"), seed=0)
    assert (found.low, found.mean, found.high, found.p) == (0.25, 0.25, 0.25, None)
    with pytest.raises(ValueError, match="at least one run and one image"):
        Resampling(0, ["a"], seed=0)
