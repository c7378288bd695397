"""The few statistics that the report rests on, plain enough to be checked by hand. All in float64."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from ..bootstrap import RESAMPLES, Numbers, hierarchical_interval

T = TypeVar("T")

KOLMOGOROV_95 = math.sqrt(-math.log(0.05 / 2) / 2)


class EvenSample(Generic[T]):
    """At most ``limit`` evenly spaced items of a stream of unknown length, in order: every k-th one, k a power of two.

    Which items stay depends on their number alone, so the same run always gives the same sample.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._every = 1
        self.seen = 0
        self.items: list[T] = []

    def add(self, item: T) -> None:
        """Take the next item of the stream."""
        if self.seen % self._every == 0:
            if len(self.items) == self._limit:
                self.items = self.items[::2]
                self._every *= 2
            if self.seen % self._every == 0:
                self.items.append(item)
        self.seen += 1


def spread(count: int, wanted: int) -> list[int]:
    """Return at most ``wanted`` evenly spaced positions out of ``count``, the first one among them."""
    return list(range(count)) if count <= wanted else [position * count // wanted for position in range(wanted)]


def finite(values: ArrayLike) -> Numbers:
    """Return the values that are finite numbers."""
    array = np.asarray(values, np.float64)
    return array[np.isfinite(array)]


def kolmogorov_smirnov(first: Numbers, second: Numbers) -> float:
    """Return the two-sample Kolmogorov-Smirnov statistic: the largest gap between both empirical distributions."""
    points = np.concatenate([first, second])
    shares = [np.searchsorted(np.sort(sample), points, side="right") / len(sample) for sample in (first, second)]
    return float(np.abs(shares[0] - shares[1]).max())


def chance_gap(first: int, second: int) -> float:
    """Return the statistic that samples of these sizes exceed once in twenty draws from one continuous distribution.

    The asymptotic bound c(0.05) sqrt((n + m) / (n m)) of Smirnov (1948), for independent cases.
    """
    return min(1.0, KOLMOGOROV_95 * math.sqrt((first + second) / (first * second)))


@dataclass(frozen=True)
class PairedDifference:
    """Mean difference of paired per-image scores with its 95 % bootstrap interval.

    Attributes:
        mean, low, high: the difference, and the percentile interval.
        images: number of pairs.
        groups: number of lesions, or of images where lesions are not known, that were resampled.
    """

    mean: float
    low: float
    high: float
    images: int
    groups: int


def paired_difference(
    differences: Mapping[str, float], groups: Mapping[str, str], *, seed: int, resamples: int = RESAMPLES
) -> PairedDifference:
    """Bootstrap the mean of ``differences`` (by image id), drawing whole groups with replacement.

    Args:
        differences: at least one finite number an image.
        groups: lesion of each image; an image that is not named is a group of its own.
        seed: seed of the draws.
    """
    lesions = [groups.get(image, f"image {image}") for image in differences]
    found = hierarchical_interval(
        np.array([[*differences.values()]], np.float64), lesions, seed=seed, resamples=resamples
    )
    return PairedDifference(found.mean, *found.percentile, found.images, found.groups)


def median(values: Sequence[float] | Numbers) -> float | None:
    """Return the median, or None of nothing."""
    return float(np.median(values)) if len(values) else None


def quartiles(values: Numbers) -> tuple[float, float, float] | None:
    """Return the median between the lower and the upper quartile, or None of nothing."""
    if not len(values):
        return None
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
    return float(low), float(middle), float(high)
