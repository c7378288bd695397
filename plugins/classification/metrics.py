"""How well classes were named: rates of each class and their means, AUROC, calibration. All in float64.

A mean over classes (macro) runs over those that the test set has an image of; a class that is never predicted has
precision 0. What no image can tell is NaN: the specificity and AUROC of the only class in a test set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Numbers = NDArray[np.float64]
Counts = NDArray[np.int64]

BINS = 15


@dataclass(frozen=True)
class Rates:
    """Rates of each of K classes against all others, (K,) each, NaN where they are not defined.

    Attributes:
        counts: (K, K) images by true class (row) and predicted class (column).
        sensitivity: share of the class's images that are named so (recall).
        specificity: share of all other images that are not named so.
        precision: share of the images named so that are of the class; 0 of a class with images but never predicted.
        f1: 2 TP / (2 TP + FP + FN).
    """

    counts: Counts
    sensitivity: Numbers
    specificity: Numbers
    precision: Numbers
    f1: Numbers

    @classmethod
    def of(cls, truth: Counts, predicted: Counts, classes: int) -> Rates:
        """Count (N,) numbers of true and predicted classes."""
        counts = np.bincount(truth * classes + predicted, minlength=classes * classes).reshape(classes, classes)
        images, named, hits = counts.sum(1), counts.sum(0), counts.diagonal()
        others = counts.sum() - images
        precision = np.where((images > 0) & (named == 0), 0.0, _ratio(hits, named))
        specificity = _ratio(others - (named - hits), others)
        return cls(counts, _ratio(hits, images), specificity, precision, _ratio(2 * hits, images + named))

    @property
    def images(self) -> Counts:
        """(K,) images of each class."""
        return self.counts.sum(1)

    def means(self) -> dict[str, float]:
        """Return accuracy, macro sensitivity, specificity and precision, and F1 macro, micro and weighted by images.

        With one label an image, micro F1 is the accuracy.
        """
        present = self.images > 0
        names = ("sensitivity", "specificity", "precision")
        accuracy = float(self.counts.diagonal().sum() / self.counts.sum())
        return {
            "accuracy": accuracy,
            **{name: mean_of_defined(getattr(self, name)[present]) for name in names},
            "f1_macro": mean_of_defined(self.f1[present]),
            "f1_micro": accuracy,
            "f1_weighted": float((self.images[present] * self.f1[present]).sum() / self.counts.sum()),
        }


def aurocs(probabilities: Numbers, truth: Counts) -> Numbers:
    """Return the (K,) areas under the ROC curves of each class against all others, ties counted half.

    Mann and Whitney's statistic from ranks of (N, K) ``probabilities``; NaN for a class of no image, or of all.
    """
    areas = []
    for number, scores in enumerate(probabilities.T):
        inside = truth == number
        positive, negative = int(inside.sum()), int((~inside).sum())
        above = rankdata(scores)[inside].sum() - positive * (positive + 1) / 2
        areas.append(above / (positive * negative) if positive and negative else np.nan)
    return np.array(areas)


def expected_calibration_error(confidence: Numbers, correct: NDArray[np.bool_], *, bins: int = BINS) -> float:
    """Return the mean over images of |accuracy - confidence| in the bin of their confidence (Guo et al. 2017, eq. 3).

    ``confidence`` (N,) is the probability of the predicted class. Bins are of equal width and open below: (a, b].
    """
    edges = np.linspace(0, 1, bins + 1)[1:-1]
    rows = np.searchsorted(edges, confidence, side="left")
    gaps = np.bincount(rows, weights=correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def log_loss(probabilities: Numbers, truth: Counts) -> float:
    """Return the mean of -log p of the labels, p at least the smallest normal number."""
    of_labels = probabilities[np.arange(len(truth)), truth]
    return float(-np.log(np.maximum(of_labels, np.finfo(np.float64).tiny)).mean())


def probability_metrics(probabilities: Numbers, truth: Counts) -> Mapping[str, float]:
    """Return macro ``auroc``, ``ece`` and ``log_loss`` of (N, K) probabilities against (N,) class numbers."""
    correct = probabilities.argmax(1) == truth
    return {
        "auroc": mean_of_defined(aurocs(probabilities, truth)),
        "ece": expected_calibration_error(probabilities.max(1), correct),
        "log_loss": log_loss(probabilities, truth),
    }


def mean_of_defined(values: Numbers) -> float:
    """Return the mean of the values that are defined, NaN of none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")


def _ratio(part: Counts, total: Counts) -> Numbers:
    return np.where(total > 0, part / np.maximum(total, 1), np.nan)
