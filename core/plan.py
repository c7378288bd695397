"""What a recipe would do in an output folder, found out without creating anything and without loading a network."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .chain import Chain
from .dataset import SPLITS
from .errors import ConfigError
from .loading import load_dataset, with_source
from .places import is_free
from .recipe import Job, Recipe
from .registry import Registry, default_registry
from .roles import STAGE_ROLES
from .run import Run
from .store import RunStore


@dataclass(frozen=True)
class Plan:
    """What :meth:`Recipe.run` would do.

    Attributes:
        recipe: with every default written out.
        output: the run folder.
        data: ``source``, ``name``, ``phantom``, ``cases`` and ``splits`` (name -> cases) of the real data, or None.
        jobs: each training, in the order they run, and how far it is: ``to do``, ``begun`` or ``finished``.
        shards: number of shards, each committed to disk as a whole.
        committed: how many of them are there already.
        exists: True where ``output`` holds a run.
        obstacle: the line that running would end with at once, or None.
    """

    recipe: Recipe
    output: Path
    data: Mapping[str, Any] | None
    jobs: tuple[tuple[Job, str], ...]
    shards: int
    committed: int
    exists: bool
    obstacle: str | None

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as values that JSON can hold."""
        synthesis = self.recipe.synthesis
        stages = zip(synthesis.chain.keys, synthesis.chain.stages, strict=True) if synthesis else ()
        return {
            "name": self.recipe.name,
            "output": str(self.output),
            "exists": self.exists,
            "obstacle": self.obstacle,
            "seed": self.recipe.seed,
            "data": self.data,
            "jobs": [
                {"name": job.name, "use": job.trainer, "on": job.on, "config": job.values, "state": state}
                for job, state in self.jobs
            ],
            "stages": [{"name": key, "use": stage.plugin, "config": stage.values} for key, stage in stages],
            "metrics": [{"use": metric.plugin, "config": metric.values} for metric in self.recipe.metrics],
            "cases": synthesis.count if synthesis else 0,
            "batch_size": synthesis.batch_size if synthesis else None,
            "shards": {"all": self.shards, "committed": self.committed},
        }


def plan_run(
    recipe: Recipe,
    *,
    output: str | Path,
    data: str | None = None,
    resume: bool = False,
    registry: Registry | None = None,
) -> Plan:
    """Return what ``recipe`` would do in ``output``; the arguments are those of :meth:`Recipe.run`.

    The tables of the real data are read, no pixel is.

    Raises:
        PluginError: a plugin is unknown or broken.
        ConfigError: a value is not allowed, or real data are needed and none are named.
        DataError: the real data are missing or malformed.
    """
    registry = registry or default_registry()
    recipe = with_source(recipe, data).resolved(registry)
    store = RunStore(Path(output))
    exists = store.recipe.is_file()
    starts = range(0, recipe.synthesis.count, recipe.synthesis.shard_size) if recipe.synthesis else range(0)
    finished = Run(store.root).metrics() if exists else {}

    def state(job: Job) -> str:
        return "finished" if job.name in finished else "begun" if (store.jobs / job.name).is_dir() else "to do"

    return Plan(
        recipe=recipe,
        output=store.root,
        data=_real_data(recipe, registry),
        jobs=tuple((job, state(job)) for job in recipe.in_order()),
        shards=len(starts),
        committed=sum(store.shard(start).is_dir() for start in starts),
        exists=exists,
        obstacle=_obstacle(recipe, store, resume=resume),
    )


def check_needs_no_data(recipe: Recipe, registry: Registry) -> None:
    """Raise ConfigError where any part of ``recipe`` needs real data; for recipes that name none."""
    if recipe.jobs:
        first = recipe.in_order()[0].name
        raise ConfigError(f"training {first} needs real data; name some, for example --data isic2018:PATH")
    chain = recipe.synthesis.chain if recipe.synthesis else Chain(())
    for key, stage in zip(chain.keys, chain.stages, strict=True):
        plugin: Any = registry.find(stage.plugin, *STAGE_ROLES).plugin
        if plugin.needs_fit:
            raise ConfigError(f"stage {key} must be fitted on real data; name some, for example --data folder:PATH")
    for metric in recipe.metrics:
        raise ConfigError(f"metric {metric.plugin} needs real data; name some, for example --data folder:PATH")


def _real_data(recipe: Recipe, registry: Registry) -> dict[str, Any] | None:
    if recipe.data.source is None:
        check_needs_no_data(recipe, registry)
        return None
    dataset = load_dataset(recipe.data.source, registry=registry)
    splits = Counter(record.split or "unassigned" for record in dataset.records)
    return {
        "source": recipe.data.source,
        "name": dataset.name,
        "phantom": dataset.phantom,
        "cases": len(dataset),
        "splits": {name: splits[name] for name in (*SPLITS, "unassigned") if splits[name]},
    }


def _obstacle(recipe: Recipe, store: RunStore, *, resume: bool) -> str | None:
    """Return why the store would refuse to take the run, see :meth:`RunStore.create`."""
    root = store.root
    if store.recipe.is_file():
        if not resume:
            return f"{root} holds a run already; add --resume to go on, or choose another --output"
        stored = Run(root).recipe
        if recipe.synthesis and stored.synthesis and recipe.synthesis.precision == "auto":
            # The stored recipe says what auto came to; finding that out again would take torch.
            recipe = replace(recipe, synthesis=replace(recipe.synthesis, precision=stored.synthesis.precision))
        same = stored.to_toml() == recipe.to_toml()
        return None if same else f"{root} was started with another recipe (see {store.recipe})"
    if not is_free(root):
        return f"{root} is not empty and holds no run; choose another --output"
    nearest = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
    return None if os.access(nearest, os.W_OK) else f"cannot write to {root}: {nearest} is read-only"
