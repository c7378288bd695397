"""A search as people look at it: its trials, the best one, and the table, recipe and picture that come of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..chain import write_value
from ..durable import read_json, write_text
from ..errors import StoreError
from ..recipe import Recipe
from ..registry import Registry, default_registry
from ..run import Run
from .spaces import Space

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .search import Search

PLAN = "tuning.json"
PLAN_KEYS = {"recipe", "search", "metric", "direction", "split", "count", "min_kept", "trials", "data", "machine"}


@dataclass(frozen=True)
class Trial:
    """One finished trial.

    Attributes:
        number: 0 for the first one.
        values: what was tried, by ``stage.key`` or ``training.key``.
        value: the objective, None where the trial failed.
        low, high: its 95 % interval, None where none was computed.
        measured: what the number is called, with the network that it was measured in.
        cases, kept: cases made and accepted; None where the trial made none or did not get so far.
        reason: why it failed, None where it did not.
        run: its run folder.
    """

    number: int
    values: Mapping[str, Any]
    value: float | None
    low: float | None
    high: float | None
    measured: str | None
    cases: int | None
    kept: int | None
    reason: str | None
    run: Path

    def as_dict(self) -> dict[str, Any]:
        """Return the trial as values that JSON can hold."""
        return {**vars(self), "values": dict(self.values), "run": str(self.run)}


class Places:
    """Paths of a search's folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.plan = root / PLAN
        self.study = root / "study.sqlite3"
        self.shared = root / "shared"
        self.trained = self.shared / "train"
        self.history = root / "history.csv"
        self.picture = root / "history.png"
        self.best = root / "best.toml"

    def trial(self, number: int) -> Path:
        """Return the run folder of a trial."""
        return self.root / "trials" / f"{number:04d}"


class Tuning:
    """The folder of a search, opened for reading; the trials are read once."""

    def __init__(self, root: str | Path) -> None:
        """Open the folder ``root``; raises StoreError where it holds no search."""
        self.places = Places(Path(root))
        if not self.places.plan.is_file():
            raise StoreError(f"{root} holds no search: it has no {PLAN}")

    def __repr__(self) -> str:
        return f"Tuning({str(self.path)!r})"

    @property
    def path(self) -> Path:
        """The folder."""
        return self.places.root

    @cached_property
    def plan(self) -> dict[str, Any]:
        """What the search was begun with; raises StoreError where the file is damaged."""
        plan = read_json(self.places.plan)
        if not isinstance(plan, dict) or not plan.keys() >= PLAN_KEYS:
            raise StoreError(f"{self.places.plan} is damaged: it lacks entries that every search has")
        return plan

    @property
    def direction(self) -> str:
        """``minimize`` or ``maximize``."""
        return self.plan["direction"]

    @cached_property
    def spaces(self) -> tuple[Space, ...]:
        """The values that are tried."""
        return tuple(Space.from_dict(table) for table in self.plan["search"])

    def search(self, *, trials: int | None = None, registry: Registry | None = None) -> Search:
        """Return the search as it was planned, or with another number of trials; raises what planning it does."""
        from .search import plan_search

        plan = self.plan
        return plan_search(
            self.recipe,
            [f"{space.path}={space.written}" for space in self.spaces],
            plan["metric"],
            trials=trials or plan["trials"],
            count=plan["count"] or None,
            min_kept=plan["min_kept"],
            direction=plan["direction"],
            split=plan["split"],
            registry=registry or default_registry(),
        )

    @cached_property
    def recipe(self) -> Recipe:
        """The tuned recipe as it was given."""
        return Recipe.from_toml(self.plan["recipe"], where=str(self.places.plan))

    @cached_property
    def trials(self) -> tuple[Trial, ...]:
        """The finished trials by number; raises PluginError where Optuna is not installed."""
        from .sampling import StudyFile, tried_values

        if not self.places.study.exists():
            return ()
        found = []
        for trial in StudyFile(self.places.study, self.direction).trials():
            facts = {key: trial.user_attrs.get(key) for key in ("low", "high", "measured", "cases", "kept", "reason")}
            values, run = tried_values(self.spaces, trial), self.places.trial(trial.number)
            found.append(Trial(number=trial.number, values=values, value=trial.value, **facts, run=run))
        return tuple(found)

    @property
    def best(self) -> Trial | None:
        """The trial with the best value, the first of equals; None where no trial has one."""
        return best_of(self.trials, self.direction)

    @property
    def measured(self) -> str:
        """What the number is called; the objective as it was written before a trial has a value."""
        return next((trial.measured for trial in self.trials if trial.measured), self.plan["metric"])

    def best_recipe(self) -> Recipe:
        """Return the tuned recipe with the best trial's values; raises StoreError where no trial has a value."""
        if self.best is None:
            raise StoreError(f"no trial of {self.path} has a value; see the reasons in {self.places.history}")
        return self.recipe.with_values(self.best.values)

    def is_phantom(self) -> bool:
        """True where data or images are phantoms, or networks were trained on phantoms."""
        runs = (Run(trial.run) for trial in self.trials if (trial.run / "recipe.toml").is_file())
        return bool(self.plan["data"] and self.plan["data"]["phantom"]) or any(run.is_phantom() for run in runs)

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as values that JSON can hold."""
        best, places = self.best, self.places
        return {
            "output": str(self.path),
            **{key: self.plan[key] for key in ("metric", "direction", "split", "count", "min_kept")},
            "measured": self.measured,
            "phantom": self.is_phantom(),
            "search": {space.path: space.written for space in self.spaces},
            "trials": [trial.as_dict() for trial in self.trials],
            "best": best.as_dict() if best else None,
            "recipe": str(places.best) if best else None,
            "history": str(places.history),
            "picture": str(places.picture) if places.picture.exists() else None,
            "study": str(places.study),
        }

    def write_tables(self) -> None:
        """Write ``history.csv``, and ``best.toml`` where there is a best trial; raises StoreError where that fails."""
        write_text(self.places.history, history_table(self.trials, self.spaces, self.direction))
        if self.best is not None:
            measured = " ".join(self.measured.split())
            head = f"# Trial {self.best.number} of {len(self.trials)}, the best by {measured}: {self.best.value!r}\n\n"
            write_text(self.places.best, head + self.best_recipe().to_toml())

    def write_picture(self) -> None:
        """Draw ``history.png``; raises StoreError where it cannot be written."""
        from .picture import draw_history

        draw_history(self)


def best_of(trials: Iterable[Trial], direction: str) -> Trial | None:
    """Return the trial with the best value, the first of equals; None where none has a value."""
    measured = [trial for trial in trials if trial.value is not None]
    sign = 1 if direction == "minimize" else -1
    return min(measured, key=lambda trial: sign * (trial.value or 0.0), default=None)


def history_table(trials: Sequence[Trial], spaces: Sequence[Space], direction: str) -> str:
    """Return the trials as CSV text, one row each; ``best`` is the best value up to that trial."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    paths = [space.path for space in spaces]
    writer.writerow(["trial", "state", "value", "low", "high", "best", "cases", "kept", *paths, "reason"])
    for row, trial in enumerate(trials):
        best = best_of(trials[: row + 1], direction)
        numbers = [trial.value, trial.low, trial.high, best.value if best else None, trial.cases, trial.kept]
        shown = ["" if number is None else repr(number) for number in numbers]
        tried = [value if isinstance(value, str) else write_value(value) for value in map(trial.values.get, paths)]
        state = "failed" if trial.value is None else "complete"
        writer.writerow([trial.number, state, *shown, *tried, trial.reason or ""])
    return text.getvalue()
