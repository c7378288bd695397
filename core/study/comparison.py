"""One arm against another by one measure on one test set: numbers, and what follows from them in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..bootstrap import Interval
from ..report.wording import count, plural, signed
from .grid import Amount
from .measures import Measure
from .statistics import FEWEST_SEEDS, LEVEL, ImageTests, SeedTests


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


def tallies(comparisons: Sequence[Comparison]) -> list[str]:
    """Return one line a measure: how many comparisons there are, and how many of them found what."""
    lines = []
    for label in dict.fromkeys(comparison.measure.label for comparison in comparisons):
        findings = Counter(comparison.finding for comparison in comparisons if comparison.measure.label == label)
        told = ", ".join(f"{finding} in {count(number)}" for finding, number in findings.most_common())
        lines.append(f"{label}, {plural(findings.total(), 'comparison')}: {told}")
    return lines


def few_runs(comparisons: Sequence[Comparison]) -> bool:
    """True where some comparison rests on fewer runs than can carry a claim."""
    return any(comparison.interval.runs < FEWEST_SEEDS for comparison in comparisons)
