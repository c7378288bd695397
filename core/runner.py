"""Carries a recipe out: jobs on real data, the chain shard by shard, jobs on synthetic data, the report."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from .context import choose_device, choose_precision
from .dataset import Dataset, grouped_split
from .errors import ConfigError, LesionforgeError
from .execution import fit_stages
from .jobs import JobRunner
from .loading import load_dataset, with_source
from .manifest import FORMAT, canonical_json, data_facts, machine_facts, package_versions, stage_facts, text_hash
from .plan import check_needs_no_data
from .recipe import Recipe
from .registry import Registry, default_registry
from .run import Run
from .shards import ShardMaker, missing_shards, open_recipe_stages, same_threads, share_shards, synthesis_of
from .store import RunStore

if TYPE_CHECKING:
    from .roles import Stage

DEFAULT_FRACTIONS = {"train": 0.7, "val": 0.1, "test": 0.2}


def run_recipe(
    recipe: Recipe,
    *,
    output: Path,
    data: str | Dataset | None,
    resume: bool,
    device: str,
    workers: int,
    observers: Sequence[object],
    report: bool,
    registry: Registry | None,
) -> Run:
    """Carry ``recipe`` out in ``output``, see :meth:`Recipe.run`."""
    registry = registry or default_registry()
    target = choose_device(device)
    recipe = with_source(recipe, data if isinstance(data, str) else None).resolved(registry)
    if recipe.synthesis:
        precision = choose_precision(recipe.synthesis.precision, target)
        recipe = replace(recipe, synthesis=replace(recipe.synthesis, precision=precision))
    real = real_data(recipe, data if isinstance(data, Dataset) else None)
    if real is None:
        check_needs_no_data(recipe, registry)
    store = RunStore(output)
    with store.locked(), observed(registry, observers), same_threads(store):
        store.create(recipe.to_toml(), resume=resume)
        try:
            _carry_out(recipe, real, store, target, workers, registry)
        except LesionforgeError as error:
            if error.__cause__ is not None:
                text = "".join(traceback.format_exception(error))
                store.append_log({"event": "failure", "time": time.time(), "traceback": text})
            raise
        run = Run(output)
        if report:
            from .report import write_report

            write_report(run, real=real)
    return run


def _carry_out(
    recipe: Recipe, real: Dataset | None, store: RunStore, device: torch.device, workers: int, registry: Registry
) -> None:
    precision = recipe.synthesis.precision if recipe.synthesis else "auto"
    jobs = JobRunner(store, recipe.seed, device, precision, registry)
    for job in recipe.in_order():
        if not job.after_synthesis:
            jobs.run(job, _needed(real, job.name), None)
    if recipe.synthesis:
        training = real.split("train") if real is not None else None
        synthesise(recipe, training, store, device, workers, registry)
    for job in recipe.in_order():
        if job.after_synthesis:
            jobs.run(job, _needed(real, job.name), Run(store.root).dataset())


def _needed(real: Dataset | None, job: str) -> Dataset:
    if real is None:
        raise ConfigError(f"training {job} needs real data; name some, for example --data isic2018:PATH")
    return real


def real_data(recipe: Recipe, given: Dataset | None) -> Dataset | None:
    """Return the recipe's real data at its size with splits, or None where it names none.

    Data without splits are cut 70 / 10 / 20 by lesion group [ours]; ``limit`` shortens the training split.
    """
    if given is None and recipe.data.source is None:
        return None
    dataset = given if given is not None else load_dataset(str(recipe.data.source))
    if recipe.data.size is not None:
        dataset = dataset.resized(recipe.data.size)
    if not dataset.has_splits():
        dataset = grouped_split(dataset, DEFAULT_FRACTIONS, seed=recipe.seed)
    if recipe.data.limit is not None:
        chosen = set(dataset.split("train").ids[: recipe.data.limit])
        dataset = dataset.where(lambda record: record.split != "train" or record.image_id in chosen)
    return dataset


@contextmanager
def observed(registry: Registry, observers: Sequence[object]) -> Iterator[None]:
    """Let ``observers`` follow the block through their hook implementations."""
    for observer in observers:
        registry.hooks.register(observer)
    try:
        yield
    finally:
        for observer in observers:
            registry.hooks.unregister(observer)


def synthesise(
    recipe: Recipe,
    training: Dataset | None,
    store: RunStore,
    device: torch.device,
    workers: int,
    registry: Registry,
) -> None:
    """Fit the stages, write the manifest and make all missing shards, in this process or in several."""
    synthesis = synthesis_of(recipe)
    if not missing_shards(store, synthesis) and store.manifest.exists():
        return
    stages = open_recipe_stages(recipe, store, device, registry)
    fit_stages(stages, training, store.fitted)
    store.write_manifest(_manifest(recipe, stages, store, device, registry, training))
    hooks = registry.hooks.hook
    missing = missing_shards(store, synthesis)
    hooks.run_started(output=store.root, count=sum(map(len, missing)), stages=synthesis.chain.keys)
    started = time.time()
    if workers > 1 and len(missing) > 1:
        del stages
        share_shards(store.root, device, min(workers, len(missing)), registry)
    else:
        ShardMaker(recipe, store, stages, hooks).make(missing)
    cases = sum(map(len, missing))
    store.append_log({"event": "chain", "start": started, "seconds": time.time() - started, "cases": cases})
    hooks.run_done(output=store.root)


def _manifest(
    recipe: Recipe,
    stages: Mapping[str, Stage],
    store: RunStore,
    device: torch.device,
    registry: Registry,
    training: Dataset | None,
) -> str:
    facts = stage_facts(stages, synthesis_of(recipe).chain, store.fitted, registry)
    distributions = [stage["distribution"] for stage in facts]
    return canonical_json(
        {
            "format": FORMAT,
            "recipe": text_hash(recipe.to_toml()),
            "seed": recipe.seed,
            "batch_size": synthesis_of(recipe).batch_size,
            "precision": synthesis_of(recipe).precision,
            "stages": facts,
            "data": data_facts(training),
            "machine": machine_facts(device),
            "versions": package_versions(*distributions),
        }
    )
