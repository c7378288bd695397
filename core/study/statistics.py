"""What two arms' scores on the same test images say: tests, effect sizes, and the correction for looking often."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..bootstrap import Numbers

FEWEST_SEEDS = 3
SMALLEST_TEST = 100
LEVEL = 0.05


@dataclass(frozen=True)
class ImageTests:
    """Tests over test images of differences that are first averaged over runs, so that an image counts once.

    They hold the trained networks fixed: a small p says that these networks differ, not that training again would.

    Attributes:
        images: number of images.
        t_p: two-sided paired t-test.
        wilcoxon_p: two-sided Wilcoxon signed-rank test; images without a difference are left out of it.
        dz: Cohen's d of paired data: mean difference over its standard deviation.
        rank_biserial: matched-pairs rank-biserial correlation, from -1 to 1.
    """

    images: int
    t_p: float | None
    wilcoxon_p: float | None
    dz: float | None
    rank_biserial: float | None


@dataclass(frozen=True)
class SeedTests:
    """Tests over runs of mean differences, one a run: would training again show the same?

    Attributes:
        runs: number of runs.
        t_p: two-sided paired t-test, None for fewer than two runs.
        wilcoxon_p: two-sided signed-rank test, None where so few runs could never reach the level of 0.05.
        smallest_rank_p: the smallest p-value that a rank test of so many runs can have, 2 / 2^runs.
    """

    runs: int
    t_p: float | None
    wilcoxon_p: float | None
    smallest_rank_p: float


def image_tests(differences: Numbers) -> ImageTests:
    """Return tests over images of (runs, images) finite differences."""
    from scipy.stats import rankdata, ttest_1samp

    values = differences.mean(axis=0)
    spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    if spread <= 1e-15:
        return ImageTests(len(values), None, None, None, None)
    moved = values[values != 0]
    ranks = rankdata(np.abs(moved))
    balance = float((np.sign(moved) * ranks).sum() / ranks.sum())
    return ImageTests(
        images=len(values),
        t_p=_p_of(ttest_1samp(values, 0)),
        wilcoxon_p=signed_rank_p(values),
        dz=float(values.mean()) / spread,
        rank_biserial=balance,
    )


def seed_tests(differences: Numbers) -> SeedTests:
    """Return tests over runs of (runs, images) finite differences."""
    from scipy.stats import ttest_1samp

    means = differences.mean(axis=1)
    smallest = 2 / 2.0 ** len(means)
    varies = len(means) > 1 and float(means.std()) > 1e-15
    return SeedTests(
        runs=len(means),
        t_p=_p_of(ttest_1samp(means, 0)) if varies else None,
        wilcoxon_p=signed_rank_p(means) if varies and smallest <= LEVEL else None,
        smallest_rank_p=min(1.0, smallest),
    )


def signed_rank_p(values: Numbers) -> float | None:
    """Return the two-sided p-value of Wilcoxon's signed-rank test, None where no value differs from 0."""
    from scipy.stats import wilcoxon

    moved = values[values != 0]
    return _p_of(wilcoxon(moved)) if len(moved) else None


def _p_of(test: Any) -> float:
    # SciPy's stubs do not know what its tests return.
    return float(test.pvalue)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return the p-values adjusted by Holm's step-down method (1979) over those that are not None."""
    order = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        adjusted[place] = largest
    return adjusted


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Return mean and standard deviation (divisor n - 1, None of one value) of runs."""
    mean = math.fsum(values) / len(values)
    return mean, float(np.std(values, ddof=1)) if len(values) > 1 else None
