"""Arm against arm: differences on the same test images, with intervals and tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..bootstrap import Interval, Numbers, Resampling
from ..seeding import name_seed
from .comparison import Comparison
from .grid import Amount
from .measures import CLASS_RATES, MEASURES, Measure, class_pseudo_values
from .outcomes import Outcome
from .statistics import ImageTests, SeedTests, holm, image_tests, mean_and_spread, seed_tests

if TYPE_CHECKING:
    from .recipe import Study

Group = tuple[str, str, int | str, Amount | None, str]


def compare(study: Study, outcomes: Sequence[Outcome], lesions: Mapping[str, Mapping[str, str]]) -> list[Comparison]:
    """Return every arm against the arm of real images alone, and the pairs that the study names.

    Args:
        lesions: lesion of every image, by test set.
    """
    by_group: dict[Group, dict[tuple[int, int], Outcome]] = {}
    for outcome in outcomes:
        row = outcome.row
        group = (row.model, row.arm, row.real_count, row.amount, outcome.test)
        by_group.setdefault(group, {})[outcome.repetition] = outcome
    comparer = _Comparer(lesions, {})
    found = [
        comparison
        for group, against in _pairs(study, by_group)
        for comparison in comparer.compare(group, by_group[group], against, by_group[against])
    ]
    return _corrected(found)


def _pairs(study: Study, groups: Mapping[Group, Any]) -> Iterator[tuple[Group, Group]]:
    """Yield what is compared with what: arms of one model, number of real images and test set."""
    wanted = [(arm, study.baseline) for arm in study.arm_names if study.baseline not in (None, arm)]
    wanted += [pair for pair in study.settings.compare if pair not in wanted]
    for group in groups:
        model, arm, real_count, amount, test = group
        for against in (second for first, second in wanted if first == arm):
            others = [g for g in groups if g[:3] == (model, against, real_count) and g[4] == test]
            alike = [g for g in others if g[3] == amount] or (others if len(others) == 1 else [])
            yield from ((group, other) for other in alike)


@dataclass(frozen=True)
class _Comparer:
    """Compares; draws are shared by all comparisons of so many runs on the same lesions."""

    lesions: Mapping[str, Mapping[str, str]]
    resamplings: dict[tuple[int, tuple[str, ...]], Resampling]

    def compare(
        self,
        group: Group,
        ours: Mapping[tuple[int, int], Outcome],
        other: Group,
        theirs: Mapping[tuple[int, int], Outcome],
    ) -> Iterator[Comparison]:
        """Yield one comparison for each measure that both arms have, unless their trainings are the same."""
        shared = sorted(ours.keys() & theirs.keys())
        pairs = [(ours[run], theirs[run]) for run in shared]
        if not pairs or all(a.cell.key == b.cell.key for a, b in pairs):
            return
        for measure in MEASURES.values():
            values = [(a.metrics.get(measure.name), b.metrics.get(measure.name)) for a, b in pairs]
            known = [(a, b) for a, b in values if a is not None and b is not None]
            if len(known) < len(pairs):
                continue
            numbers = self._difference(measure, pairs, np.array(known))
            if numbers is None:
                continue
            interval, images, seeds, left_out = numbers
            first, second = pairs[0][0].cell, pairs[0][1].cell
            yield Comparison(
                model=group[0],
                arm=group[1],
                against=other[1],
                real_count=group[2],
                amount=group[3],
                cases=(first.real_count, first.synthetic_count),
                cases_against=(second.real_count, second.synthetic_count),
                test=group[4],
                measure=measure,
                means=(mean_and_spread([a for a, _ in known])[0], mean_and_spread([b for _, b in known])[0]),
                interval=interval,
                images=images,
                seeds=seeds,
                left_out=left_out,
            )

    def _difference(
        self, measure: Measure, pairs: Sequence[tuple[Outcome, Outcome]], metrics: Numbers
    ) -> tuple[Interval, ImageTests | None, SeedTests, int] | None:
        """Return interval, tests over images, tests over runs and the number of images left out."""
        lesions = self.lesions[pairs[0][0].test]
        if measure.column is not None:
            images = [
                image for image in pairs[0][0].images if all(image in b.images and image in a.images for a, b in pairs)
            ]
            matrix = np.array([_column(a, images, measure) - _column(b, images, measure) for a, b in pairs])
            defined = np.isfinite(matrix).all(axis=0)
            if not defined.any():
                return None
            groups = tuple(
                lesions.get(image, image) for image, ok in zip(images, np.atleast_1d(defined), strict=True) if ok
            )
            matrix = matrix[:, defined]
            interval = self._resampling(len(pairs), groups).interval(matrix)
            return interval, image_tests(matrix), seed_tests(matrix), int((~defined).sum())
        per_run = (metrics[:, 0] - metrics[:, 1])[:, None]
        if measure.name in CLASS_RATES and all("predicted" in row for a, _ in pairs for row in a.images.values()):
            found = _pseudo_differences(measure, pairs, lesions)
            if found is not None:
                matrix, names, images = found
                # The jackknife tells how the rate varies; where it lies is what the trainer measured.
                matrix = matrix - matrix.mean(axis=1, keepdims=True) + per_run
                interval = replace(self._resampling(len(pairs), names).interval(matrix), images=images)
                return interval, None, seed_tests(per_run), 0
        if len(pairs) < 2:
            return None
        # Nothing tells how much such a number depends on the test images, so the interval is over runs alone.
        interval = self._resampling(len(pairs), ("",)).interval(per_run)
        return replace(interval, images=len(pairs[0][0].images), groups=0), None, seed_tests(per_run), 0

    def _resampling(self, runs: int, groups: tuple[str, ...]) -> Resampling:
        key = runs, groups
        if key not in self.resamplings:
            self.resamplings[key] = Resampling(runs, groups, seed=name_seed("study"))
        return self.resamplings[key]


def _column(outcome: Outcome, images: Sequence[str], measure: Measure) -> Numbers:
    values = outcome.values(str(measure.column))
    return np.array([values[image] for image in images], np.float64)


def _pseudo_differences(
    measure: Measure, pairs: Sequence[tuple[Outcome, Outcome]], lesions: Mapping[str, str]
) -> tuple[Numbers, tuple[str, ...], int] | None:
    """Return (runs, lesions) differences of pseudo-values, the lesions, and the number of images."""
    rows = []
    names: list[str] = []
    for pair in pairs:
        found = []
        for outcome in pair:
            images = list(outcome.images)
            truth, predicted = ([outcome.images[image][name] for image in images] for name in ("label", "predicted"))
            values, names = class_pseudo_values(truth, predicted, [lesions.get(image, image) for image in images])
            found.append(values[measure.name])
        rows.append(found[0] - found[1])
    matrix = np.array(rows)
    return (matrix, tuple(names), len(pairs[0][0].images)) if np.isfinite(matrix).all() else None


def _corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Return the comparisons with Holm's correction over all that share measure and test set."""
    families: dict[tuple[str, str], list[int]] = {}
    for place, comparison in enumerate(comparisons):
        families.setdefault((comparison.measure.name, comparison.test), []).append(place)
    corrected = list(comparisons)
    for places in families.values():
        adjusted = holm([comparisons[place].interval.p for place in places])
        for place, p in zip(places, adjusted, strict=True):
            corrected[place] = replace(comparisons[place], family=len(places), p_holm=p)
    return corrected
