"""Means of a score over pairs of images, with percentile intervals over lesions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ...core.metrics import Measurement
from .pairing import Pairs, PairScore, pairs_by_id, pairs_by_mask, random_pairs, scored
from .resampling import Groups, percentile_interval

if TYPE_CHECKING:
    from torch import Tensor

    from ...core.dataset import Dataset
    from ...core.metrics import Comparison


@dataclass(frozen=True)
class ChosenPairs:
    """Pairs of rows of two datasets, and how their lesions are resampled.

    Attributes:
        first, second: the datasets that the rows belong to; the same one for pairs within it.
        rows: the pairs.
        resampled: lesions of both ends of each pair; one entry where both ends stand or fall together.
        apart: True where the ends belong to two datasets that are resampled independently.
    """

    first: Dataset
    second: Dataset
    rows: Pairs
    resampled: tuple[Groups, ...]
    apart: bool

    def mean(
        self, name: str, score: PairScore, conventions: Mapping[str, Any], resamples: int, comparison: Comparison
    ) -> Measurement:
        """Return the mean of ``score`` over the pairs."""
        values = scored(self.first, self.second, self.rows, score, comparison.context)
        low, high = percentile_interval(self._resampled_means(values, resamples, comparison.context.seed))
        ends = list(zip(*self.rows, strict=True))
        sides = list(zip((self.first, self.second), ends, strict=True))
        lesions = [len({data.records[row].lesion for row in rows}) for data, rows in sides]
        return Measurement(
            name=name,
            value=float(values.mean()),
            low=low,
            high=high,
            images=(len(set(ends[0])), len(set(ends[1]))),
            groups=(lesions[0], lesions[1]),
            pairs=len(values),
            conventions=conventions,
        )

    def _resampled_means(self, values: Tensor, resamples: int, seed: int) -> Tensor:
        """Return (resamples,) means, each pair weighted by how often the lesions of its ends were drawn."""
        if min(groups.count for groups in self.resampled) < 2:
            return values.new_empty(0)
        weights = values.new_ones(resamples, len(values))
        for number, groups in enumerate(self.resampled):
            side = str(number if self.apart else 0)  # both ends within one dataset follow the same draws
            weights *= groups.draws(resamples, str(seed), side)[:, groups.index]
        return (weights @ values) / weights.sum(1)


def same_cases(first: Dataset, second: Dataset, pair_by: str) -> ChosenPairs:
    """Return the pairs of one case each, resampled by the lesions of the dataset that groups them more.

    Raises:
        DataError: there are no pairs.
    """
    rows = pairs_by_id(first, second) if pair_by == "id" else pairs_by_mask(first, second)
    ends = list(zip(*rows, strict=True))
    sides = zip((first, second), ends, strict=True)
    groups = [Groups.of([data.records[row].lesion for row in chosen]) for data, chosen in sides]
    return ChosenPairs(first, second, rows, (min(groups, key=lambda found: found.count),), apart=True)


def drawn_pairs(first: Dataset, second: Dataset, among: str, count: int, seed: int) -> ChosenPairs:
    """Return random pairs ``between`` both datasets, or within the ``first`` or the ``second``.

    Raises:
        DataError: pairs within a dataset of one lesion.
    """
    if among != "between":
        first = second = first if among == "first" else second
    lesions = [[record.lesion for record in data.records] for data in (first, second)]
    rows = random_pairs(lesions[0], lesions[1] if among == "between" else None, count, seed)
    numbered = [Groups.of(names) for names in lesions]
    ends = [torch.tensor(end) for end in zip(*rows, strict=True)]
    groups = tuple(Groups(every.index[end], every.count) for every, end in zip(numbered, ends, strict=True))
    return ChosenPairs(first, second, rows, groups, apart=among == "between")
