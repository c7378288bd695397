"""What synthetic cases are worth: jobs that differ in their training data alone, compared on the same test images."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..dataset import Dataset
from ..errors import StoreError
from ..seeding import name_seed
from .charts import Chart, intervals
from .statistics import PairedDifference, paired_difference
from .training import JobView
from .wording import count, number, plural, signed

SCORES = {"dice": "Dice", "iou": "IoU", "correct": "Accuracy"}
WORDS = ("label", "predicted")
"""Columns of per-image tables that hold no numbers."""
SMALL_TEST = 100
CAUTION = (
    "Each arm was trained once. Another training seed moves such differences by an amount that these intervals do not "
    "contain, so one seed cannot carry the claim that synthetic cases help, or that they harm."
)


@dataclass(frozen=True)
class Comparison:
    """One job with synthetic cases against the same training on real cases alone.

    Attributes:
        differences: by score, job minus baseline.
        lesions_known: whether images of one lesion were drawn together.
        remarks: what else the reader must know to judge the difference.
    """

    job: JobView
    baseline: JobView
    differences: Mapping[str, PairedDifference]
    lesions_known: bool
    remarks: tuple[str, ...]
    chart: Chart

    @property
    def groups(self) -> str:
        """What the bootstrap draws, and how many of them."""
        drawn = max(difference.groups for difference in self.differences.values())
        return plural(drawn, "lesion" if self.lesions_known else "image")

    @property
    def verdicts(self) -> list[str]:
        """What follows from the numbers, in words."""
        return [verdict(SCORES[score], difference) for score, difference in self.differences.items()]


def verdict(score: str, difference: PairedDifference) -> str:
    """Say whether the interval leaves a gain, a loss or neither, with the numbers behind it."""
    mean, low, high = (signed(100 * value) for value in (difference.mean, difference.low, difference.high))
    numbers = f"{mean} points, 95\N{NO-BREAK SPACE}% CI {low} to {high}, one seed, n = {count(difference.images)}"
    numbers = numbers.replace(" = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}")
    if difference.low > 0:
        return f"{score}: gain on these test images: {numbers}"
    if difference.high < 0:
        return f"{score}: loss on these test images: {numbers}"
    return f"{score}: no gain shown: {numbers}"


def segmentation_jobs(views: Sequence[JobView]) -> list[JobView]:
    """Return the finished jobs that report a Dice coefficient."""
    return [view for view in views if view.metrics and "dice" in view.metrics]


def classification_jobs(views: Sequence[JobView]) -> list[JobView]:
    """Return the finished jobs that report a macro F1."""
    return [view for view in views if view.metrics and "f1_macro" in view.metrics]


def compare_jobs(views: Sequence[JobView], real: Dataset | None) -> list[Comparison]:
    """Return each job that saw synthetic cases against the equal one that did not.

    Raises:
        StoreError: a per-image table is damaged.
    """
    measured = [*segmentation_jobs(views), *classification_jobs(views)]
    jobs = [view for view in measured if (view.folder / "per_image.csv").exists()]
    compared = (_compare(job, baseline, real) for baseline in jobs for job in jobs if _differ_in_data(job, baseline))
    return [comparison for comparison in compared if comparison is not None]


def _differ_in_data(view: JobView, baseline: JobView) -> bool:
    job, real_job = view.job, baseline.job
    same = (job.trainer, dict(job.values)) == (real_job.trainer, dict(real_job.values))
    return same and job.after_synthesis and not real_job.after_synthesis


def _compare(job: JobView, baseline: JobView, real: Dataset | None) -> Comparison | None:
    ours, theirs = (read_per_image(view.folder / "per_image.csv") for view in (job, baseline))
    images = [image for image in theirs if image in ours]
    lesions = {record.image_id: record.lesion for record in real.records} if real else {}
    known = bool(images) and all(image in lesions for image in images)
    groups = lesions if known else {}
    differences = {}
    for score in SCORES:
        changes = {image: ours[image].get(score, math.nan) - theirs[image].get(score, math.nan) for image in images}
        changes = {image: change for image, change in changes.items() if math.isfinite(change)}
        if changes:
            differences[score] = paired_difference(changes, groups, seed=name_seed(job.job.name, score))
    if not differences:
        return None
    rows = [
        (SCORES[score], 100 * change.mean, 100 * change.low, 100 * change.high) for score, change in differences.items()
    ]
    chart = intervals("Mean difference, 95 % interval", rows, x_label="points (100 × score)")
    remarks = _remarks(job, baseline, len(images), len(ours.keys() ^ theirs.keys()))
    return Comparison(job, baseline, differences, known, remarks, chart)


def _remarks(job: JobView, baseline: JobView, images: int, unpaired: int) -> tuple[str, ...]:
    remarks = []
    if job.steps and baseline.steps and job.steps != baseline.steps:
        remarks.append(
            f"The arms did not train equally long: {count(job.steps)} steps against {count(baseline.steps)}; "
            "part of the difference may come from that alone."
        )
    if unpaired:
        remarks.append(f"{plural(unpaired, 'image')} in only one of both tables left out.")
    if images < SMALL_TEST:
        remarks.append(f"A test set of {plural(images, 'image')} is too small to show differences of a point.")
    return tuple(remarks)


def read_per_image(file: Path) -> dict[str, dict[str, float]]:
    """Return the numbers of each test image by its id.

    Raises:
        StoreError: the table has no column ``image_id`` or holds what is no number.
    """
    with file.open(encoding="utf-8", newline="") as table:
        try:
            return {row.pop("image_id"): _numbers(row) for row in csv.DictReader(table)}
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"{file} is no table of numbers with a column image_id: {error}") from error


def _numbers(row: Mapping[str, str]) -> dict[str, float]:
    numbers = ((name, text) for name, text in row.items() if name not in WORDS)
    return {name: math.nan if text == "" else float(text) for name, text in numbers}


def further_metrics(view: JobView) -> list[tuple[str, str]]:
    """Return all metrics of a job, written out."""
    return [(name, number(value, 4)) for name, value in (view.metrics or {}).items()]
