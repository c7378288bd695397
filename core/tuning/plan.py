"""What a search would do in an output folder, found out without creating anything and without loading a network."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..durable import read_json
from ..errors import ConfigError, DataError
from ..manifest import canonical_json, differences
from ..places import is_free
from ..plan import Plan, plan_run
from ..registry import Registry, default_registry
from .results import Places, Tuning
from .sampling import import_optuna
from .search import Search


@dataclass(frozen=True)
class TuningPlan:
    """What :func:`lesionforge.tune` would do.

    Attributes:
        search: what is tried and measured.
        output: the folder of the search.
        trial: the plan of one trial, with the trainings that trials share as its own.
        combinations: how many values there are to try, None where they cannot be counted.
        finished: how many trials are there already.
        exists: True where ``output`` holds a search.
        obstacle: the line that searching would end with at once, or None.
    """

    search: Search
    output: Path
    trial: Plan
    combinations: int | None
    finished: int
    exists: bool
    obstacle: str | None

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as values that JSON can hold."""
        search = self.search
        return {
            "output": str(self.output),
            "exists": self.exists,
            "obstacle": self.obstacle,
            "metric": search.objective.text,
            "direction": search.objective.direction,
            "split": search.split if search.objective.needs_real else None,
            "trials": {"all": search.trials, "finished": self.finished},
            "combinations": self.combinations,
            "search": [{"key": space.path, **asdict(space)} for space in search.spaces],
            "shared": [job.name for job in search.shared],
            "trial": self.trial.as_dict(),
        }


def plan_tuning(
    search: Search, *, output: str | Path, resume: bool = False, registry: Registry | None = None
) -> TuningPlan:
    """Return what ``search`` would do in ``output``; the tables of the real data are read, no pixel is.

    Raises:
        ConfigError: real data are needed and none are named.
        DataError: the real data are missing or malformed, or lack the split.
        PluginError: Optuna is not installed.
    """
    import_optuna()
    places, grids = Places(Path(output)), [space.grid for space in search.spaces]
    trial = plan_run(search.whole_recipe(), output=places.shared, registry=registry or default_registry())
    if search.objective.needs_real:
        _check_split(trial.data, search)
    return TuningPlan(
        search=search,
        output=places.root,
        trial=trial,
        combinations=math.prod(len(grid) for grid in grids if grid) if all(grids) else None,
        finished=len(Tuning(places.root).trials) if places.plan.is_file() else 0,
        exists=places.plan.is_file(),
        obstacle=obstacle(places, resume=resume) or _another(places, search),
    )


def obstacle(places: Places, *, resume: bool) -> str | None:
    """Return why no search can begin or go on in a folder, or None."""
    if places.plan.exists():
        advice = "add --resume to go on, or choose another --output"
        return None if resume else f"{places.root} holds a search already; {advice}"
    return None if is_free(places.root) else f"{places.root} is not empty and holds no search; choose another --output"


def changed_search(before: Mapping[str, Any], now: Mapping[str, Any], root: Path) -> str | None:
    """Return why the search ``before`` cannot go on as the search ``now``, or None; more trials are no reason."""
    plain = json.loads(canonical_json({key: value for key, value in now.items() if key != "trials"}))
    changed = differences({key: before.get(key) for key in plain}, plain)
    if not changed:
        return None
    named = "; ".join(changed[:3])
    return f"{root} cannot be resumed, since something changed: {named}; restore it or choose another --output"


def _another(places: Places, search: Search) -> str | None:
    return changed_search(read_json(places.plan), search.as_dict(), places.root) if places.plan.is_file() else None


def _check_split(data: Mapping[str, Any] | None, search: Search) -> None:
    """Raise an error where the real data lack the split; data without any are cut when they are loaded."""
    if data is None:
        raise ConfigError(
            f"--metric {search.objective.text} needs real data; name some, for example --data folder:PATH"
        )
    splits = data["splits"]
    if search.split not in splits and set(splits) != {"unassigned"}:
        have = ", ".join(name for name in splits if name != "unassigned")
        raise DataError(f"the real data have no split {search.split!r}; they have {have}")
