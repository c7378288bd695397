"""The interval that claims about trainings rest on: a bootstrap over training runs and over lesions. All in float64."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

RESAMPLES = 10_000
DRAWS_AT_ONCE = 2_000_000
NORMAL_975 = 1.959963984540054


@dataclass(frozen=True)
class Interval:
    """A mean of paired differences with its 95 % interval.

    Attributes:
        mean: over all images and runs.
        low, high: the interval, as wide as so few runs and lesions demand.
        percentile: the interval of the draws as they are, which is too narrow where there are few runs.
        standard_error: of the mean, over further runs and further lesions.
        degrees_of_freedom: of the standard error, by Satterthwaite's approximation.
        p: two-sided p-value of no difference, of Student's t with these degrees of freedom.
        runs, images, groups: how many trainings, images and lesions the mean is over.
    """

    mean: float
    low: float
    high: float
    percentile: tuple[float, float]
    standard_error: float
    degrees_of_freedom: float
    p: float | None
    runs: int
    images: int
    groups: int


class Resampling:
    """Draws of runs and of lesions with replacement, made once for all differences between runs on the same images.

    Every draw takes runs with replacement and, independently, lesions with replacement: the same lesions in every run,
    since all runs are tested on the same images (the pigeonhole bootstrap of Owen 2007). Draws of R runs vary too
    little by (R - 1) / R and have thinner tails than Student's t; and what is a matter of run and lesion together
    varies three times too much. So [ours] the draws' distance from the mean is scaled: to the unbiased variance of a
    mean of crossed random effects, and from the normal to Student's quantile with Satterthwaite's degrees of freedom.
    With one run only lesions are drawn; then nothing is known of how another run would differ, and the interval does
    not contain it.
    """

    def __init__(self, runs: int, groups: Sequence[str], *, seed: int, resamples: int = RESAMPLES) -> None:
        """Draw for ``runs`` trainings and images of which ``groups`` names the lesion.

        Raises:
            ValueError: there is no run or no image.
        """
        if not runs or not groups:
            raise ValueError("an interval needs at least one run and one image")
        numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
        self._places = np.array([numbers[group] for group in groups])
        self._sizes = np.bincount(self._places).astype(np.float64)
        rng = np.random.default_rng(seed)
        self._lesions = list(_counts(rng, resamples, len(numbers)))
        self._runs = np.concatenate(list(_counts(rng, resamples, runs))).astype(np.float64) if runs > 1 else None

    def interval(self, differences: Numbers) -> Interval:
        """Return the mean of finite ``differences``, (runs, images), with its interval."""
        runs, images = differences.shape
        sums = np.stack([np.bincount(self._places, row, len(self._sizes)) for row in differences]).astype(np.float64)
        mean = math.fsum(differences.mean(axis=0)) / images
        draws = self._draws(sums)
        variance, freedom = _variance(sums, self._sizes, mean)
        low, high = (float(bound) for bound in np.quantile(draws, (0.025, 0.975)))
        factor, p = _widening(draws, mean, variance, freedom)
        return Interval(
            mean=mean,
            low=mean + factor * (low - mean),
            high=mean + factor * (high - mean),
            percentile=(low, high),
            standard_error=math.sqrt(variance),
            degrees_of_freedom=freedom,
            p=p,
            runs=runs,
            images=images,
            groups=len(self._sizes),
        )

    def _draws(self, sums: Numbers) -> Numbers:
        """Return the mean of every draw from the (runs, groups) sums over each group's images."""
        taken = [counts.astype(np.float64) for counts in self._lesions]
        by_run = np.concatenate([counts @ sums.T for counts in taken])
        images = np.concatenate([counts @ self._sizes for counts in taken])
        total = by_run[:, 0] if self._runs is None else (by_run * self._runs).sum(axis=1)
        return total / (images * len(sums))


def hierarchical_interval(
    differences: Numbers, groups: Sequence[str], *, seed: int, resamples: int = RESAMPLES
) -> Interval:
    """Return the interval of one set of differences, (runs, images), see :class:`Resampling`."""
    return Resampling(len(differences), groups, seed=seed, resamples=resamples).interval(differences)


def _counts(rng: np.random.Generator, draws: int, items: int) -> Iterator[NDArray[np.uint16]]:
    """Yield how often each of ``items`` is taken in samples with replacement, one row a sample, some rows at a time."""
    at_once = max(1, DRAWS_AT_ONCE // items)
    for start in range(0, draws, at_once):
        number = min(at_once, draws - start)
        taken = rng.integers(0, items, (number, items)) + np.arange(number)[:, None] * items
        yield np.bincount(taken.ravel(), minlength=number * items).reshape(number, items).astype(np.uint16)


def _variance(sums: Numbers, sizes: Numbers, mean: float) -> tuple[float, float]:
    """Return the variance of the mean over runs and groups, both random and crossed, and its degrees of freedom.

    With V_r, V_g and V_e the variances that runs, groups and the rest contribute (method of moments), V_r + V_g - V_e:
    both of the former contain the rest once. Never less than either of them.
    """
    runs, groups = sums.shape
    shares = (sums - sizes * mean) / sizes.sum()
    by_group, by_run = shares.mean(axis=0), shares.sum(axis=1)
    of_groups = float((by_group**2).sum()) * groups / max(groups - 1, 1)
    if runs == 1:
        return of_groups, float(max(groups - 1, 1))
    of_runs = float((by_run**2).sum()) / (runs * (runs - 1))
    rest = shares - by_group - np.outer(by_run, sizes / sizes.sum())
    of_rest = float((rest**2).sum()) / (runs * (runs - 1)) * groups / max(groups - 1, 1)
    total = max(of_runs + of_groups - of_rest, of_runs, of_groups)
    parts = of_runs**2 / (runs - 1) + of_groups**2 / max(groups - 1, 1)
    return total, max(total**2 / parts, runs - 1.0) if parts > 0 else float(runs - 1)


def _widening(draws: Numbers, mean: float, variance: float, freedom: float) -> tuple[float, float | None]:
    """Return the factor on the draws' distance from the mean, and the p-value; 1 and None where nothing varies."""
    from scipy.stats import t

    spread = float(np.sqrt(np.mean((draws - mean) ** 2)))
    if spread <= 1e-15 or variance <= 0:
        return 1.0, None
    p = float(2 * t.sf(abs(mean) / math.sqrt(variance), freedom))
    return float(t.ppf(0.975, freedom)) / NORMAL_975 * math.sqrt(variance) / spread, p
