"""Verdicts follow from numbers, whichever way is better; class rates agree with independent implementations."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics as sklearn

from lesionforge.core.bootstrap import Interval
from lesionforge.core.study.comparison import Comparison
from lesionforge.core.study.measures import CLASS_RATES, MEASURES, class_pseudo_values, class_rates
from lesionforge.core.study.statistics import SeedTests


def comparison(low, mean, high, *, metric="dice", runs=3, p=0.01, p_holm=0.02, family=2):
    interval = Interval(mean, low, high, (low, high), 0.01, 2.0, p, runs, 439, 431)
    tests = SeedTests(runs, 0.1, None, 0.25)
    return Comparison(
        "unet",
        "R+S",
        "R",
        50,
        None,
        (50, 50),
        (50, 0),
        "test",
        MEASURES[metric],
        (0.8, 0.79),
        interval,
        None,
        tests,
        0,
        family,
        p_holm,
    )


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (comparison(-0.004, 0.002, 0.008), "no gain shown: +0.2 points, 95 % CI −0.4 to +0.8, 3 runs, n = 439"),
        (
            comparison(0.004, 0.012, 0.02),
            "gain: +1.2 points, 95 % CI +0.4 to +2.0, 3 runs, n = 439, p = 0.01, p = 0.02 after Holm's correction "
            "for 2 comparisons",
        ),
        (
            comparison(0.004, 0.012, 0.02, p_holm=0.2, family=20),
            "gain that does not survive the number of comparisons: +1.2 points, 95 % CI +0.4 to +2.0, 3 runs, n = 439, "
            "p = 0.01, p = 0.2 after Holm's correction for 20 comparisons",
        ),
        (
            comparison(-0.03, -0.02, -0.01, family=1),
            "loss: −2.0 points, 95 % CI −3.0 to −1.0, 3 runs, n = 439, p = 0.01",
        ),
        (
            comparison(0.004, 0.012, 0.02, runs=1, family=1),
            "gain on these test images by one training, which cannot carry a claim: +1.2 points, 95 % CI +0.4 to +2.0, "
            "1 run, n = 439, p = 0.01",
        ),
        (
            comparison(-2.0, -1.5, -1.0, metric="hd95", family=1),
            "gain: −1.5 px, 95 % CI −2.0 to −1.0, 3 runs, n = 439, p = 0.01",
        ),
        (
            comparison(0.01, 0.02, 0.03, metric="ece", family=1),
            "loss: +2.0 points, 95 % CI +1.0 to +3.0, 3 runs, n = 439, p = 0.01",
        ),
        (
            comparison(0.004, 0.012, 0.02, p=0.0, family=1),
            "gain: +1.2 points, 95 % CI +0.4 to +2.0, 3 runs, n = 439, p < 1e-15",
        ),
        (comparison(0.0, 0.01, 0.02), "no gain shown: +1.0 points, 95 % CI +0.0 to +2.0, 3 runs, n = 439"),
    ],
)
def test_the_verdict_follows_from_the_interval(found, words):
    assert re.sub(r"\s", " ", found.verdict) == words


def test_what_is_compared_is_told():
    assert comparison(0, 0, 0).place == "unet, R+S (50 real + 50 synthetic) against R (50 real)"


def test_a_p_value_never_stands_without_effect_and_number(found=None):
    row = comparison(0.004, 0.012, 0.02).row()
    assert row["p"] is not None and row["difference"] == 0.012 and row["images"] == 439 and row["runs"] == 3
    assert replace(comparison(0, 0, 0), p_holm=None).verdict.endswith("n = 439")


@pytest.fixture
def answers():
    rng = np.random.default_rng(0)
    truth = rng.choice(["a", "b", "c"], 120, p=[0.6, 0.3, 0.1])
    return truth, np.where(rng.random(120) < 0.7, truth, rng.choice(["a", "b", "c"], 120))


def test_class_rates_equal_scikit_learns(answers):
    truth, predicted = answers
    counts = sklearn.confusion_matrix(truth, predicted).astype(float)
    found = class_rates(counts)
    average = {"average": "macro", "zero_division": 0}
    assert found["sensitivity"] == pytest.approx(sklearn.recall_score(truth, predicted, **average))
    assert found["precision"] == pytest.approx(sklearn.precision_score(truth, predicted, **average))
    assert found["f1_macro"] == pytest.approx(sklearn.f1_score(truth, predicted, **average))
    assert found["f1_weighted"] == pytest.approx(sklearn.f1_score(truth, predicted, average="weighted"))
    inverted = [sklearn.recall_score(truth != name, predicted != name) for name in ("a", "b", "c")]
    assert found["specificity"] == pytest.approx(np.mean(inverted))


def test_a_class_that_is_absent_or_never_named_counts_as_documented():
    absent = class_rates(np.array([[5.0, 1, 0], [2, 4, 1], [0, 0, 0]]))
    assert absent["sensitivity"] == pytest.approx((5 / 6 + 4 / 7) / 2)
    never = class_rates(np.array([[5.0, 0], [3, 0]]))
    assert never["precision"] == pytest.approx((5 / 8 + 0) / 2)
    alone = class_rates(np.array([[5.0, 1], [0, 0]]))
    assert np.isnan(alone["specificity"]) or alone["specificity"] >= 0


def test_pseudo_values_average_to_the_rate_and_spread_as_its_bootstrap(answers):
    truth, predicted = answers
    values, names = class_pseudo_values(truth.tolist(), predicted.tolist(), [str(row) for row in range(120)])
    rates = class_rates(sklearn.confusion_matrix(truth, predicted).astype(float))
    rng = np.random.default_rng(1)
    draws = {rate: [] for rate in CLASS_RATES}
    for _ in range(400):
        rows = rng.integers(0, 120, 120)
        counts = sklearn.confusion_matrix(truth[rows], predicted[rows], labels=["a", "b", "c"]).astype(float)
        for rate, value in class_rates(counts).items():
            draws[rate].append(float(value))
    assert len(names) == 120
    for rate in CLASS_RATES:
        assert values[rate].mean() == pytest.approx(rates[rate], abs=0.01)
        assert values[rate].std(ddof=1) / np.sqrt(120) == pytest.approx(np.std(draws[rate]), rel=0.25)


def test_images_of_one_lesion_leave_together(answers):
    truth, predicted = answers
    lesions = [f"lesion {row // 3}" for row in range(120)]
    values, names = class_pseudo_values(truth.tolist(), predicted.tolist(), lesions)
    assert len(names) == 40 == len(values["f1_macro"])
