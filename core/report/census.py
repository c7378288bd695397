"""One pass over a run's ledger: counts, reasons, and small even samples of its cases, whatever the run's length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..run import Case, Run
from .statistics import EvenSample
from .wording import number

SCORED_CASES = 4000
MEASURED_CASES = 400
EXAMPLES = 4

Side = Literal["above", "below", "not finite"]


@dataclass
class Reason:
    """All rejections by one plugin because one score lies on one side of its limit.

    Attributes:
        plugin, score, side: what was wrong.
        count: number of cases.
        limits: smallest and largest threshold met; a plugin may have one for each case.
        examples: the first few such cases.
    """

    plugin: str
    score: str
    side: Side
    count: int = 0
    limits: tuple[float, ...] = ()
    examples: list[Case] = field(default_factory=list)

    @property
    def words(self) -> str:
        """The reason, such as ``mask_area below 0.01``."""
        if self.side == "not finite":
            return f"{self.score} not a finite number"
        return f"{self.score} {self.side} {' to '.join(number(limit, 4) for limit in self.limits) or 'its limit'}"

    def add(self, case: Case) -> None:
        """Count one case."""
        self.count += 1
        threshold = case.verdict["threshold"]
        if threshold is not None:
            met = {*self.limits, threshold}
            self.limits = tuple(sorted({min(met), max(met)}))
        if len(self.examples) < EXAMPLES:
            self.examples.append(case)


@dataclass
class Census:
    """What the report needs of all cases. Pixels stay on disk.

    Attributes:
        total, kept: numbers of committed and of accepted cases.
        labels: number of accepted cases by class name.
        scored: (scores, kept) of an even sample of all cases.
        accepted: an even sample of the accepted cases.
    """

    total: int = 0
    kept: int = 0
    labels: Counter[str | None] = field(default_factory=Counter)
    scored: EvenSample[tuple[dict[str, float | None], bool]] = field(default_factory=lambda: EvenSample(SCORED_CASES))
    accepted: EvenSample[Case] = field(default_factory=lambda: EvenSample(MEASURED_CASES))
    _reasons: dict[tuple[str, str, Side], Reason] = field(default_factory=dict)

    @property
    def rejected(self) -> int:
        """Number of cases that a filter turned down."""
        return self.total - self.kept

    @property
    def reasons(self) -> list[Reason]:
        """Reasons for rejection, the most frequent first."""
        return sorted(self._reasons.values(), key=lambda reason: (-reason.count, reason.plugin, reason.score))

    def limits(self, score: str) -> list[float]:
        """Return the thresholds of ``score`` at which cases were rejected."""
        return sorted({limit for reason in self.reasons if reason.score == score for limit in reason.limits})

    def add(self, case: Case) -> None:
        """Count one case."""
        self.total += 1
        self.scored.add((dict(case.scores), case.kept))
        if case.kept:
            self.kept += 1
            self.labels[case.label] += 1
            self.accepted.add(case)
            return
        key = (case.verdict["by"], case.verdict["score"], side_of(case.verdict))
        self._reasons.setdefault(key, Reason(*key)).add(case)


def side_of(verdict: Mapping[str, Any]) -> Side:
    """Return on which side of its limit a rejected case's score lies."""
    value, threshold = verdict["value"], verdict["threshold"]
    if value is None or threshold is None:
        return "not finite"
    return "above" if value > threshold else "below"


def take_census(run: Run) -> Census:
    """Read the ledger once.

    Raises:
        StoreError: a ledger is damaged.
    """
    census = Census()
    for case in run.cases():
        census.add(case)
    return census
