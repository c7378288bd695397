"""A search before it runs: what is tried, what each trial does, and which trainings all trials share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..chain import Chain, StageSpec
from ..config import PluginConfig
from ..errors import ConfigError
from ..loading import with_source
from ..recipe import Job, Recipe, Synthesis
from ..registry import Registry
from ..resolution import check_checkpoints
from .objectives import DatasetMetric, Objective, ValidationCurve, read_objective, referred, with_trained
from .spaces import Space, first_corner, read_spaces

SPLITS = ("val", "train")


@dataclass(frozen=True)
class Search:
    """Everything that shapes a search; two equal ones end with the same trials.

    Attributes:
        recipe: the recipe that is tuned, as it was given, on its data.
        spaces: the values to try.
        objective: what is measured of a trial.
        split: the real split that metrics compare with, ``val`` or ``train``.
        count: cases that a trial makes, 0 where the objective needs none.
        min_kept: accepted cases below which a trial fails.
        trials: number of trials, no more than there are combinations.
        shared: trainings that no searched value shapes; done once.
        own: trainings that every trial does for itself.
        corner: values, one a space, that the plugins allow.
    """

    recipe: Recipe
    spaces: tuple[Space, ...]
    objective: Objective
    split: str
    count: int
    min_kept: int
    trials: int
    shared: tuple[Job, ...]
    own: tuple[Job, ...]
    corner: Mapping[str, Any]

    def shared_recipe(self) -> Recipe:
        """Return the recipe of the trainings that all trials share."""
        return replace(_without_chain(self.recipe), jobs=self.shared)

    def trial_recipe(self, values: Mapping[str, Any], trained: Path) -> Recipe:
        """Return the recipe of the trial with ``values``; the shared trainings lie below ``trained``."""
        recipe, names = self.with_values(values), frozenset(job.name for job in self.shared)

        def on_paths(given: Mapping[str, Any]) -> dict[str, Any]:
            return with_trained(given, trained.absolute(), names)

        own = {job.name for job in self.own}
        jobs = tuple(replace(job, values=on_paths(job.values)) for job in recipe.jobs if job.name in own)
        if not self.objective.needs_cases or recipe.synthesis is None:
            return replace(_without_chain(recipe), jobs=jobs)
        stages = tuple(StageSpec(stage.plugin, on_paths(stage.values)) for stage in recipe.synthesis.chain.stages)
        synthesis = replace(recipe.synthesis, chain=Chain(stages), count=self.count)
        return replace(recipe, jobs=jobs, synthesis=synthesis, metrics=())

    def whole_recipe(self) -> Recipe:
        """Return the first corner's recipe with the shared trainings in it, as nobody runs it: to look at and plan."""
        recipe, names = self.with_values(self.corner), {job.name for job in (*self.shared, *self.own)}
        jobs = tuple(job for job in recipe.jobs if job.name in names)
        if not self.objective.needs_cases or recipe.synthesis is None:
            return replace(_without_chain(recipe), jobs=jobs)
        return replace(recipe, jobs=jobs, synthesis=replace(recipe.synthesis, count=self.count), metrics=())

    def with_values(self, values: Mapping[str, Any]) -> Recipe:
        """Return the tuned recipe, all of it, with ``values`` in place of its own."""
        return self.recipe.with_values(values)

    def as_dict(self) -> dict[str, Any]:
        """Return all that is chosen freely in a search, but for the number of trials, as values that JSON can hold."""
        return {
            "recipe": self.recipe.to_toml(),
            "search": [asdict(space) for space in self.spaces],
            "metric": self.objective.text,
            "direction": self.objective.direction,
            "split": self.split,
            "count": self.count,
            "min_kept": self.min_kept,
        }


def plan_search(
    recipe: Recipe | Chain,
    search: Sequence[str],
    metric: str,
    *,
    trials: int,
    count: int | None = None,
    min_kept: int = 1,
    direction: str | None = None,
    split: str = "val",
    data: str | None = None,
    registry: Registry,
) -> Search:
    """Return the search that these words mean, after a look at everything that can be wrong without running it.

    The arguments are those of :func:`lesionforge.tune`.

    Raises:
        ConfigError: a space, the objective or a value of the recipe is not allowed, or the test split is asked for.
        PluginError: a plugin is unknown or broken.
        CheckpointError: a checkpoint that can only be a local path does not exist.
    """
    if trials < 1:
        raise ConfigError(f"--trials {trials}: at least one is needed")
    if split not in SPLITS:
        leak = ": settings chosen on the test split would leak it into every later result" if split == "test" else ""
        raise ConfigError(f"--split {split}: take {' or '.join(SPLITS)}{leak}")
    if isinstance(recipe, Chain):
        recipe = Recipe(synthesis=Synthesis(recipe))
    recipe = with_source(recipe, data)
    spaces = read_spaces(search, recipe, registry)
    objective = read_objective(metric, direction, recipe, registry)
    if isinstance(objective, ValidationCurve) and split != "val":
        raise ConfigError(f"--split {split}: --metric {metric} is measured on val")
    made = _cases(recipe, objective, count)
    if not 1 <= min_kept <= max(made, 1):
        raise ConfigError(f"--min-kept {min_kept}: a trial makes {made} cases; take 1 to {max(made, 1)}")
    corner = first_corner(spaces, recipe, registry)
    shared, own = _trainings(recipe, spaces, objective)
    most = _possible(spaces, trials)
    planned = Search(recipe, spaces, objective, split, made, min_kept, most, shared, own, corner)
    planned.with_values(corner).resolved(registry)
    _check_metric(planned, registry)
    return planned


def _without_chain(recipe: Recipe) -> Recipe:
    return replace(recipe, synthesis=None, metrics=(), precision=recipe.training_precision)


def _cases(recipe: Recipe, objective: Objective, count: int | None) -> int:
    if not objective.needs_cases:
        return 0
    if recipe.synthesis is None:
        raise ConfigError(f"--metric {objective.text}: recipe {recipe.name!r} has no [[stage]], so it makes no cases")
    return recipe.synthesis.count if count is None else replace(recipe.synthesis, count=count).count


def _possible(spaces: Sequence[Space], trials: int) -> int:
    grids = [space.grid for space in spaces]
    return min(trials, math.prod(len(grid) for grid in grids if grid)) if all(grids) else trials


def _trainings(
    recipe: Recipe, spaces: Sequence[Space], objective: Objective
) -> tuple[tuple[Job, ...], tuple[Job, ...]]:
    """Return the trainings that trials share and those that each does for itself; others are not needed.

    Raises:
        ConfigError: a searched place takes no part in a trial, or the objective's measure would change with it.
    """
    jobs = {job.name: job for job in recipe.in_order()}

    def references(place: str, values: Mapping[str, Any]) -> set[str]:
        choices = [value for space in spaces if space.place == place for value in space.choices]
        return {name for value in (*values.values(), *choices) for name in referred({"": value})} & jobs.keys()

    chain = recipe.synthesis.chain if recipe.synthesis and objective.needs_cases else Chain(())
    stages = dict(zip(chain.keys, chain.stages, strict=True))
    needed = set(objective.trainings) & jobs.keys()
    needed |= {name for key, stage in stages.items() for name in references(key, stage.values)}
    while more := {name for job in needed for name in references(job, jobs[job].values)} - needed:
        needed |= more
    searched, changing = {space.place for space in spaces}, set[str]()
    for name, job in jobs.items():  # in the order they run, so that what a training builds upon comes before it
        if name in searched or job.after_synthesis or references(name, job.values) & changing:
            changing.add(name)
    idle = sorted(searched - needed - stages.keys())
    if idle:
        raise ConfigError(
            f"--search {idle[0]}: trials do without it, since nothing of --metric {objective.text} comes of it"
        )
    if isinstance(objective, DatasetMetric) and (moving := sorted(set(objective.trainings) & changing)):
        raise ConfigError(
            f"--metric {objective.text}: training {moving[0]} differs from trial to trial, and a yardstick must not"
        )
    split = [tuple(job for job in recipe.jobs if job.name in names) for names in (needed - changing, needed & changing)]
    return split[0], split[1]


def _check_metric(search: Search, registry: Registry) -> None:
    """Raise an error where the metric needs real data that are not named, or a checkpoint that is not there."""
    objective = search.objective
    if isinstance(objective, DatasetMetric):
        where = f"--metric {objective.plugin}"
        plugin = registry.find(objective.plugin, "metric").plugin
        config: PluginConfig = registry.configured(plugin, objective.values, where=where)
        check_checkpoints(config, {job.name for job in search.shared}, where=where)
