"""Arm against arm: differences on the same test images, with intervals, tests, and what follows in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..bootstrap import Interval, Numbers, Resampling
from ..report.wording import count, plural, signed
from ..seeding import name_seed
from .grid import Amount
from .measures import CLASS_RATES, MEASURES, Measure, class_pseudo_values
from .outcomes import Outcome
from .statistics import FEWEST_SEEDS, LEVEL, ImageTests, SeedTests, holm, image_tests, mean_and_spread, seed_tests

if TYPE_CHECKING:
    from .recipe import Study

Group = tuple[str, str, int | str, Amount | None, str]


@dataclass(frozen=True)
class Comparison:
    """One arm against another by one measure on one test set.

    Attributes:
        arm, against: names of the arms; differences are the former minus the latter.
        real_count: which number of real images both stand at, as the study has it.
        cases, cases_against: real and synthetic training cases of both arms.
        means: of both arms over runs.
        interval: over runs and lesions; over runs alone for what is no mean over images.
        images: tests over images, None for what is no mean over images.
        seeds: tests over runs.
        left_out: images on which the measure is not defined in every run.
        family: number of comparisons by this measure on this test set.
        p_holm: the interval's p-value, adjusted over the family.
    """

    model: str
    arm: str
    against: str
    real_count: int | str
    amount: Amount | None
    cases: tuple[int, int]
    cases_against: tuple[int, int]
    test: str
    measure: Measure
    means: tuple[float, float]
    interval: Interval
    images: ImageTests | None
    seeds: SeedTests
    left_out: int
    family: int = 1
    p_holm: float | None = None

    @property
    def place(self) -> str:
        """What is compared with what: ``unet, R+S (50 real + 102 synthetic) against R (50 real)``."""
        arms = ((self.arm, self.cases), (self.against, self.cases_against))
        told = (f"{name} ({' + '.join(_counts(*cases))})" for name, cases in arms)
        return f"{self.model}, {' against '.join(told)}"

    @property
    def outcome(self) -> str:
        """``gain``, ``loss`` or ``none``: which side of zero the interval lies on, and which way is better."""
        low, high = self.interval.low, self.interval.high
        if low <= 0 <= high:
            return "none"
        return "gain" if (low > 0) == self.measure.higher else "loss"

    @property
    def finding(self) -> str:
        """The verdict without its numbers."""
        if self.outcome == "none":
            return "no gain shown"
        if self.interval.runs == 1:
            return f"{self.outcome} on these test images by one training, which cannot carry a claim"
        if self.p_holm is not None and self.p_holm > LEVEL:
            return f"{self.outcome} that does not survive the number of comparisons"
        return self.outcome

    @property
    def verdict(self) -> str:
        """What follows from the numbers, in words."""
        found, unit = self.interval, self.measure.unit
        mean, low, high = (signed(self.measure.shown(value)) for value in (found.mean, found.low, found.high))
        told = (
            f"{self.finding}: {mean} {unit}, 95 % CI {low} to {high}, {_seeds(found.runs)}, n = {count(found.images)}"
        )
        if self.outcome == "none" or found.p is None:
            return told
        told += f", {_p(found.p)}"
        if self.family > 1 and self.p_holm is not None:
            told += f", {_p(self.p_holm)} after Holm's correction for {self.family} comparisons"
        return told

    def row(self) -> dict[str, Any]:
        """Return the comparison as one row of a tidy table; differences are in the measure's own scale."""
        found, images = self.interval, self.images
        return {
            "model": self.model,
            "arm": self.arm,
            "against": self.against,
            "real_count": self.cases[0],
            "synthetic_count": self.cases[1],
            "real_count_against": self.cases_against[0],
            "synthetic_count_against": self.cases_against[1],
            "test": self.test,
            "metric": self.measure.name,
            "mean": self.means[0],
            "mean_against": self.means[1],
            "difference": found.mean,
            "low": found.low,
            "high": found.high,
            "standard_error": found.standard_error,
            "degrees_of_freedom": found.degrees_of_freedom,
            "p": found.p,
            "p_holm": self.p_holm,
            "family": self.family,
            "runs": found.runs,
            "images": found.images,
            "lesions": found.groups,
            "left_out": self.left_out,
            "cohen_dz": images.dz if images else None,
            "rank_biserial": images.rank_biserial if images else None,
            "p_image_t": images.t_p if images else None,
            "p_image_wilcoxon": images.wilcoxon_p if images else None,
            "p_seed_t": self.seeds.t_p,
            "p_seed_wilcoxon": self.seeds.wilcoxon_p,
            "smallest_p_seed_wilcoxon": self.seeds.smallest_rank_p,
            "outcome": self.outcome,
            "verdict": self.verdict,
        }


def _p(value: float) -> str:
    return "p < 1e-15" if value < 1e-15 else f"p = {value:.2g}"


def _counts(real: int, synthetic: int) -> list[str]:
    return [f"{count(number)} {kind}" for number, kind in ((real, "real"), (synthetic, "synthetic")) if number]


def _seeds(runs: int) -> str:
    return "1 run" if runs == 1 else f"{runs} runs"


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


def few_runs(comparisons: Sequence[Comparison]) -> bool:
    """True where some comparison rests on fewer runs than can carry a claim."""
    return any(comparison.interval.runs < FEWEST_SEEDS for comparison in comparisons)


def tallies(comparisons: Sequence[Comparison]) -> list[str]:
    """Return one line a measure: how many comparisons there are, and how many of them found what."""
    lines = []
    for label in dict.fromkeys(comparison.measure.label for comparison in comparisons):
        findings = Counter(comparison.finding for comparison in comparisons if comparison.measure.label == label)
        told = ", ".join(f"{count(number)} {finding}" for finding, number in findings.most_common())
        lines.append(f"{label}, {plural(findings.total(), 'comparison')}: {told}")
    return lines
