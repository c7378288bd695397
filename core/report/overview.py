"""What was run: recipe, stages, data, machine, versions, and the few numbers that sum it up."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..chain import write_value
from ..dataset import Dataset
from ..recipe import Recipe
from ..run import Run
from .census import Census
from .training import JobView
from .wording import MISSING, count, number, percent, plural

SHORT_HASH = 12


@dataclass(frozen=True)
class Tile:
    """One number at the head of the report."""

    value: str
    name: str
    note: str = ""


@dataclass(frozen=True)
class StageFacts:
    """One stage of the chain.

    Attributes:
        origin: distribution and version that brought the plugin, empty before the chain has begun.
        settings: configuration, one ``key = value`` each.
        loaded: short hashes of the checkpoints and the fitted state.
    """

    key: str
    plugin: str
    role: str
    origin: str
    settings: tuple[str, ...]
    loaded: tuple[str, ...]


def is_phantom(run: Run, jobs: Sequence[JobView], real: Dataset | None) -> bool:
    """Return whether phantoms are anywhere in the run: in its images, its data, or what its jobs trained on."""
    trained = any((view.facts.get("data") or {}).get("phantom") for view in jobs)
    synthesis = run.recipe.synthesis
    drawn = synthesis is not None and any(stage.plugin == "phantom" for stage in synthesis.chain.stages)
    return run.is_phantom() or trained or drawn or bool(real and real.phantom)


def reference_name(facts: Mapping[str, Any], real: Dataset | None) -> str:
    """Return what the report calls the data that stand for reality: ``real``, unless they are phantoms themselves."""
    phantom = real.phantom if real is not None else bool((facts["data"] or {}).get("phantom"))
    return "phantom reference" if phantom else "real"


def title_of(run: Run) -> str:
    """Return the recipe's name, or the folder's where the recipe has none of its own."""
    return run.path.resolve().name if run.recipe.name == Recipe.name else run.recipe.name


def stage_table(run: Run) -> list[StageFacts]:
    """Return the chain's stages from the manifest, or from the recipe alone where the chain has not begun."""
    synthesis = run.recipe.synthesis
    if synthesis is None:
        return []
    facts = {stage["key"]: stage for stage in run.manifest.get("stages", ())}
    pairs = zip(synthesis.chain.keys, synthesis.chain.stages, strict=True)
    return [_stage(key, stage.plugin, stage.values, facts.get(key, {})) for key, stage in pairs]


def _stage(key: str, plugin: str, values: Mapping[str, Any], facts: Mapping[str, Any]) -> StageFacts:
    loaded = [f"{name} {short(value)}" for name, value in (facts.get("checkpoints") or {}).items()]
    if facts.get("fitted"):
        loaded.append(f"fitted state {short(facts['fitted'])}")
    origin = f"{facts['distribution']} {facts['version']}" if facts else ""
    settings = tuple(f"{name} = {write_value(value)}" for name, value in values.items())
    return StageFacts(key, plugin, facts.get("role", MISSING), origin, settings, tuple(loaded))


def tiles(run: Run, census: Census, jobs: Sequence[JobView]) -> list[Tile]:
    """Return the numbers that sum the run up."""
    found = []
    if run.recipe.synthesis:
        expected, speed = run.recipe.synthesis.count, cases_per_second(run)
        found = [
            Tile(count(census.total), "cases made", f"of {count(expected)}"),
            Tile(count(census.kept), "accepted"),
            Tile(count(census.rejected), "rejected", f"for {plural(len(census.reasons), 'reason')}"),
            Tile(percent(census.kept, census.total), "acceptance rate"),
            Tile(number(speed), "cases per second", "whole chain" if speed else "not logged yet"),
        ]
    if jobs:
        finished = sum(view.metrics is not None for view in jobs)
        found.append(Tile(count(finished), "trainings finished", f"of {count(len(jobs))}"))
    return found


def log_events(run: Run) -> list[dict[str, Any]]:
    """Return the events of ``log.jsonl``."""
    if not run.store.log.exists():
        return []
    events = []
    for line in run.store.log.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            events.append(json.loads(line))
        except ValueError:
            continue  # the log is appended without a sync, so a kill may tear its last line
    return [event for event in events if isinstance(event, dict)]


def cases_per_second(run: Run) -> float | None:
    """Return the speed of the chain over all its finished sessions, or None where none is logged."""
    sessions = [event for event in log_events(run) if event.get("event") == "chain"]
    seconds = sum(float(event["seconds"]) for event in sessions)
    cases = sum(int(event["cases"]) for event in sessions)
    return cases / seconds if seconds > 0 and cases else None


def job_seconds(run: Run) -> dict[str, float]:
    """Return how long the last session of every finished job took."""
    return {event["name"]: float(event["seconds"]) for event in log_events(run) if event.get("event") == "job"}


def facts_of(run: Run, jobs: Sequence[JobView]) -> dict[str, Any]:
    """Return manifest entries that the jobs share: data, machine, versions; the chain's first, else a job's."""
    sources = [run.manifest, *(view.facts for view in jobs)]
    return {key: next((s[key] for s in sources if s.get(key)), None) for key in ("data", "machine", "versions")}


def short(digest: str) -> str:
    """Return the beginning of a SHA-256, enough to tell files apart."""
    return digest[:SHORT_HASH]
