from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from lesionforge.plugins.classification.metrics import (
    Rates,
    aurocs,
    expected_calibration_error,
    log_loss,
    probability_metrics,
)

CASES = [(2, 60, None), (3, 200, None), (7, 300, None), (4, 90, 2), (3, 5, 0)]


def drawn(classes, count, absent):
    """True classes, none of them ``absent``, and coarse probabilities with many ties; all classes are predicted."""
    rng = np.random.default_rng(classes * count)
    present = [number for number in range(classes) if number != absent]
    truth = rng.choice(present, count)
    logits = rng.normal(size=(count, classes)) + 1.2 * np.eye(classes)[truth]
    probabilities = np.exp(logits).round(1) + 0.05
    return truth, probabilities / probabilities.sum(1, keepdims=True), present


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.parametrize(("classes", "count", "absent"), CASES)
def test_rates_agree_with_scikit_learn(classes, count, absent):
    truth, probabilities, present = drawn(classes, count, absent)
    present = sorted(set(truth.tolist()))
    predicted = probabilities.argmax(1)
    rates = Rates.of(truth, predicted, classes)
    means = rates.means()
    assert (rates.counts == sk.confusion_matrix(truth, predicted, labels=range(classes))).all()
    assert means["accuracy"] == pytest.approx(sk.accuracy_score(truth, predicted))
    assert means["sensitivity"] == pytest.approx(sk.balanced_accuracy_score(truth, predicted))
    options = {"labels": present, "average": "macro", "zero_division": 0}
    assert means["sensitivity"] == pytest.approx(sk.recall_score(truth, predicted, **options))
    assert means["precision"] == pytest.approx(sk.precision_score(truth, predicted, **options))
    assert means["f1_macro"] == pytest.approx(sk.f1_score(truth, predicted, **options))
    assert means["f1_micro"] == pytest.approx(sk.f1_score(truth, predicted, average="micro"))
    assert means["f1_weighted"] == pytest.approx(sk.f1_score(truth, predicted, average="weighted", zero_division=0))
    of_rest = [sk.recall_score(truth != number, predicted != number) for number in present]
    assert means["specificity"] == pytest.approx(np.mean(of_rest))
    for number in present:
        assert rates.f1[number] == pytest.approx(sk.f1_score(truth == number, predicted == number, zero_division=0))
    if absent is not None:
        assert np.isnan(rates.sensitivity[absent]) and rates.images[absent] == 0


@pytest.mark.parametrize(("classes", "count", "absent"), CASES)
def test_auroc_agrees_with_scikit_learn(classes, count, absent):
    truth, probabilities, _ = drawn(classes, count, absent)
    found = aurocs(probabilities, truth)
    for number in range(classes):
        if (truth == number).any():
            assert found[number] == pytest.approx(sk.roc_auc_score(truth == number, probabilities[:, number]))
        else:
            assert np.isnan(found[number])
    macro = probability_metrics(probabilities, truth)["auroc"]
    assert macro == pytest.approx(np.nanmean(found))
    if classes == 2:
        assert macro == pytest.approx(sk.roc_auc_score(truth, probabilities[:, 1]))
    elif absent is None:
        assert macro == pytest.approx(sk.roc_auc_score(truth, probabilities, multi_class="ovr", average="macro"))


@pytest.mark.parametrize(("classes", "count", "absent"), CASES)
def test_calibration_error_and_log_loss_agree_with_scikit_learn(classes, count, absent):
    truth, probabilities, _ = drawn(classes, count, absent)
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == truth
    accuracy, mean = calibration_curve(correct, confidence, n_bins=15, strategy="uniform")
    bins = np.searchsorted(np.linspace(0, 1, 16)[1:-1], confidence)
    sizes = np.bincount(bins, minlength=15)
    expected = np.sum(np.abs(accuracy - mean) * sizes[sizes > 0]) / count
    assert expected_calibration_error(confidence, correct) == pytest.approx(expected)
    assert log_loss(probabilities, truth) == pytest.approx(sk.log_loss(truth, probabilities, labels=range(classes)))


def test_bins_of_the_calibration_error_are_open_below():
    # 0.6 = 9/15 closes the ninth bin, so both cases share it; a hair more opens the tenth.
    correct = np.array([True, False])
    assert expected_calibration_error(np.array([0.6, 0.58]), correct) == pytest.approx(abs(1 - 0.6 - 0.58) / 2)
    assert expected_calibration_error(np.array([0.6001, 0.58]), correct) == pytest.approx((1 - 0.6001 + 0.58) / 2)


def test_what_one_class_alone_cannot_tell_is_not_a_number():
    truth = np.zeros(4, np.int64)
    rates = Rates.of(truth, np.array([0, 0, 1, 0]), 2)
    means = rates.means()
    assert means["sensitivity"] == means["accuracy"] == 0.75 and means["precision"] == 1
    assert math.isnan(means["specificity"]) and means["f1_macro"] == pytest.approx(6 / 7)
    assert rates.precision[1] == rates.f1[1] == 0 and math.isnan(rates.sensitivity[1])
    assert math.isnan(probability_metrics(np.full((4, 2), 0.5), truth)["auroc"])
    assert math.isfinite(log_loss(np.eye(2)[[1, 1, 1, 1]], truth))


def test_a_class_that_is_never_predicted_has_no_precision_but_counts():
    means = Rates.of(np.array([0, 1, 1]), np.array([0, 0, 0]), 3).means()
    assert means["precision"] == pytest.approx((1 / 3 + 0) / 2)
