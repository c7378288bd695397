"""What a search makes as small or as large as it can: a metric, a score, the share kept, or a validation curve."""

from __future__ import annotations

import csv
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..chain import Chain, StageSpec, parse_call
from ..errors import ConfigError, DataError
from ..recipe import JOB_REFERENCE

if TYPE_CHECKING:
    from pathlib import Path

    from ..dataset import Dataset
    from ..recipe import Recipe
    from ..registry import Registry
    from ..run import Run

DIRECTIONS = ("minimize", "maximize")
KEPT = "kept"
SCORE_PREFIX = "score:"
CURVE_PREFIX = "val_"
HIGHER_IS_BETTER = {
    **dict.fromkeys(("dice", "iou", "accuracy", "auc", "auroc", "f1", "confidence"), True),
    **dict.fromkeys(("loss", "distance"), False),
}
"""By a word in the name of a score or curve."""


@dataclass(frozen=True)
class Found:
    """What was measured of a trial: the number's name, the number, and its 95 % interval where there is one."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Surroundings:
    """What measuring needs beside the trial's run.

    Attributes:
        real: the real split that metrics compare with, None where none is needed.
        trained: folder of the trainings that all trials share.
        progress: called with (metric, done, total).
    """

    real: Dataset | None
    trained: Path
    device: str
    seed: int
    registry: Registry | None
    progress: Callable[[str, int, int], None]


@dataclass(frozen=True)
class Objective(ABC):
    """One number of a trial, and whether less or more of it is better.

    Attributes:
        text: the objective as the user wrote it.
        direction: ``minimize`` or ``maximize``.
    """

    text: str
    direction: str

    needs_real = False

    @property
    def needs_cases(self) -> bool:
        """True where the chain must make cases for it."""
        return True

    @property
    def trainings(self) -> tuple[str, ...]:
        """Names of the trainings that it is measured with."""
        return ()

    def refusal(self, surroundings: Surroundings, count: int) -> str | None:
        """Return why no trial of ``count`` cases could be measured, as far as that is known beforehand."""
        return None

    @abstractmethod
    def measure(self, run: Run, surroundings: Surroundings) -> Found:
        """Measure a finished trial of which at least one case was accepted.

        Raises:
            DataError: these cases do not allow it.
            ConfigError: no trial of this search could.
        """


class KeptShare(Objective):
    """The share of cases that no filter rejected."""

    def measure(self, run: Run, surroundings: Surroundings) -> Found:
        summary = run.summary()
        return Found("share kept", summary["kept"] / summary["cases"])


@dataclass(frozen=True)
class ScoreMean(Objective):
    """The mean of a score over accepted cases."""

    score: str

    def measure(self, run: Run, surroundings: Surroundings) -> Found:
        values = []
        for case in run.cases(kept=True):
            if self.score not in case.scores:
                there = ", ".join(case.scores) or "none"
                raise ConfigError(f"--metric {self.text}: no score is called {self.score!r}; cases have {there}")
            values.append(case.scores[self.score])
        finite = [value for value in values if value is not None]
        if len(finite) < len(values):
            raise DataError(f"score {self.score} of {len(values) - len(finite)} accepted cases is not finite")
        return Found(f"mean {self.score}", math.fsum(finite) / len(finite))


@dataclass(frozen=True)
class DatasetMetric(Objective):
    """A metric plugin between the real split and the accepted cases."""

    plugin: str
    values: Mapping[str, Any]

    needs_real = True

    @property
    def trainings(self) -> tuple[str, ...]:
        return tuple(referred(self.values))

    def refusal(self, surroundings: Surroundings, count: int) -> str | None:
        from ..batch import case_id
        from ..dataset import Dataset
        from ..metrics import why_not

        real = surroundings.real
        assert real is not None
        # Only its number of images is looked at, and that its ids are those of cases.
        rows = [row % len(real) for row in range(count)]
        records = (replace(real.records[row], image_id=case_id(place)) for place, row in enumerate(rows))
        stand_in = Dataset(real.name, tuple(records), real.size, real.phantom)
        return why_not(
            real, stand_in, self._expression(surroundings), device=surroundings.device, registry=surroundings.registry
        )

    def measure(self, run: Run, surroundings: Surroundings) -> Found:
        from ..metrics import compare

        real, cases = surroundings.real, run.dataset()
        assert real is not None
        if not len(cases):
            raise DataError("the chain makes no images, so there are none to compare with real ones")
        size = real.size or edge_of(cases)
        results = compare(
            real.resized(size),
            cases.resized(size),
            [self._expression(surroundings)],
            device=surroundings.device,
            seed=surroundings.seed,
            progress=surroundings.progress,
            registry=surroundings.registry,
        )
        if results.refused:
            raise DataError(results.refused[0].reason)
        (found,) = results.measured
        return Found(found.name, found.value, found.low, found.high)

    def _expression(self, surroundings: Surroundings) -> str:
        return str(StageSpec(self.plugin, with_trained(self.values, surroundings.trained)))


@dataclass(frozen=True)
class ValidationCurve(Objective):
    """The best value of a curve that a training measures on the validation split."""

    job: str
    column: str
    after_synthesis: bool

    needs_real = True

    @property
    def needs_cases(self) -> bool:
        return self.after_synthesis

    @property
    def trainings(self) -> tuple[str, ...]:
        return (self.job,)

    def measure(self, run: Run, surroundings: Surroundings) -> Found:
        file = run.store.jobs / self.job / "curves.csv"
        try:
            with file.open(encoding="utf-8", newline="") as table:
                rows = list(csv.DictReader(table))
        except FileNotFoundError:
            rows = []
        values = [float(row[self.column]) for row in rows if row.get(self.column)]
        if not values:
            there = ", ".join(name for name in (rows[0] if rows else ()) if name.startswith(CURVE_PREFIX)) or "none"
            raise ConfigError(
                f"--metric {self.text}: training {self.job} measured no {self.column!r} on the validation split; "
                f"validation curves it has: {there}"
            )
        finite = [value for value in values if math.isfinite(value)]
        if not finite:
            raise DataError(f"{self.column} of training {self.job} was never finite")
        return Found(f"best {self.column} of {self.job}", (min if self.direction == "minimize" else max)(finite))


def read_objective(text: str, direction: str | None, recipe: Recipe, registry: Registry) -> Objective:
    """Return the objective that ``text`` means: ``kept``, ``score:NAME``, ``TRAINING.val_NAME`` or a metric.

    Raises:
        ConfigError: it is none of them, is measured on the test split, or its direction is not known.
        PluginError: no metric has that name.
    """
    if direction is not None and direction not in DIRECTIONS:
        raise ConfigError(f"--direction {direction}: take {' or '.join(DIRECTIONS)}")
    text = text.strip()
    if text == KEPT:
        return KeptShare(text, direction or "maximize")
    if text.startswith(SCORE_PREFIX):
        score = text.removeprefix(SCORE_PREFIX).strip()
        return ScoreMean(text, direction or _by_name(score, text), score)
    if "." in text and "(" not in text:
        return _read_curve(text, direction, recipe)
    name, values, location = parse_call(text)
    if location is not None:
        raise ConfigError(f"--metric {text}: write kept, score:NAME, TRAINING.val_NAME, or a metric as name(key=value)")
    own = Chain(recipe.metrics)
    if text in own.keys:  # a metric of the recipe's report, with its settings there
        spec = own.stages[own.keys.index(text)]
        name, values = spec.plugin, dict(spec.values)
    plugin: Any = registry.find(name, "metric").plugin
    registry.configured(plugin, values, where=f"--metric {name}")
    if direction is None and plugin.higher_is_better is None:
        raise ConfigError(f"--metric {text}: whether more of it is better is not known; add --direction")
    known = "maximize" if plugin.higher_is_better else "minimize"
    return DatasetMetric(text, direction or known, name, values)


def _read_curve(text: str, direction: str | None, recipe: Recipe) -> Objective:
    name, _, column = text.rpartition(".")
    jobs = {job.name: job for job in recipe.jobs}
    if name not in jobs:
        raise ConfigError(f"--metric {text}: no training is called {name!r}; there are {', '.join(jobs) or 'none'}")
    if not column.startswith(CURVE_PREFIX):
        raise ConfigError(
            f"--metric {text}: the metrics of a training are measured on the test split, and choosing settings by them "
            f"would leak it; take one of its validation curves, such as {name}.{CURVE_PREFIX}{column}"
        )
    return ValidationCurve(text, direction or _by_name(column, text), name, column, jobs[name].after_synthesis)


def _by_name(name: str, text: str) -> str:
    known = {HIGHER_IS_BETTER[word] for word in name.split("_") if word in HIGHER_IS_BETTER}
    if len(known) != 1:
        raise ConfigError(f"--metric {text}: whether more of it is better is not known; add --direction")
    return "maximize" if known.pop() else "minimize"


def edge_of(dataset: Dataset) -> int:
    """Return the edge in pixels of a dataset's square images; raises DataError where the first is not square."""
    height, width = dataset.image(0).shape[:2]
    if height != width:
        raise DataError(f"images of {width}x{height} pixels are not square; give a size to compare at: data.size")
    return height


def referred(values: Mapping[str, Any]) -> list[str]:
    """Return the names of the trainings that configured values refer to as ``train:NAME``."""
    texts = [value for value in values.values() if isinstance(value, str)]
    return [text.removeprefix(JOB_REFERENCE) for text in texts if text.startswith(JOB_REFERENCE)]


def with_trained(values: Mapping[str, Any], trained: Path, only: frozenset[str] | None = None) -> dict[str, Any]:
    """Return ``values`` in which ``train:NAME`` is that training's folder below ``trained``; ``only`` those names."""

    def changed(value: Any) -> Any:
        names = referred({"": value})
        return str(trained / names[0]) if names and (only is None or names[0] in only) else value

    return {key: changed(value) for key, value in values.items()}
