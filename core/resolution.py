"""From a recipe as written to the recipe as it runs: every default written out, every name looked up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .chain import Chain, StageSpec
from .checkpoints import BUILTIN_REFERENCE, checkpoint_path
from .config import PluginConfig, build_config, checkpoint_fields
from .errors import CheckpointError, ConfigError
from .places import is_local
from .recipe import JOB_REFERENCE

if TYPE_CHECKING:
    from .recipe import Job, Recipe
    from .registry import Registry


def resolve_recipe(recipe: Recipe, registry: Registry) -> Recipe:
    """Return the recipe with every plugin's defaults written out, see :meth:`Recipe.resolved`."""
    recipe.check()
    jobs = tuple(_resolve_job(job, recipe, registry) for job in recipe.jobs)
    synthesis = recipe.synthesis
    if synthesis:
        trained = {job.name for job in recipe.jobs if not job.after_synthesis}
        stages = []
        for (key, config), stage in zip(synthesis.chain.configs(registry).items(), synthesis.chain.stages, strict=True):
            check_checkpoints(config, trained, where=f"stage {key}")
            stages.append(StageSpec(stage.plugin, _written(config, where=f"stage {key}")))
        synthesis = replace(synthesis, chain=Chain(tuple(stages)))
    metrics = tuple(_resolve_metric(metric, recipe, registry) for metric in recipe.metrics)
    return replace(recipe, jobs=jobs, synthesis=synthesis, metrics=metrics)


def _resolve_job(job: Job, recipe: Recipe, registry: Registry) -> Job:
    where = f"training {job.name}"
    config = registry.configured(registry.find(job.trainer, "trainer").plugin, job.values, where=where)
    earlier = {other.name for other in recipe.in_order()[: recipe.in_order().index(job)]}
    check_checkpoints(config, earlier, where=where)
    return replace(job, values=_written(config, where=where))


def _resolve_metric(metric: StageSpec, recipe: Recipe, registry: Registry) -> StageSpec:
    where = f"metric {metric.plugin}"
    config = registry.configured(registry.find(metric.plugin, "metric").plugin, metric.values, where=where)
    # A network that saw synthetic cases is no judge of them.
    check_checkpoints(config, {job.name for job in recipe.jobs if not job.after_synthesis}, where=where)
    return StageSpec(metric.plugin, _written(config, where=where))


def _written(config: PluginConfig, *, where: str) -> dict[str, Any]:
    """Return the configuration as a recipe holds it; raises ConfigError where it would be read back as another."""
    values = config.model_dump(mode="json", exclude_none=True)
    again = build_config(type(config), values, where=where)
    for key in type(config).model_fields:
        given, read = getattr(config, key), getattr(again, key)
        if given != read:
            raise ConfigError(f"{where}: {key} = {given!r} cannot be written in a recipe, which would say {read!r}")
    return values


def check_checkpoints(config: PluginConfig, trained: set[str], *, where: str) -> None:
    """Raise an error where a checkpoint is of no training in ``trained``, does not ship, or is a path to nothing."""
    for key in checkpoint_fields(type(config)):
        value = getattr(config, key)
        if value is None:
            continue
        if value.startswith(JOB_REFERENCE) and value.removeprefix(JOB_REFERENCE) not in trained:
            listed = ", ".join(sorted(trained)) or "none"
            raise ConfigError(f"{where}: {key} = {value!r} names no training that runs before it; there are {listed}")
        if value.startswith(BUILTIN_REFERENCE):
            try:
                checkpoint_path(value)
            except CheckpointError as error:
                raise CheckpointError(f"{where}: {key}: {error}") from None
        if is_local(value) and not Path(value).exists():
            raise CheckpointError(f"{where}: {key} = {value!r} does not exist")
