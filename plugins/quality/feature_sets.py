"""Distances between the features of two datasets, with intervals over lesions. Everything in float64 on the CPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from .frechet import CHUNK_ROWS, frechet_of_gaussians, polynomial_kernel
from .real_features import over_real
from .resampling import Groups, normal_interval, percentile_interval

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from ...core.dataset import Dataset
    from ...core.metrics import Comparison
    from ...core.roles import Extractor

Interval = tuple[float | None, float | None]


@dataclass(frozen=True)
class FeatureSet:
    """Features of one dataset.

    Attributes:
        features: (n, D) float64 on the CPU.
        groups: the lesion of each row.
    """

    features: Tensor
    groups: Groups


def feature_sets(config: Any, extractor: Extractor, comparison: Comparison) -> tuple[FeatureSet, FeatureSet]:
    """Return the features of both datasets, computed once for all metrics that need the same.

    Args:
        config: names the extractor, its model and its weights.
    """

    def described(data: Dataset) -> FeatureSet:
        rows = over_real(data, extractor.features, comparison.context).cpu().double()
        return FeatureSet(rows, Groups.of([record.lesion for record in data.records]))

    key = ("features", config.extractor, config.model, config.weights)
    first = comparison.shared((*key, "first"), lambda: described(comparison.first), of_second=False)
    return first, comparison.shared((*key, "second"), lambda: described(comparison.second))


def frechet_interval(
    a: FeatureSet, b: FeatureSet, value: float, *, resamples: int, seed: int, progress: Callable[[int, int], None]
) -> Interval:
    """Return ``value`` -/+ 1.96 standard deviations of the distance over resampled lesions.

    A resample holds copies, which moves every resampled distance up: their spread is used, and not their position.
    """
    if min(a.groups.count, b.groups.count) < 2:
        return None, None
    draws = [x.groups.draws(resamples, str(seed), side) for x, side in ((a, "first"), (b, "second"))]
    found = []
    for times_a, times_b in zip(*draws, strict=True):
        rows = [x.features[_rows(x.groups, times)] for x, times in ((a, times_a), (b, times_b))]
        if min(map(len, rows)) > 1:
            found.append(frechet_of_gaussians(rows[0], rows[1]))
        progress(len(found), resamples)
    return normal_interval(value, torch.tensor(found, dtype=torch.float64))


def kernel_interval(a: FeatureSet, b: FeatureSet, *, resamples: int, seed: int) -> Interval:
    """Return the percentile interval of the unbiased squared MMD over resampled lesions.

    A lesion drawn twice is not compared with its own copy, which would pass for likeness.
    """
    if min(a.groups.count, b.groups.count) < 2:
        return None, None
    draw_a, draw_b = (x.groups.draws(resamples, str(seed), side) for x, side in ((a, "first"), (b, "second")))
    between = ((draw_a @ _summed_kernel(a, b)) * draw_b).sum(1) / ((draw_a @ _pairs(a, b)) * draw_b).sum(1)
    return percentile_interval(_within(a, draw_a) + _within(b, draw_b) - 2 * between)


def _within(x: FeatureSet, draws: Tensor) -> Tensor:
    """Return (R,) mean kernels of two different images, those of one lesion counted once for each time it was drawn."""
    own = polynomial_kernel(x.features.square().sum(1), x.features.shape[1])
    sums = _summed_kernel(x, x) - torch.diag(x.groups.summed(own))
    counts = _pairs(x, x) - torch.diag(x.groups.summed(torch.ones_like(own)))
    extra = draws.square() - draws
    totals = [((draws @ table) * draws).sum(1) - extra @ table.diagonal() for table in (sums, counts)]
    return totals[0] / totals[1]


def _summed_kernel(a: FeatureSet, b: FeatureSet) -> Tensor:
    """Return (G_a, G_b) sums of the kernel over all pairs of images of two lesions."""
    width = a.features.shape[1]
    rows = [
        b.groups.summed(polynomial_kernel(part @ b.features.T, width), dim=1) for part in a.features.split(CHUNK_ROWS)
    ]
    return a.groups.summed(torch.cat(rows))


def _pairs(a: FeatureSet, b: FeatureSet) -> Tensor:
    sizes = [x.groups.summed(torch.ones(len(x.features), dtype=torch.float64)) for x in (a, b)]
    return torch.outer(sizes[0], sizes[1])


def _rows(groups: Groups, times: Tensor) -> Tensor:
    return torch.arange(len(groups.index)).repeat_interleave(times[groups.index].long())
