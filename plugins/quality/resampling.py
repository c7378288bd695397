"""Bootstrap over lesions: whole groups of images are drawn with replacement (Efron and Tibshirani 1993)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ...core.seeding import name_seed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

NORMAL_95 = 1.959964


@dataclass(frozen=True)
class Groups:
    """Which of ``count`` lesions each image shows.

    Attributes:
        index: (n,) int64 group of each image.
        count: number of groups.
    """

    index: Tensor
    count: int

    @classmethod
    def of(cls, lesions: Sequence[str]) -> Groups:
        """Number the lesions in the order of their first image."""
        numbers = {lesion: number for number, lesion in enumerate(dict.fromkeys(lesions))}
        return cls(torch.tensor([numbers[lesion] for lesion in lesions], dtype=torch.int64), len(numbers))

    def summed(self, values: Tensor, dim: int = 0) -> Tensor:
        """Return ``values`` added up within each group along ``dim``."""
        shape = list(values.shape)
        shape[dim] = self.count
        return values.new_zeros(shape).index_add_(dim, self.index, values)

    def draws(self, resamples: int, *names: str) -> Tensor:
        """Return (resamples, count) float64: how often each group was drawn; ``names`` seed the draws."""
        rng = np.random.default_rng(name_seed("bootstrap", *names))
        times = rng.multinomial(self.count, np.full(self.count, 1 / self.count), size=resamples)
        return torch.from_numpy(times).double()


def percentile_interval(values: Tensor) -> tuple[float | None, float | None]:
    """Return the 2.5 % and 97.5 % quantiles of the resampled values that exist, None where fewer than two do."""
    finite = values[values.isfinite()]
    if len(finite) < 2:
        return None, None
    low, high = np.quantile(finite.numpy(), (0.025, 0.975))
    return float(low), float(high)


def normal_interval(value: float, resampled: Tensor) -> tuple[float | None, float | None]:
    """Return ``value`` -/+ 1.96 standard deviations of the resampled values, not below zero."""
    if len(resampled) < 2:
        return None, None
    half = NORMAL_95 * float(resampled.std())
    return max(0.0, value - half), value + half
