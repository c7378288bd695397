"""What is measured on test images: names, units, and which way is better; and class rates from each image's answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..bootstrap import Numbers


@dataclass(frozen=True)
class Measure:
    """One metric of a trainer.

    Attributes:
        name: as in ``metrics.json``.
        label: in tables.
        higher: True where more is better.
        points: True for shares, whose differences are told in points (1 point = 0.01); else in pixels.
        column: column of ``per_image.csv`` of which it is the mean, None where it is no mean over images.
        verdict: True where a verdict is given in words.
    """

    name: str
    label: str
    higher: bool = True
    points: bool = True
    column: str | None = None
    verdict: bool = False

    @property
    def unit(self) -> str:
        """Of differences."""
        return "points" if self.points else "px"

    def shown(self, difference: float) -> float:
        """Return a difference in its unit."""
        return 100 * difference if self.points else difference


MEASURES = {
    measure.name: measure
    for measure in (
        Measure("dice", "Dice", column="dice", verdict=True),
        Measure("iou", "IoU", column="iou", verdict=True),
        Measure("hd95", "HD95", higher=False, points=False, column="hd95"),
        Measure("asd", "ASD", higher=False, points=False, column="asd"),
        Measure("accuracy", "Accuracy", column="correct", verdict=True),
        Measure("sensitivity", "Sensitivity"),
        Measure("specificity", "Specificity"),
        Measure("precision", "Precision"),
        Measure("f1_macro", "F1 macro", verdict=True),
        Measure("f1_micro", "F1 micro"),
        Measure("f1_weighted", "F1 weighted"),
        Measure("auroc", "AUROC"),
        Measure("ece", "ECE", higher=False),
    )
}
"""In the order of tables. Sensitivity, specificity, precision and AUROC are means over classes."""

CLASS_RATES = ("sensitivity", "specificity", "precision", "f1_macro", "f1_weighted")


def class_rates(counts: Numbers) -> Mapping[str, Numbers]:
    """Return :data:`CLASS_RATES` of (..., K, K) images by true class (row) and predicted class.

    Means over the classes that have an image; a class that is never predicted has precision 0. What no image can tell,
    the specificity where there is one class alone, is NaN.
    """
    images, named = counts.sum(-1), counts.sum(-2)
    hits, total = np.diagonal(counts, axis1=-2, axis2=-1), counts.sum((-2, -1))[..., None]
    present = images > 0
    f1 = _ratio(2 * hits, images + named)
    return {
        "sensitivity": _mean(_ratio(hits, images), present),
        "specificity": _mean(_ratio(total - images - (named - hits), total - images), present),
        "precision": _mean(np.where(named > 0, _ratio(hits, named), 0.0), present),
        "f1_macro": _mean(f1, present),
        "f1_weighted": (np.where(present, images * f1, 0).sum(-1) / total[..., 0]),
    }


def class_pseudo_values(
    truth: Sequence[str], predicted: Sequence[str], lesions: Sequence[str]
) -> tuple[Mapping[str, Numbers], list[str]]:
    """Return jackknife pseudo-values of :data:`CLASS_RATES`, one a lesion, and the lesions.

    G lesions with the rate r of all images and r_g of all but those of lesion g give G r - (G - 1) r_g, whose mean is
    the rate but for a bias of order 1/G. So a rate over all images is resampled as a mean over lesions is (Efron 1982).
    """
    classes = {name: number for number, name in enumerate(sorted({*truth, *predicted}))}
    names = list(dict.fromkeys(lesions))
    places = {lesion: number for number, lesion in enumerate(names)}
    counts = np.zeros((len(names), len(classes), len(classes)))
    for true, guess, lesion in zip(truth, predicted, lesions, strict=True):
        counts[places[lesion], classes[true], classes[guess]] += 1
    whole, without = class_rates(counts.sum(0)), class_rates(counts.sum(0) - counts)
    number = len(names)
    return {rate: number * whole[rate] - (number - 1) * without[rate] for rate in CLASS_RATES}, names


def _ratio(part: Numbers, total: Numbers) -> Numbers:
    return np.divide(part, total, out=np.full(np.broadcast(part, total).shape, np.nan), where=total > 0)


def _mean(values: Numbers, present: Numbers) -> Numbers:
    """Return the mean over classes that are present and defined, NaN of none."""
    defined = present & np.isfinite(values)
    number = defined.sum(-1)
    return _ratio(np.where(defined, values, 0).sum(-1), number)
